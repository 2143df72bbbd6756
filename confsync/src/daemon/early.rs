//! Before etcd answers: the child is started with the files that are in place.

use std::time::Duration;

use anyhow::Context;
use common::runtime::{Exit, ServiceManager, Signals};

use crate::config::load::Loaded;
use crate::config::program::CompiledResource;
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::install::current;
use crate::proxy::Proxy;
use crate::proxy::child::{Child, START};
use crate::proxy::nginx::{Argv, Nginx, Settings};

/// How long etcd may take before we go on without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Told to end before etcd was reached: nothing to take apart.
#[derive(Debug, thiserror::Error)]
#[error("ended before etcd was reached")]
pub(super) struct EndedEarly;

/// The child ended while we were still waiting for etcd.
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

/// What is in place is what the child reads at its start.
async fn note_files(child: &Child, sets: &[ReloadGroup]) {
    for set in sets {
        let targets: Vec<_> = set.programs.iter().map(CompiledResource::target).collect();
        let files = current(&targets).ok().flatten();
        child.note(&set.name, files).await;
    }
}

async fn nginx_of(sets: &[ReloadGroup], argv: Option<&Argv>) -> anyhow::Result<Option<Nginx>> {
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
    Err(error).context("cannot run")
}
