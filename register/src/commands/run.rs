//! `register run`: waits for etcd, then hands over to the loop of the sidekick.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use clap::ArgMatches;
use common::handshake::{Bookkeeping, DrainTimes};
use common::model::format_span;
use common::rights::{Right, warn_until_granted};
use common::runtime::{
    Exit, Forwarded, Liveness, ProcessExit, ServedStatus, ServiceManager, Signals, Usage, orphans,
};
use common::settings::Mistakes;
use common::startup::wait_for_etcd;
use common::store::{Connection, Etcd};
use common::tls::{CertificateExpiry, follow_expiry};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::config_file;
use super::setup::{sources, start};
use crate::config::{ConfigSources, RegisterConfig, Unusable};
use crate::probe::{Probe, is_left_over};
use crate::sidekick::{self, SidekickParts, SupervisedBackend};
use crate::status::{self, SidekickStatus, StatusSources, WeightChange};
use crate::supervise::BackendProcess;

/// Probes the backends and keeps their keys, until a signal ends it.
///
/// # Errors
/// Wrong usage, or a backend that cannot be started.
pub(super) async fn run(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let sources = sources(matches);
    let (prepared, connection) = begin(matches, &sources)?;
    let manager = ServiceManager::default();
    let signals = Signals::listen().context("cannot install signal handlers")?;
    tokio::spawn(reap_orphans());
    let mut backend = start_backend(sources.command())?;
    let prepared = config_or_wait(&sources, &manager, &signals, prepared);
    let (config, probes) = match unless_ended(&mut backend, prepared).await {
        Ok(prepared) => prepared,
        Err(end) => return end.exit(backend).await,
    };
    log_start(&config);
    let liveness = Liveness::default();
    let certificate = follow_expiry(&connection.tls, signals.abort.clone());
    let etcd = Arc::default();
    let served = (&config, &manager, &liveness, &signals);
    let (publish, weight_changes, _status) = serve(served, certificate, Arc::clone(&etcd))?;
    let within = config.process.ready_within;
    tokio::spawn(ready_within(within, manager.clone(), signals.drain.clone()));
    let reached = reach_etcd(&connection, &manager, &signals, &liveness);
    let store = match unless_ended(&mut backend, reached).await {
        Ok(store) => store,
        Err(end) => return end.exit(backend).await,
    };
    let _ = etcd.set(store.clone());
    tokio::spawn(warn_until_granted(store.clone(), store.api(), rights(&config)?));
    let parts = SidekickParts {
        config,
        probes,
        sources,
        store,
        signals,
        manager,
        liveness,
        backend,
        publish,
        weight_changes,
    };
    sidekick::run(parts).await
}

/// What a sidekick starts with, or what is wrong with its file.
type Prepared = Result<(RegisterConfig, Vec<Vec<Probe>>), Mistakes>;

/// Reads the configuration, and starts the log.
fn begin(matches: &ArgMatches, sources: &ConfigSources) -> anyhow::Result<(Prepared, Connection)> {
    let settings = match sources.prepared() {
        Ok(prepared) => Ok(Ok(prepared)),
        Err(Unusable::File(wrong)) => Ok(Err(wrong)),
        Err(Unusable::CommandLine(wrong)) => Err(wrong),
    };
    start(matches, settings)
}

async fn config_or_wait(
    sources: &ConfigSources,
    manager: &ServiceManager,
    signals: &Signals,
    prepared: Prepared,
) -> Option<(RegisterConfig, Vec<Vec<Probe>>)> {
    match prepared {
        Ok(prepared) => Some(prepared),
        Err(wrong) => config_file::usable(sources, manager, signals, wrong).await,
    }
}

fn log_start(config: &RegisterConfig) {
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let services = config.services.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), services, "starting");
}

/// `None`: a signal came first. The service manager expects WATCHDOG=1 from READY=1 on, which it
/// may have got meanwhile.
async fn reach_etcd(
    connection: &Connection,
    manager: &ServiceManager,
    signals: &Signals,
    liveness: &Liveness,
) -> Option<Etcd> {
    tokio::select! {
        store = wait_for_etcd(connection, manager, &signals.drain, liveness) => store,
        never = manager.signs_of_life() => match never {},
    }
}

async fn reap_orphans() {
    if let Err(error) = orphans::reap_below(is_left_over).await {
        tracing::warn!(%error, "cannot reap orphaned processes");
    }
}

type ServedTo = (watch::Sender<SidekickStatus>, mpsc::Receiver<WeightChange>, Option<ServedStatus>);

/// Serves the status, if `--listen` is given. Returns where to publish it, the weights that are
/// set through it, and what it is served until the end of.
fn serve(
    (config, manager, liveness, signals): (&RegisterConfig, &ServiceManager, &Liveness, &Signals),
    certificate: CertificateExpiry,
    etcd: Arc<OnceLock<Etcd>>,
) -> anyhow::Result<ServedTo> {
    let (publish, published) = watch::channel(SidekickStatus::default());
    let (commands, weight_changes) = mpsc::channel(8);
    let mut served = None;
    if let Some(server) = config.process.status.clone() {
        let (liveness, manager) = (liveness.clone(), manager.clone());
        let sources = StatusSources { published, liveness, manager, certificate, commands, etcd };
        served = Some(status::serve(server, sources, &signals.abort)?);
    }
    Ok((publish, weight_changes, served))
}

/// A boot must not block on an etcd or a backend that is not there.
async fn ready_within(within: Option<Duration>, manager: ServiceManager, stop: CancellationToken) {
    let Some(within) = within else { return };
    let slept = stop.run_until_cancelled(tokio::time::sleep(within)).await;
    if slept.is_some() && !manager.is_ready() {
        let waited = format_span(within);
        tracing::warn!(%waited, "not registered yet; reporting READY to the service manager anyway");
        manager.ready();
    }
}

/// The rights that registering and leaving need. Without a check at the start, a missing one would
/// be noticed at the first drain.
fn rights(config: &RegisterConfig) -> anyhow::Result<Vec<Right>> {
    let bookkeeping = Bookkeeping::below(&config.process.bookkeeping)?;
    let mut rights = vec![Right::Read(bookkeeping.members()), Right::Read(bookkeeping.acks())];
    let mut folders = std::collections::BTreeSet::new();
    for service in &config.services {
        let key = &service.target.key;
        if folders.insert(key.as_str().rsplit_once('/').map(|(folder, _)| folder.to_owned())) {
            let marker =
                bookkeeping.leave_marker(key, DrainTimes::default()).map(|(marker, _)| marker);
            rights.extend(marker.map(Right::Write));
            rights.push(Right::Write(key.clone()));
        }
    }
    Ok(rights)
}

fn start_backend(argv: &[String]) -> anyhow::Result<Option<SupervisedBackend>> {
    if argv.is_empty() {
        return Ok(None);
    }
    let signals = Forwarded::listen().context("cannot install signal handlers")?;
    let process = BackendProcess::start(argv).map_err(|e| Usage(e.to_string()))?;
    Ok(Some(SupervisedBackend { process, signals }))
}

/// The end of the backend while etcd is still waited for. Signals reach it meanwhile.
async fn ended(backend: &mut Option<SupervisedBackend>) -> u8 {
    let Some(SupervisedBackend { process, signals }) = backend else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            exit = process.ended() => return exit.map_or(1, ProcessExit::code),
            signal = signals.next() => process.signal(signal),
        }
    }
}

/// Why the process ends while nothing is registered yet.
enum EarlyEnd {
    Signal,
    /// The backend ended by itself, with this exit code.
    BackendEnded(u8),
}

/// What `work` results in, unless the backend ends first. `work` results in nothing on a signal.
async fn unless_ended<T>(
    backend: &mut Option<SupervisedBackend>,
    work: impl Future<Output = Option<T>>,
) -> Result<T, EarlyEnd> {
    tokio::select! {
        done = work => done.ok_or(EarlyEnd::Signal),
        code = ended(backend) => Err(EarlyEnd::BackendEnded(code)),
    }
}

impl EarlyEnd {
    async fn exit(self, backend: Option<SupervisedBackend>) -> anyhow::Result<Exit> {
        match (self, backend) {
            (Self::BackendEnded(code), _) => {
                tracing::warn!(code, "the backend ended by itself");
                Ok(Exit::Child(code))
            }
            (Self::Signal, backend) => {
                tracing::info!("ended before etcd was reached");
                let Some(SupervisedBackend { mut process, .. }) = backend else {
                    return Ok(Exit::Done);
                };
                Ok(Exit::Child(process.stop(Duration::from_secs(30)).await?.code()))
            }
        }
    }
}
