//! The HTTP surface of the load balancer's config process: `/healthz`, `/readyz`,
//! `/metrics`, `/status`, and a page for people at `/` that `/events` keeps up to
//! date.
//!
//! It reads what the agents published and adds nothing to it. It cannot delay the agents: a slow
//! reader gets the newest state later.

pub mod audit;
pub mod change_summary;
mod document;
mod events;
pub mod fleet_json;
pub mod load_balancers;
mod metrics;
mod moments;
mod page;
mod page_clients;
pub mod resources;
pub mod state;
pub mod totals;
pub mod traffic;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::metrics::EtcdUse;
use common::runtime::{
    DocumentSource, Handler, Liveness, Preparation, ServedStatus, ServiceManager, SharedDocument,
    SharedMetrics, StatusResponse, StatusServer, health, plain,
};
use common::tls::CertificateExpiry;
use hyper::Request;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use page_clients::PageClients;

use crate::status::state::{GroupState, States};
use crate::status::totals::TotalsByGroup;
use crate::status::traffic::TrafficMonitor;

/// How long a change may be pending before the process counts as not ready.
const PATIENCE: Duration = Duration::from_secs(30);
const TEXT: &str = "text/plain; charset=utf-8";

/// The state of the process apart from its reload groups.
#[derive(Debug, Clone)]
pub struct About {
    /// The name of this load balancer.
    pub name: String,
    /// When it began.
    pub started: SystemTime,
    /// Whether etcd has confirmed the member key, so that draining backends wait for this load
    /// balancer.
    pub joined: bool,
    /// Another load balancer has our name; the message about it.
    pub rival: Option<String>,
    /// The folder of its configuration, for the commands that the page names.
    pub confdir: PathBuf,
    /// How etcd is used.
    pub etcd: EtcdUse,
    /// The counters of reload groups that have ended.
    pub ended: TotalsByGroup,
}

impl About {
    /// The state of a process that has not reached etcd yet.
    pub fn new(name: String, confdir: PathBuf) -> Self {
        Self {
            name,
            started: SystemTime::now(),
            joined: false,
            rival: None,
            confdir,
            etcd: EtcdUse::default(),
            ended: TotalsByGroup::new(),
        }
    }
}

/// The sources of the status pages.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The reload groups.
    pub states: watch::Receiver<States>,
    /// The process.
    pub about: watch::Receiver<About>,
    /// The deadlines of the working loops.
    pub liveness: Liveness,
    /// The last readiness reported to the service manager.
    pub manager: ServiceManager,
    /// Cancelled once the process has begun to end.
    pub stopping: CancellationToken,
    /// The clients of the page, and the other load balancers while there is one.
    pub page_clients: PageClients,
    /// When our certificate expires.
    pub certificate: CertificateExpiry,
    /// What backends have had and have.
    pub traffic: TrafficMonitor,
}

/// Serves the status until `shutdown`, or until what is returned is dropped.
///
/// # Errors
/// When the system has no thread for it.
pub fn serve(
    server: StatusServer,
    sources: Sources,
    shutdown: &CancellationToken,
) -> std::io::Result<ServedStatus> {
    server.serve(Arc::new(StatusHandler::new(sources)), shutdown)
}

/// Answers from documents that all clients share.
struct StatusHandler {
    sources: Sources,
    page: common::runtime::HtmlPage,
    metrics: SharedMetrics<Sources>,
    status: SharedDocument<Sources>,
    events: events::EventStreams,
}

impl StatusHandler {
    fn new(sources: Sources) -> Self {
        Self {
            page: page::page(),
            metrics: SharedMetrics::new(sources.clone()),
            status: SharedDocument::new(sources.clone()),
            events: events::EventStreams::new(&sources),
            sources,
        }
    }
}

impl Handler for StatusHandler {
    fn before(&self, path: &str) -> Option<Preparation> {
        let traffic = self.sources.traffic.clone();
        let shows_traffic = ["/metrics", "/status", "/events"].contains(&path);
        shows_traffic.then(|| Box::pin(async move { traffic.refresh().await }) as Preparation)
    }

    fn answer(&self, request: &Request<Incoming>) -> StatusResponse {
        match request.uri().path() {
            "/" => self.page.answer(),
            "/events" => self.events.answer(&self.sources),
            "/healthz" => health(&self.sources.liveness),
            "/readyz" => {
                let (ready, text) = self.sources.ready();
                plain(if ready { 200 } else { 503 }, TEXT, format!("{text}\n"))
            }
            "/metrics" => self.metrics.answer(request, metrics::text),
            "/status" => {
                let text = self.status.get(|sources| document::of(sources, None));
                plain(200, "application/json", text)
            }
            _ => plain(
                404,
                TEXT,
                "not found; paths: / (a page), /healthz, /readyz, /metrics, /status, /events\n",
            ),
        }
    }
}

impl DocumentSource for Sources {
    fn has_changed(&mut self) -> bool {
        let states = DocumentSource::has_changed(&mut self.states);
        DocumentSource::has_changed(&mut self.about) || states
    }
}

impl Sources {
    /// Whether traffic may be sent here, and the reason.
    fn ready(&self) -> (bool, String) {
        let states = self.states.borrow();
        if self.stopping.is_cancelled() {
            return (false, "stopping".to_owned());
        }
        if states.is_empty() {
            let text = self.manager.last_status();
            return (false, if text.is_empty() { "starting".to_owned() } else { text });
        }
        let late = self.liveness.late(tokio::time::Instant::now());
        let rival = self.about.borrow().rival.clone();
        let ready = late.is_empty()
            && rival.is_none()
            && states.values().all(|state| state.ready(PATIENCE));
        let text = states.values().map(GroupState::summary);
        let stuck = late.iter().map(|late| format!("{}: stuck", late.name));
        (ready, text.chain(rival).chain(stuck).collect::<Vec<_>>().join("\n"))
    }
}
