//! `run --once` and `run --dry-run`: one read, one decision, and an exit code that
//! tells. No member key and no supervision.

mod keys;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use common::handshake::Bookkeeping;
use common::model::{Entry, Revision, Snapshot};
use common::runtime::{Exit, Usage};
use common::startup::connect_within;
use common::store::{Etcd, Store, read_deadline};
use tokio::time::Instant;

use super::locks::{LOCK_PACE, lock_dests};
use super::nothing_found::say_where_keys_are;
use crate::agent::render::{RenderRules, RenderedResource, Withheld, log_rejected};
use crate::apply::LoadLimits;
use crate::apply::ledger::PendingStep;
use crate::apply::pipeline::Pipeline;
use crate::apply::step::StepOutcome;
use crate::backends::saved::SavedBackends;
use crate::config::load::{has_no_resources, load_usable};
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::config::run::{RunConfig, SingleRun};
use crate::install::{Candidate, DestLock, Digest, InstallError, Target, Wanted, current};
use crate::proxy::Proxy;
use keys::KeysOnce;
use show::show;

struct Run<'r> {
    set: &'r ReloadGroup,
    store: &'r Etcd,
    bookkeeping: &'r Bookkeeping,
}

/// The files, and what to remember once they are live.
#[derive(Default)]
struct Rendered {
    candidates: Vec<Candidate>,
    memories: Vec<(PathBuf, SavedBackends)>,
}

/// How long etcd may take to answer: whoever calls in a loop wants to know soon.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a reload may wait for old generations to end.
const DELAYED: Duration = Duration::from_secs(60);

/// Applies everything once.
///
/// # Errors
/// When etcd does not answer, or a file cannot be made or is refused.
pub async fn run(config: &RunConfig, how: SingleRun) -> anyhow::Result<Exit> {
    if has_no_resources(&config.confdir) {
        // A script runs us until somebody puts files there, as with confd.
        tracing::warn!(
            confdir = %config.confdir.display(),
            "no resource files in conf.d: nothing to do (`confsync init` writes a working start)"
        );
        return Ok(Exit::Done);
    }
    let (loaded, mistakes) = load_usable(&config.confdir, &config.globals)?;
    loaded.say_notes();
    for mistake in &mistakes {
        tracing::error!(
            file = %mistake.file.display(),
            "not used: {}; correct it, `confsync check` shows all mistakes",
            mistake.text
        );
    }
    let store =
        connect_within(&config.connection, PATIENCE).await.context("cannot read the keys")?;
    let bookkeeping = Bookkeeping::below(&config.bookkeeping)?;
    let mut exit = if mistakes.is_empty() { Exit::Done } else { Exit::Failed };
    for set in &loaded.sets {
        let snapshot =
            store.read(&set.trees(), read_deadline()).await.context("cannot read the keys")?;
        if snapshot.entries.is_empty() {
            say_where_keys_are(&config.connection, &store, &set.trees(), &set.name).await;
        }
        let run = Run { set, store: &store, bookkeeping: &bookkeeping };
        let done = one(&run, snapshot, how).await.unwrap_or_else(|error| {
            tracing::error!(set = set.name, "{error:#}");
            Exit::Failed
        });
        if done != Exit::Done {
            exit = done;
        }
    }
    Ok(exit)
}

/// Renders all files, by the rules of the agent. There is no earlier decision to compare with, but
/// for what was saved if etcd regressed since the files were last active. The last to look at the
/// snapshot takes it apart: with thousands of backends each copy of them is most of the memory of
/// the run.
async fn render(run: &Run<'_>, snapshot: &mut Snapshot) -> anyhow::Result<Rendered> {
    let mut rendered = Rendered::default();
    let in_place = run.set.programs.iter().all(|program| program.resource.dest.exists());
    let mut left = run.set.programs.len();
    for program in &run.set.programs {
        let resource = &program.resource;
        let saved = SavedBackends::load_if_ahead(&resource.dest, snapshot);
        let regressed = saved.is_some();
        let mut known = saved.map(|saved| saved.belief(&resource.reading)).unwrap_or_default();
        left -= 1;
        let mut keys = match left {
            0 => {
                let entries = std::mem::take(&mut snapshot.entries);
                KeysOnce::read(program, entries.into_iter().map(|(_, entry)| entry), regressed)
            }
            _ => KeysOnce::read(program, snapshot.entries.values(), regressed),
        };
        log_rejected(&[], &keys.seen.refused);
        let (store, bookkeeping) = (run.store, run.bookkeeping);
        let (may_wait, left_out) = (false, &BTreeSet::new());
        let rules = RenderRules { store, bookkeeping, regressed, may_wait, in_place, left_out };
        let result = rules.render(program, &mut known, &mut keys.seen).await;
        let one = result.and_then(RenderedResource::or_withheld);
        let one = one.map_err(|withheld| not_rendered(program, withheld))?;
        rendered.candidates.push(one.file.plain());
        if let Some(backends) = keys.to_save(&one.retained) {
            let (cluster, revision) = (snapshot.cluster, snapshot.revision);
            let saved = SavedBackends { cluster, revision, backends };
            rendered.memories.push((resource.dest.clone(), saved));
        }
    }
    Ok(rendered)
}

fn not_rendered(program: &CompiledResource, withheld: Withheld) -> anyhow::Error {
    let Withheld { why, too_few_backends } = withheld;
    match too_few_backends {
        true => anyhow::anyhow!("{}: {why}; the last file stays", program.resource.name),
        false => anyhow::anyhow!(why),
    }
}

async fn one(run: &Run<'_>, mut snapshot: Snapshot, how: SingleRun) -> anyhow::Result<Exit> {
    let Rendered { candidates, memories } = render(run, &mut snapshot).await?;
    if how.dry_run {
        show(&candidates, how.diff)?;
        return Ok(Exit::Done);
    }
    if how.sync_only {
        write_only(run.set, &candidates.into()).await?;
        return Ok(Exit::Done);
    }
    let exit = apply(run.set, candidates, snapshot.revision).await?;
    if exit == Exit::Done {
        for (dest, memory) in &memories {
            if let Err(error) = memory.save(dest) {
                tracing::warn!(%error, "what is routed to is not remembered for the next run");
            }
        }
        // The process ends, and the kernel takes back at once what would go text by text.
        std::mem::forget(memories);
    }
    Ok(exit)
}

async fn apply(
    set: &ReloadGroup,
    candidates: Vec<Candidate>,
    revision: Revision,
) -> anyhow::Result<Exit> {
    let proxy = Proxy::of(set, None, None).await?;
    let targets: Vec<Target> = set.programs.iter().map(CompiledResource::target).collect();
    let wanted = Wanted::from(candidates);
    let digest = Some(wanted.digest());
    let Some(locks) = locks_or_in_sync(set, &targets, digest).await? else {
        return Ok(Exit::Done);
    };
    let limits = LoadLimits::default();
    let pipeline = Pipeline::new(set.name.clone(), proxy, targets, locks, limits)?;
    let mut pipeline = pipeline.for_one_turn();
    let is_in_place = |pipeline: &Pipeline| pipeline.status().installed == digest;
    let was_in_place = is_in_place(&pipeline);
    if was_in_place && !pipeline.has_unproven_files() {
        tracing::info!(set = set.name, "in sync");
        return Ok(Exit::Done);
    }
    pipeline.want_files(wanted, revision);
    let left_over = pipeline.has_unproven_files() && !was_in_place && pipeline.proxy().is_running();
    let mut outcome = step(&mut pipeline).await;
    if left_over && !is_in_place(&pipeline) {
        // That was what an earlier run had left; whatever came of it, what is wanted now is due.
        pipeline.try_again();
        outcome = step(&mut pipeline).await;
    }
    let in_place = is_in_place(&pipeline);
    match outcome.failure() {
        None => Ok(Exit::Done),
        // The files are right and whoever starts will read them.
        Some(_) if in_place && !pipeline.proxy().is_running() => Ok(Exit::Done),
        // Who starts the proxy after this has succeeded, in a loop as confd's users have
        // it, would wait for ever: until then its reload_cmd fails. The run that wrote the
        // file has failed; the reload stays owed.
        Some(why) if in_place && was_in_place && only_commands(set) => {
            tracing::warn!(set = set.name, "in place since an earlier run, though {why}");
            Ok(Exit::Done)
        }
        // The pipeline has said why.
        Some(_) => Ok(Exit::Failed),
    }
}

/// The right to write the files; `None` when they are as they are wanted and another process,
/// a daemon most often, keeps them so.
async fn locks_or_in_sync(
    set: &ReloadGroup,
    targets: &[Target],
    wanted: Option<Digest>,
) -> anyhow::Result<Option<Vec<DestLock>>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match lock_dests(targets, Duration::ZERO).await {
            Ok(locks) => return Ok(Some(locks)),
            Err(held @ InstallError::Held { .. }) => {
                if current(targets)? == wanted {
                    tracing::info!(set = set.name, "in sync: {held}");
                    return Ok(None);
                }
                if Instant::now() >= until {
                    return Err(held.into());
                }
                tokio::time::sleep(LOCK_PACE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Performs the step that is due. What delays one is waited for, though not for ever.
async fn step(pipeline: &mut Pipeline) -> StepOutcome {
    let until = Instant::now() + DELAYED;
    loop {
        let outcome = pipeline.step(Instant::now()).await;
        if outcome != StepOutcome::Idle {
            return outcome;
        }
        let PendingStep::NotBefore(at) = pipeline.pending(Instant::now()) else { return outcome };
        if at > until {
            let why = "the reload waits still: too many old generations are at work";
            tracing::error!("{why}");
            return StepOutcome::Failed(why.to_owned());
        }
        tokio::time::sleep_until(at).await;
    }
}

fn only_commands(set: &ReloadGroup) -> bool {
    set.programs.iter().all(|program| !program.resource.is_by_name())
}

async fn write_only(set: &ReloadGroup, wanted: &Wanted) -> anyhow::Result<()> {
    use crate::install::{Proof, StagedFiles};
    let targets: Vec<_> = wanted.files().iter().map(|c| c.target.clone()).collect();
    if current(&targets)? == Some(wanted.digest()) {
        tracing::info!(set = set.name, "in sync");
        return Ok(());
    }
    let Some(_locks) = locks_or_in_sync(set, &targets, Some(wanted.digest())).await? else {
        return Ok(());
    };
    let staged = StagedFiles::write(wanted)?;
    let proof = Proof::nothing_to_ask(&staged);
    staged.accept(proof)?.install()?.commit()?;
    tracing::info!(set = set.name, "written");
    Ok(())
}

/// Entries of a JSON object `{"/key": "value"}`, as a store would give them.
///
/// # Errors
/// When the file is not such an object.
pub fn from_file(path: &Path) -> anyhow::Result<Snapshot> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("--data {name}: cannot be read: {error}")))?;
    let values: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| {
            let example = r#"{"/services/web/a": "10.0.0.1:80"}"#;
            Usage(format!("--data {name}: not an object of key to value, {example}: {error}"))
        })?;
    let entry = |(key, value): (String, serde_json::Value)| {
        let text = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let entry = Entry {
            key: key.into(),
            value: text.as_str().into(),
            created: Revision(1),
            modified: Revision(1),
            lease: 0,
            ttl: None,
        };
        (Arc::clone(&entry.key), entry)
    };
    Ok(Snapshot { entries: values.into_iter().map(entry).collect(), ..Snapshot::default() })
}
