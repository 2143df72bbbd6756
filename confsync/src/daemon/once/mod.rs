//! `run --once` and `run --dry-run`: one read, one decision, and an exit code for the
//! outcome. No member key and no supervision.

mod apply;
mod data;
mod keys;
mod show;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use common::handshake::Bookkeeping;
use common::model::{ReadPoint, Revision, Tree};
use common::runtime::Exit;
use common::startup::connect_within;
use common::store::{Connection, Etcd, Store, read_deadline};
use futures_util::stream::{self, StreamExt};

use super::nothing_found::log_where_keys_are;
use crate::agent::rejections::Rejections;
use crate::agent::render::{RenderRules, RenderedResource, Withheld};
use crate::backends::saved::SavedBackends;
use crate::config::confdir::ConfdirMistake;
use crate::config::last_render::LastRender;
use crate::config::load::{has_no_resources, load_usable};
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::config::run::{RunConfig, SingleRun};
use crate::install::Candidate;
use apply::{apply, write_only};
pub use data::from_file;
use keys::KeysRead;
use show::show;

struct Run<'r> {
    set: &'r ReloadGroup,
    store: &'r Etcd,
    bookkeeping: &'r Bookkeeping,
}

/// The files, and what to remember once they are live.
#[derive(Default)]
struct Rendered {
    revision: Revision,
    candidates: Vec<Candidate>,
    memories: Vec<(PathBuf, SavedBackends)>,
}

/// How long etcd may take to answer: a script that calls in a loop needs to know soon.
const PATIENCE: Duration = Duration::from_secs(5);

/// Applies everything once.
///
/// # Errors
/// When etcd does not answer, or a file cannot be made or is refused.
pub async fn run(config: &RunConfig, how: SingleRun) -> anyhow::Result<Exit> {
    if has_no_resources(&config.confdir) {
        // A script may run us again and again until there are files, as with confd.
        tracing::warn!(
            confdir = %config.confdir.display(),
            "no resource files in conf.d: nothing to do (`confsync init` writes a working start)"
        );
        return Ok(Exit::Done);
    }
    // Both at once: etcd is connected while the templates are compiled.
    let (confdir, globals) = (config.confdir.clone(), config.globals.clone());
    let loading = tokio::task::spawn_blocking(move || load_usable(&confdir, &globals));
    let loading = async {
        let (loaded, mistakes) = loading.await??;
        loaded.log_notes();
        log_mistakes(&mistakes);
        anyhow::Ok((loaded, mistakes))
    };
    let connecting = async {
        connect_within(&config.connection, PATIENCE).await.context("cannot read the keys")
    };
    let ((loaded, mistakes), store) = tokio::try_join!(loading, connecting)?;
    let bookkeeping = Bookkeeping::below(&config.bookkeeping)?;
    let mut exit = if mistakes.is_empty() { Exit::Done } else { Exit::Failed };
    let run = |set| Run { set, store: &store, bookkeeping: &bookkeeping };
    let prepared = loaded.sets.iter().map(|set| prepare(run(set), &config.connection));
    let mut prepared = pin!(stream::iter(prepared).buffered(AT_A_TIME));
    while let Some(prepared) = prepared.next().await {
        let (set, files) = prepared?;
        let done = match files {
            Ok(files) => install(&run(set), files, how).await,
            Err(error) => Err(error),
        };
        let done = done.unwrap_or_else(|error| {
            tracing::error!(set = set.name, "{error:#}");
            Exit::Failed
        });
        if done != Exit::Done {
            exit = done;
        }
    }
    Ok(exit)
}

fn log_mistakes(mistakes: &[ConfdirMistake]) {
    for mistake in mistakes {
        tracing::error!(
            file = %mistake.file.display(),
            "not used: {}; correct it, `confsync check` shows all mistakes",
            mistake.text
        );
    }
}

/// How many reload groups are rendered at a time; they are installed one after the other, in their
/// order. A template may wait for DNS, and there may be thousands of them.
const AT_A_TIME: usize = 32;

/// The files of a reload group, or why there are none.
///
/// # Errors
/// When etcd does not answer: nothing else can be rendered either.
async fn prepare<'r>(
    run: Run<'r>,
    connection: &Connection,
) -> anyhow::Result<(&'r ReloadGroup, anyhow::Result<Rendered>)> {
    let (set, trees) = (run.set, run.set.trees());
    let mut keys = KeysRead::of(&set.programs, |_| false);
    let mut at = read(&run, &trees, &mut keys).await?;
    // There is no earlier decision to compare with, but for what was saved if etcd regressed since
    // the files were last active.
    let saved = |program: &CompiledResource| {
        SavedBackends::load_if_ahead(&program.resource.target.dest, at)
    };
    let saved: Vec<Option<SavedBackends>> = set.programs.iter().map(saved).collect();
    if saved.iter().any(Option::is_some) {
        keys = KeysRead::of(&set.programs, |_| true);
        at = read(&run, &trees, &mut keys).await?;
    }
    if !keys.any {
        log_where_keys_are(connection, run.store, &trees, &set.name).await;
    }
    let mut rejections = Rejections::default();
    let rendered = render(&run, at, keys, saved, &mut rejections).await;
    rejections.log_since(&Rejections::default());
    Ok((set, rendered))
}

async fn read(run: &Run<'_>, trees: &[Tree], keys: &mut KeysRead<'_>) -> anyhow::Result<ReadPoint> {
    run.store.read_into(trees, keys, read_deadline()).await.context("cannot read the keys")
}

/// Renders all files, by the rules of the agent. What is read of a resource is given up as soon as
/// it is rendered.
async fn render(
    run: &Run<'_>,
    at: ReadPoint,
    keys: KeysRead<'_>,
    saved: Vec<Option<SavedBackends>>,
    rejections: &mut Rejections,
) -> anyhow::Result<Rendered> {
    let mut rendered = Rendered { revision: at.revision, ..Rendered::default() };
    let in_place = run.set.programs.iter().all(|program| program.resource.target.dest.exists());
    for ((program, mut keys), saved) in run.set.programs.iter().zip(keys.done()).zip(saved) {
        let resource = &program.resource;
        let regressed = saved.is_some();
        let mut known = saved.map(|saved| saved.known(&resource.reading)).unwrap_or_default();
        rejections.set(&resource.name, keys.seen.rejected.clone());
        let (store, bookkeeping) = (run.store, run.bookkeeping);
        let (may_wait, left_out) = (false, &BTreeSet::new());
        let rules = RenderRules { store, bookkeeping, regressed, may_wait, in_place, left_out };
        let result =
            rules.render(program, &mut LastRender::default(), &mut known, &mut keys.seen).await;
        let one = result.and_then(RenderedResource::or_withheld);
        let one = one.map_err(|withheld| not_rendered(program, withheld))?;
        rendered.candidates.push(one.file.plain());
        if let Some(backends) = keys.to_save(&one.retained) {
            let ReadPoint { revision, cluster } = at;
            let saved = SavedBackends { cluster, revision, backends };
            rendered.memories.push((resource.target.dest.clone(), saved));
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

async fn install(run: &Run<'_>, files: Rendered, how: SingleRun) -> anyhow::Result<Exit> {
    let Rendered { revision, candidates, memories } = files;
    if how.dry_run {
        show(&candidates, how.diff)?;
        return Ok(Exit::Done);
    }
    if how.sync_only {
        write_only(run.set, &candidates.into()).await?;
        return Ok(Exit::Done);
    }
    let exit = apply(run.set, candidates, revision).await?;
    if exit == Exit::Done {
        for (dest, memory) in &memories {
            if let Err(error) = memory.save(dest) {
                tracing::warn!(%error, "cannot save the last-known backends");
            }
        }
        // The process ends, and the kernel takes back at once what would go text by text.
        std::mem::forget(memories);
    }
    Ok(exit)
}
