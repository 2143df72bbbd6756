//! What is there before etcd answers: the status page, readiness, and a supervised program that
//! serves by the files of before.

use std::time::Duration;

use common::model::format_span;
use common::runtime::{Gate, Liveness, Reminder, ServedStatus, ServiceManager, Signals};
use common::startup::wait_for_etcd;
use common::store::Etcd;
use common::tls::follow_expiry;
use tokio::sync::watch;

use super::early::{EarlyChild, EndedEarly};
use super::publication::ProcessPublication;
use crate::config::load::{Loaded, load};
use crate::config::run::RunConfig;
use crate::status::state::States;
use crate::status::traffic::TrafficMonitor;
use crate::status::{self, About, PageClients};

/// The parts of a daemon that work from its first moment on.
pub(super) struct Startup {
    pub(super) publication: ProcessPublication,
    pub(super) liveness: Liveness,
    pub(super) page_clients: PageClients,
    pub(super) traffic: TrafficMonitor,
    /// Kept as long as the status is to be served.
    pub(super) served: Option<ServedStatus>,
}

impl Startup {
    /// Serves the status page.
    pub(super) fn begin(config: &RunConfig, signals: &Signals) -> anyhow::Result<Self> {
        let manager = ServiceManager::default();
        let (states, published) = watch::channel(States::new());
        let (about, published_about) =
            watch::channel(About::new(config.name.clone(), config.confdir.clone()));
        let (liveness, page_clients) = (Liveness::default(), PageClients::default());
        let traffic = TrafficMonitor::default();
        let certificate = follow_expiry(&config.connection.tls, signals.abort.clone());
        let mut served = None;
        if let Some(server) = config.status.clone() {
            let sources = status::Sources {
                certificate,
                states: published,
                about: published_about,
                liveness: liveness.clone(),
                manager: manager.clone(),
                stopping: signals.drain.clone(),
                page_clients: page_clients.clone(),
                traffic: traffic.clone(),
            };
            served = Some(status::serve(server, sources, &signals.abort)?);
        }
        let (ready, reminder) = (Gate::default(), Reminder::default());
        tokio::spawn(end_start(manager.clone(), config.start_within, ready.clone()));
        let publication = ProcessPublication { manager, states, about, ready, reminder };
        Ok(Self { publication, liveness, page_clients, traffic, served })
    }

    /// The confdir. Where a supervised nginx can serve meanwhile, one that cannot be used is
    /// waited for.
    pub(super) async fn load(
        &self,
        config: &RunConfig,
        signals: &Signals,
        early: &EarlyChild<'_>,
    ) -> anyhow::Result<Loaded> {
        let loaded = match load(&config.confdir, &config.globals) {
            Ok(loaded) => loaded,
            Err(error) => {
                early.wait_for_confdir(config, &self.publication.manager, signals, error).await?
            }
        };
        loaded.log_notes();
        Ok(loaded)
    }

    /// Waits for etcd, however long it takes; the child is started meanwhile.
    pub(super) async fn reach_etcd(
        &self,
        config: &RunConfig,
        signals: &Signals,
        early: &EarlyChild<'_>,
        loaded: &Loaded,
    ) -> anyhow::Result<Etcd> {
        let manager = &self.publication.manager;
        tokio::select! {
            store = wait_for_etcd(&config.connection, manager, &signals.drain, &self.liveness) => {
                store.ok_or_else(|| EndedEarly.into())
            }
            error = early.start_without_etcd(manager, signals, loaded) => Err(error),
        }
    }
}

/// So that a boot does not wait forever: sends READY=1 after `within`, even if nothing is proven
/// to be active yet. `/readyz` keeps reporting that.
async fn end_start(manager: ServiceManager, within: Duration, ready: Gate) {
    if within.is_zero() {
        return;
    }
    let waited = tokio::time::timeout(within, ready.opened()).await;
    if waited.is_err() {
        tracing::warn!(
            "not ready after {}; reporting READY to the service manager anyway: {}",
            format_span(within),
            manager.last_status()
        );
        manager.ready();
    }
}
