//! The files of a single run are installed and loaded by the pipeline of the daemon; only the
//! failures differ: nothing is retried later.

use std::time::Duration;

use common::model::Revision;
use common::runtime::Exit;
use tokio::time::Instant;

use super::PATIENCE;
use crate::apply::LoadLimits;
use crate::apply::ledger::PendingStep;
use crate::apply::pipeline::Pipeline;
use crate::apply::step::StepOutcome;
use crate::config::reload_group::ReloadGroup;
use crate::daemon::locks::{LOCK_PACE, lock_dests};
use crate::install::{
    Candidate, DestLock, Digest, InstallError, Proof, StagedFiles, Target, Wanted, current,
};
use crate::proxy::Proxy;

/// How long a reload may wait for old generations to end.
const DELAYED: Duration = Duration::from_secs(60);

/// Installs the files and loads them.
pub(super) async fn apply(
    set: &ReloadGroup,
    candidates: Vec<Candidate>,
    revision: Revision,
) -> anyhow::Result<Exit> {
    let proxy = Proxy::of(set, None, None).await?;
    let targets = set.targets();
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
        return Ok(nothing_to_do(set, pipeline.proxy()));
    }
    pipeline.want_files(wanted, revision);
    let left_over = pipeline.has_unproven_files() && !was_in_place && pipeline.proxy().is_running();
    let mut outcome = step(&mut pipeline).await;
    if left_over && !is_in_place(&pipeline) {
        // That was what an earlier run had left; whatever came of it, what is wanted now is due.
        pipeline.try_again();
        outcome = step(&mut pipeline).await;
    }
    match outcome.failure() {
        None => Ok(Exit::Done),
        Some(why) => Ok(exit_of_failure(set, &pipeline, was_in_place, digest, why)),
    }
}

/// The files are in place and nothing is pending. Whether the proxy runs by them is another
/// question, and only where it does they are in sync.
fn nothing_to_do(set: &ReloadGroup, proxy: &Proxy) -> Exit {
    let exit = in_place(set, proxy);
    match (exit, proxy.is_running()) {
        (Exit::Done, true) => tracing::info!(set = set.name, "in sync"),
        (Exit::Done, false) => tracing::info!(
            set = set.name,
            "in place; the proxy is not running, and reads the files when it is started"
        ),
        _ => {}
    }
    exit
}

/// Whether files in place are all that is needed for a proxy to run by them, now or when it is
/// started.
fn in_place(set: &ReloadGroup, proxy: &Proxy) -> Exit {
    let Some(missing) = proxy.missing_conf() else { return Exit::Done };
    tracing::error!(
        set = set.name,
        "the files are in place, but the proxy cannot run by them: {missing}; correct conf, or put \
         the file there"
    );
    Exit::Failed
}

/// The exit code when a step failed, of which the pipeline has logged the reason.
fn exit_of_failure(
    set: &ReloadGroup,
    pipeline: &Pipeline,
    was_in_place: bool,
    wanted: Option<Digest>,
    why: &str,
) -> Exit {
    let is_in_place = pipeline.status().installed == wanted;
    if is_in_place && !pipeline.proxy().is_running() {
        // The files are right, and the proxy reads them when it is started.
        return in_place(set, pipeline.proxy());
    }
    if is_in_place && was_in_place && only_commands(set) {
        // A script that starts the proxy after this has succeeded, in a loop as confd's users have
        // it, would wait forever: until then its reload_cmd fails. The run that wrote the file has
        // failed; the reload stays pending.
        tracing::warn!(set = set.name, "in place since an earlier run, though {why}");
        return Exit::Done;
    }
    Exit::Failed
}

/// The locks of the files; `None` when the files are as they are wanted and another process, a
/// daemon most often, keeps them so.
async fn locks_or_in_sync(
    set: &ReloadGroup,
    targets: &[Target],
    wanted: Option<Digest>,
) -> anyhow::Result<Option<Vec<DestLock>>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match lock_dests(targets, Duration::ZERO).await {
            Ok(locks) => return Ok(Some(locks)),
            Err(InstallError::Held { holder, .. }) if current(targets)? == wanted => {
                // That one is no rival: it keeps the files as this run wants them.
                tracing::info!(
                    set = set.name,
                    "in sync; they are written by another confsync ({holder})"
                );
                return Ok(None);
            }
            Err(locked @ InstallError::Held { .. }) => {
                if Instant::now() >= until {
                    return Err(locked.into());
                }
                tokio::time::sleep(LOCK_PACE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Performs the step that is due. What delays one is waited for, though not forever.
async fn step(pipeline: &mut Pipeline) -> StepOutcome {
    let until = Instant::now() + DELAYED;
    loop {
        let outcome = pipeline.step(Instant::now()).await;
        if outcome != StepOutcome::Idle {
            return outcome;
        }
        let PendingStep::NotBefore(at) = pipeline.pending(Instant::now()) else { return outcome };
        if at > until {
            let why = "not reloaded: too many old generations still serve requests";
            tracing::error!("{why}");
            return StepOutcome::Failed(why.to_owned());
        }
        tokio::time::sleep_until(at).await;
    }
}

fn only_commands(set: &ReloadGroup) -> bool {
    set.programs.iter().all(|program| !program.resource.is_by_name())
}

/// Writes the files, and asks and loads nothing.
pub(super) async fn write_only(set: &ReloadGroup, wanted: &Wanted) -> anyhow::Result<()> {
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
