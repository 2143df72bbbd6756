//! `run --once` and `run --dry-run`: one read, one decision, and an exit code that
//! tells. No member key and no supervision.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use common::model::Snapshot;
use common::runtime::Exit;
use common::store::{Etcd, Store, StoreError, connect};
use similar::TextDiff;
use tokio::time::Instant;

use crate::daemon::Config;
use crate::guard::Outcome;
use crate::install::{Candidate, Digest, current};
use crate::load::load;
use crate::pipeline::Pipeline;
use crate::proxy::Proxy;
use crate::render::Program;
use crate::set::Set;

/// How a single run is done.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Change nothing.
    pub dry_run: bool,
    /// With `dry_run`: show a diff.
    pub diff: bool,
    /// Write the files, ask and tell nobody.
    pub sync_only: bool,
}

/// How long etcd may take to answer: whoever calls in a loop wants to know soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Applies everything once.
///
/// # Errors
/// When etcd does not answer, or a file cannot be made or is refused.
pub async fn run(config: &Config, how: How) -> anyhow::Result<Exit> {
    let loaded = load(&config.confdir, &config.globals)?;
    loaded.say_notes();
    let store = reach_soon(config).await.context("cannot read the keys")?;
    let mut exit = Exit::Done;
    for set in &loaded.sets {
        let snapshot = store.read(&set.trees()).await.context("cannot read the keys")?;
        let done = if how.dry_run {
            show(set, snapshot, how.diff)
        } else if how.sync_only {
            write_only(set, snapshot)
        } else {
            apply(set, snapshot).await
        };
        if let Err(error) = done {
            tracing::error!(set = set.name, "{error:#}");
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

async fn reach_soon(config: &Config) -> Result<Etcd, StoreError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match connect(&config.connection).await {
            Err(error) if error.is_transient() && Instant::now() < until => {
                tracing::warn!(%error, "trying on");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            answer => return answer,
        }
    }
}

/// Takes the snapshot, so that it is gone before the first template runs.
fn render(set: &Set, snapshot: Snapshot) -> anyhow::Result<Vec<Candidate>> {
    let see = |program: &Program| program.resource.reading.see(snapshot.entries.values());
    let seen: Vec<_> = set.programs.iter().map(see).collect();
    drop(snapshot);
    let mut candidates = Vec::new();
    for (program, seen) in set.programs.iter().zip(seen) {
        for refused in &seen.refused {
            tracing::warn!(key = refused.key, "value refused: {}", refused.why);
        }
        let about_backends =
            !seen.backends.is_empty() || !program.resource.reading.trees.is_empty();
        let policy = &program.resource.policy;
        if program.resource.dest.exists()
            && program.resource.nginx.is_some()
            && about_backends
            && let Outcome::Keep { why } = policy.weigh(seen.backends.len(), false)
        {
            anyhow::bail!("{}: {why}; the last file stays", program.resource.name);
        }
        candidates.push(program.render(&seen).map_err(anyhow::Error::msg)?);
    }
    Ok(candidates)
}

async fn apply(set: &Set, snapshot: Snapshot) -> anyhow::Result<()> {
    let revision = snapshot.revision;
    let candidates = render(set, snapshot)?;
    let proxy = Proxy::of(set, None, None).await?;
    let targets = set.programs.iter().map(Program::target).collect();
    let mut pipeline = Pipeline::new(set.name.clone(), proxy, targets, Duration::ZERO)?;
    let wanted = Digest::of(&candidates);
    let was_in_place = pipeline.ledger.on_disk() == Some(wanted);
    if was_in_place && !pipeline.unproven() {
        tracing::info!(set = set.name, "in sync");
        return Ok(());
    }
    pipeline.want(candidates, revision);
    pipeline.step(Instant::now()).await;
    let in_place = pipeline.ledger.on_disk() == Some(wanted);
    match pipeline.trouble.take() {
        None => Ok(()),
        // The files are right and whoever starts will read them.
        Some(why) if in_place && !pipeline.proxy().is_running() => {
            tracing::warn!(set = set.name, "{why}");
            Ok(())
        }
        // Who starts the proxy after this has succeeded, in a loop as confd's users have
        // it, would wait for ever: until then its reload_cmd fails. The run that wrote the
        // file has failed; the reload stays owed.
        Some(why) if in_place && was_in_place && only_commands(set) => {
            tracing::warn!(set = set.name, "in place since an earlier run, though {why}");
            Ok(())
        }
        Some(why) => anyhow::bail!(why),
    }
}

fn only_commands(set: &Set) -> bool {
    set.programs.iter().all(|program| program.resource.nginx.is_none())
}

fn write_only(set: &Set, snapshot: Snapshot) -> anyhow::Result<()> {
    use crate::install::{Proof, StagedSet};
    let candidates = render(set, snapshot)?;
    let targets: Vec<_> = candidates.iter().map(|c| c.target.clone()).collect();
    if current(&targets)? == Some(Digest::of(&candidates)) {
        tracing::info!(set = set.name, "in sync");
        return Ok(());
    }
    let staged = StagedSet::write(&candidates)?;
    let proof = Proof::nothing_to_ask(&staged);
    staged.accept(proof)?.install()?.commit()?;
    tracing::info!(set = set.name, "written");
    Ok(())
}

/// Says what would be done.
fn show(set: &Set, snapshot: Snapshot, diff: bool) -> anyhow::Result<()> {
    for candidate in render(set, snapshot)? {
        let dest = &candidate.target.dest;
        let before = std::fs::read(dest).unwrap_or_default();
        let targets = [candidate.target.clone()];
        if current(&targets)? == Some(Digest::of(std::slice::from_ref(&candidate))) {
            println!("{}: in sync", dest.display());
        } else if diff {
            print!("{}", unified(dest, &before, &candidate.bytes));
        } else {
            println!("{}: would be written ({} bytes)", dest.display(), candidate.bytes.len());
        }
    }
    Ok(())
}

fn unified(dest: &Path, before: &[u8], after: &[u8]) -> String {
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    let name = dest.display().to_string();
    TextDiff::from_lines(before.as_ref(), after.as_ref())
        .unified_diff()
        .context_radius(3)
        .header(&name, &format!("{name} (wanted)"))
        .to_string()
}

/// Entries of a JSON object `{"/key": "value"}`, as a store would give them.
///
/// # Errors
/// When the file is not such an object.
pub fn from_file(path: &Path) -> anyhow::Result<Snapshot> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("--data {}", path.display()))?;
    let values: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text)
        .with_context(|| format!("--data {}: not an object of key to value", path.display()))?;
    let entry = |(key, value): (String, serde_json::Value)| {
        let text = match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        let entry = common::model::Entry {
            key: key.clone(),
            value: text.into_bytes(),
            created: common::model::Revision(1),
            modified: common::model::Revision(1),
            lease: 0,
            ttl: None,
        };
        (key, entry)
    };
    Ok(Snapshot { entries: values.into_iter().map(entry).collect(), ..Snapshot::default() })
}
