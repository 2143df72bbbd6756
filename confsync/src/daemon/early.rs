//! Before etcd answers, or the confdir can be used: the child is started with the files that are
//! in place.

use std::time::Duration;

use common::model::format_span;
use common::runtime::{Exit, Gate, ServiceManager, Signals, Usage};

use crate::config::confdir::ConfdirError;
use crate::config::load::{Loaded, load};
use crate::config::program::CompiledResource;
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::config::run::RunConfig;
use crate::install::current;
use crate::proxy::Proxy;
use crate::proxy::child::{Child, Life, START};
use crate::proxy::nginx::{Argv, Nginx, Settings};

/// How long etcd may take before we go on without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a confdir that cannot be used is read again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// SIGTERM came before there was anything to take apart.
#[derive(Debug, thiserror::Error)]
#[error("ended before etcd was reached")]
pub(super) struct EndedEarly;

/// The child ended while we were still waiting.
#[derive(Debug, thiserror::Error)]
#[error("the supervised command ended")]
struct ChildLeft(u8);

/// etcd is away at the start: with all files in place, the child is started with
/// them. Resolves only when that went wrong for good.
pub(super) async fn start_without_etcd(
    manager: &ServiceManager,
    signals: &Signals,
    child: Option<&Child>,
    argv: Option<&Argv>,
    loaded: &Loaded,
) -> anyhow::Error {
    let Some(child) = child else { return std::future::pending().await };
    if signals.drain.run_until_cancelled(tokio::time::sleep(PATIENCE)).await.is_none() {
        return std::future::pending().await;
    }
    let there = |set: &ReloadGroup| set.programs.iter().all(|p| p.resource.dest.exists());
    if !loaded.sets.iter().all(there) {
        tracing::info!("no files in place: waiting for etcd before {} is started", child.name());
        return std::future::pending().await;
    }
    tracing::warn!("etcd is away: starting {} with the files in place", child.name());
    let nginx = match nginx_of(&loaded.sets, argv).await {
        Ok(nginx) => nginx,
        Err(error) => return error,
    };
    note_files(child, &loaded.sets).await;
    match child.start(nginx, START).await {
        Ok(_) => manager.status("serving with the files in place; waiting for etcd"),
        Err(why) => return anyhow::anyhow!("cannot start {}: {why}", child.name()),
    }
    let code = child.left().await;
    anyhow::anyhow!("{} ended with code {code} while etcd was away", child.name())
        .context(ChildLeft(code))
}

/// A boot is not held up for ever: after `within` the start is over for the service manager,
/// though nothing is proven to be live yet. `/readyz` goes on saying so.
pub(super) async fn end_start(manager: ServiceManager, within: Duration, ready: Gate) {
    if within.is_zero() {
        return;
    }
    let waited = tokio::time::timeout(within, ready.opened()).await;
    if waited.is_err() {
        tracing::warn!(
            "not ready after {}, and the start is over all the same, so that no boot waits for it: {}",
            format_span(within),
            manager.last_status()
        );
        manager.ready();
    }
}

/// The confdir cannot be used at the start: it is read again until it can, because files are
/// corrected by people. A supervised nginx is started with what is in place meanwhile, as far as it
/// accepts that. A folder that is not there is a mistake of the command line, unless an nginx
/// depends on us.
pub(super) async fn wait_for_confdir(
    config: &RunConfig,
    manager: &ServiceManager,
    signals: &Signals,
    kept: Option<(&Child, &Argv)>,
    error: ConfdirError,
) -> anyhow::Result<Loaded> {
    if kept.is_none() && !config.confdir.join("conf.d").is_dir() {
        return Err(Usage(error.to_string()).into());
    }
    let kept = match kept {
        Some((child, argv)) => {
            Some((child, Nginx::discover(Settings::default().with_argv(argv)).await?))
        }
        None => None,
    };
    let child_left = || async {
        match &kept {
            Some((child, _)) => child.left().await,
            None => std::future::pending().await,
        }
    };
    let mut hangups = signals.hangups.clone();
    let mut known = String::new();
    let mut error = error.to_string();
    loop {
        if error != known {
            for mistake in error.lines() {
                tracing::error!(
                    "the confdir cannot be used; it is read again until it can: {mistake}"
                );
            }
            known = error;
        }
        let first = known.lines().next().unwrap_or_default();
        manager.status(&format!("waiting for a confdir that can be used: {first}"));
        if let Some((child, nginx)) = &kept
            && child.life() == Life::Waiting
        {
            start_as_it_is(child, nginx).await?;
        }
        tokio::select! {
            () = signals.drain.cancelled() => return Err(EndedEarly.into()),
            code = child_left() => {
                let why = format!("the supervised command ended with code {code}");
                return Err(anyhow::anyhow!(why).context(ChildLeft(code)));
            }
            Ok(()) = hangups.changed() => {}
            () = tokio::time::sleep(READ_AGAIN) => {}
        }
        match load(&config.confdir, &config.globals) {
            Ok(loaded) => {
                tracing::info!("the confdir can be used now");
                return Ok(loaded);
            }
            Err(again) => error = again.to_string(),
        }
    }
}

/// nginx with the files as they are, unless it would not accept them.
async fn start_as_it_is(child: &Child, nginx: &Nginx) -> anyhow::Result<()> {
    if let Err(error) = nginx.check_current().await {
        tracing::warn!("{} is not started before the confdir can be used: {error}", child.name());
        return Ok(());
    }
    tracing::warn!("starting {} with the files in place", child.name());
    match child.start(Some(nginx.clone()), START).await {
        Ok(_) => Ok(()),
        Err(why) => Err(anyhow::anyhow!("cannot start {}: {why}", child.name())),
    }
}

/// What is in place is what the child reads at its start.
async fn note_files(child: &Child, sets: &[ReloadGroup]) {
    for set in sets {
        let targets: Vec<_> = set.programs.iter().map(CompiledResource::target).collect();
        let files = current(&targets).ok().flatten();
        child.note(&set.name, files).await;
    }
}

pub(super) async fn nginx_of(
    sets: &[ReloadGroup],
    argv: Option<&Argv>,
) -> anyhow::Result<Option<Nginx>> {
    let by_name = |set: &&ReloadGroup| matches!(set.loader, Loader::Nginx(_));
    match (sets.iter().find(by_name), argv) {
        (Some(set), _) => Ok(Proxy::of(set, None, argv).await?.nginx().cloned()),
        (None, Some(argv)) => Ok(Some(Nginx::discover(Settings::default().with_argv(argv)).await?)),
        (None, None) => Ok(None),
    }
}

/// What an error of the run means for the exit.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Result<Exit> {
    if error.is::<EndedEarly>() {
        return Ok(Exit::Done);
    }
    if let Some(ChildLeft(code)) = error.downcast_ref() {
        return Ok(Exit::Child(*code));
    }
    Err(error)
}
