//! The status of the sidekick: what the loop publishes, and its HTTP server with `/healthz`,
//! `/readyz`, `/metrics` and `/status`, and a page for people at `/`.
//!
//! It reads what was published and adds nothing to it.

mod command;
mod document;
mod metrics;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use common::claim::KeyStatus;
use common::metrics::EtcdUse;
use common::model::Key;
use common::registrar::RegistrarReport;
use common::runtime::{
    Handler, HtmlPage, Liveness, ServedStatus, ServiceManager, SharedDocument, SharedMetrics,
    StatusResponse, StatusServer, health, plain,
};
use common::store::{Etcd, Store as _};
use common::tls::CertificateExpiry;
use hyper::Request;
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use command::{WeightChange, with_weight};

use crate::handshake::DrainResult;
use crate::prober::ProbeReport;

/// What the loop publishes.
#[derive(Debug, Clone, Default)]
pub struct SidekickStatus {
    /// By key.
    pub services: BTreeMap<Key, ServiceStatus>,
    /// What the registrar knows.
    pub registrar: RegistrarReport,
    /// Whether READY=1 was sent.
    pub ready: bool,
    /// How far the drain is, once the process leaves.
    pub drain: Option<DrainStatus>,
}

#[derive(Debug, Clone)]
pub struct ServiceStatus {
    /// What its probes found, always the newest.
    pub probes: watch::Receiver<ProbeReport>,
    /// What etcd has confirmed.
    pub registration: KeyStatus,
    /// The value that its key has when it is registered.
    pub value: String,
    /// What is probed, for people: without what may be a secret.
    pub checks: Vec<String>,
}

/// How far a drain is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainStatus {
    /// The keys are being removed.
    Removing,
    /// These load balancers have not finished, for this reason.
    WaitingFor(Vec<String>),
    /// It has ended.
    Over(DrainResult),
}

impl SidekickStatus {
    /// Registered, not leaving, and no key is about to end because etcd does not answer.
    pub fn is_ready(&self) -> bool {
        let owned = |s: &ServiceStatus| matches!(s.registration, KeyStatus::Owned { .. });
        let fresh = self.registrar.lease_until.is_some_and(|until| until > Instant::now());
        self.ready && self.drain.is_none() && fresh && self.services.values().all(owned)
    }
}

/// What the status is read from.
pub struct StatusSources {
    /// What the loop published.
    pub published: watch::Receiver<SidekickStatus>,
    /// The loops.
    pub liveness: Liveness,
    /// What was last reported to the service manager.
    pub manager: ServiceManager,
    /// Where commands go.
    pub commands: mpsc::Sender<WeightChange>,
    /// When our certificate expires.
    pub certificate: CertificateExpiry,
    /// etcd, once it was reached.
    pub etcd: Arc<OnceLock<Etcd>>,
}

impl StatusSources {
    fn etcd_use(&self) -> EtcdUse {
        let (api, endpoint) =
            self.etcd.get().map(|etcd| (etcd.api(), etcd.endpoint())).unwrap_or_default();
        let requests = self.published.borrow().registrar.requests.clone();
        EtcdUse { api, endpoint, requests }
    }
}

const STYLE: &str = include_str!("page/page.css");
const BODY: &str = include_str!("page/body.html");
const SCRIPT: &str = include_str!("page/page.js");

fn page() -> HtmlPage {
    HtmlPage::new("register", STYLE, BODY, SCRIPT)
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Serves the status until `shutdown`, or until what is returned is dropped.
///
/// # Errors
/// When the system has no thread for it.
pub fn serve(
    server: StatusServer,
    sources: StatusSources,
    shutdown: &CancellationToken,
) -> std::io::Result<ServedStatus> {
    server.serve(Arc::new(SidekickStatusHandler::new(sources)), shutdown)
}

type Published = watch::Receiver<SidekickStatus>;

/// Answers from documents that all clients share.
struct SidekickStatusHandler {
    sources: StatusSources,
    metrics: SharedMetrics<Published>,
    status: SharedDocument<Published>,
    page: HtmlPage,
}

impl SidekickStatusHandler {
    fn new(sources: StatusSources) -> Self {
        Self {
            metrics: SharedMetrics::new(sources.published.clone()),
            status: SharedDocument::new(sources.published.clone()),
            page: page(),
            sources,
        }
    }

    /// What `systemctl status` shows, also when no service manager listens.
    fn text(&self) -> String {
        let text = self.sources.manager.last_status();
        if text.is_empty() { "starting".to_owned() } else { text }
    }
}

impl SidekickStatusHandler {
    fn set_weight(&self, request: &Request<Incoming>) -> Result<String, (u16, String)> {
        let uri = request.uri();
        let published = self.sources.published.borrow();
        if published.drain.is_some() {
            return Err((409, "draining: the weight stays as it is\n".to_owned()));
        }
        let query = uri.query().unwrap_or_default();
        let change = command::read(uri.path(), query, &published.services)?;
        let done = format!("{} has weight {} from now on\n", change.key, change.weight);
        let busy = |_| (503, "busy with another command; try again\n".to_owned());
        self.sources.commands.try_send(change).map(|()| done).map_err(busy)
    }
}

impl Handler for SidekickStatusHandler {
    fn command(&self, request: &Request<Incoming>) -> StatusResponse {
        match self.set_weight(request) {
            Ok(text) => plain(200, TEXT, text),
            Err((status, text)) => plain(status, TEXT, text),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> StatusResponse {
        match request.uri().path() {
            "/healthz" => health(&self.sources.liveness),
            "/readyz" => {
                let code = if self.sources.published.borrow().is_ready() { 200 } else { 503 };
                plain(code, TEXT, format!("{}\n", self.text()))
            }
            "/metrics" => {
                // Not while the status is borrowed: it is read here too.
                let etcd = self.sources.etcd_use();
                self.metrics.answer(request, |status| {
                    metrics::text(&status.borrow(), &self.sources.certificate, &etcd)
                })
            }
            "/status" => {
                let etcd = self.sources.etcd_use();
                let text =
                    self.status.get(|status| document::of(&status.borrow(), &self.text(), &etcd));
                plain(200, "application/json", text)
            }
            "/" => self.page.answer(),
            _ => plain(404, TEXT, "not found; paths: /, /healthz, /readyz, /metrics, /status\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_refers_to_nothing_outside_and_makes_no_markup_from_values() {
        assert_eq!(super::page().problem(), None);
    }
}
