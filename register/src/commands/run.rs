//! `register run`: waits for etcd, then hands over to the agent.

use std::time::Duration;

use anyhow::Context;
use clap::ArgMatches;
use common::runtime::{Exit, Forwarded, Liveness, ServiceManager, Signals, Usage};
use common::startup::wait_for_etcd;

use super::setup::{sources, start};
use crate::agent::{self, Child};
use crate::config::prepare;
use crate::status::{self, StatusSources};
use crate::supervise::Backend;

/// Probes the backends and keeps their keys, until a signal ends it.
///
/// # Errors
/// Wrong usage; or etcd refuses us at the start.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let sources = sources(matches);
    let (config, connection) = start(matches, sources.load())?;
    let manager = ServiceManager::default();
    let signals = Signals::listen().context("cannot listen to signals")?;
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let services = config.services.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), services, "starting");
    let probes = prepare(&config.services).map_err(Usage::from)?;
    let mut backend = supervise(&config.command)?;
    let (publish, published) = tokio::sync::watch::channel(agent::Snapshot::default());
    let liveness = Liveness::default();
    if let Some(server) = config.process.status.clone() {
        let (liveness, manager) = (liveness.clone(), manager.clone());
        let sources = StatusSources { snapshot: published, liveness, manager };
        status::serve(server, sources, signals.abort.clone())?;
    }
    let store = tokio::select! {
        store = wait_for_etcd(&connection, &manager, &signals.drain, &liveness) => store,
        exit = ended(&mut backend) => {
            tracing::warn!(code = exit.code(), "the backend ended by itself");
            return Ok(Exit::Child(exit.code()));
        }
    };
    let Some(store) = store else {
        tracing::info!("ended before etcd was reached");
        return stop_early(backend).await;
    };
    let parts = agent::Parts {
        config,
        probes,
        sources,
        store,
        signals,
        manager,
        liveness,
        backend,
        publish,
    };
    agent::run(parts).await
}

fn supervise(argv: &[String]) -> anyhow::Result<Option<Child>> {
    if argv.is_empty() {
        return Ok(None);
    }
    let signals = Forwarded::listen().context("cannot listen to signals")?;
    let backend = Backend::start(argv).map_err(|e| Usage(e.to_string()))?;
    Ok(Some(Child { backend, signals }))
}

/// The end of the backend while etcd is still waited for. Signals reach it meanwhile.
async fn ended(child: &mut Option<Child>) -> crate::supervise::Exit {
    let Some(Child { backend, signals }) = child else { return std::future::pending().await };
    loop {
        tokio::select! {
            exit = backend.ended() => return exit.unwrap_or(crate::supervise::Exit::Code(1)),
            signal = signals.next() => backend.signal(signal),
        }
    }
}

/// Told to end while nothing was registered yet.
async fn stop_early(backend: Option<Child>) -> anyhow::Result<Exit> {
    match backend {
        None => Ok(Exit::Done),
        Some(Child { mut backend, .. }) => {
            Ok(Exit::Child(backend.stop(Duration::from_secs(30)).await?.code()))
        }
    }
}
