//! The status of the sidekick over HTTP: `/healthz`, `/readyz`, `/metrics`, `/status`.
//!
//! It reads what the loop published and says no more than that.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use common::claim::KeyStatus;
use common::runtime::{
    Handler, Liveness, ServiceManager, SharedDocument, SharedMetrics, StatusResponse, StatusServer,
    health, plain,
};
use hyper::Request;
use hyper::body::Incoming;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::{Drain, Snapshot};
use crate::health::State;
use crate::probe::Verdict;

/// What the status is read from.
pub struct StatusSources {
    /// What the loop published.
    pub snapshot: watch::Receiver<Snapshot>,
    /// The loops.
    pub liveness: Liveness,
    /// What was last reported to the service manager.
    pub manager: ServiceManager,
}

const TEXT: &str = "text/plain; charset=utf-8";

/// Serves the status until `shutdown`.
///
/// # Errors
/// When the system has no thread for it.
pub fn serve(
    server: StatusServer,
    sources: StatusSources,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    server.serve(Arc::new(StatusHandler::new(sources)), shutdown)
}

/// Answers from documents that all clients share.
struct StatusHandler {
    sources: StatusSources,
    metrics: SharedMetrics<watch::Receiver<Snapshot>>,
    status: SharedDocument<watch::Receiver<Snapshot>>,
}

impl StatusHandler {
    fn new(sources: StatusSources) -> Self {
        Self {
            metrics: SharedMetrics::new(sources.snapshot.clone()),
            status: SharedDocument::new(sources.snapshot.clone()),
            sources,
        }
    }

    /// What `systemctl status` shows, also when no service manager listens.
    fn text(&self) -> String {
        let text = self.sources.manager.last_status();
        if text.is_empty() { "starting".to_owned() } else { text }
    }
}

impl Handler for StatusHandler {
    fn answer(&self, request: &Request<Incoming>) -> StatusResponse {
        match request.uri().path() {
            "/healthz" => health(&self.sources.liveness),
            "/readyz" => {
                let code = if ready(&self.sources.snapshot.borrow()) { 200 } else { 503 };
                plain(code, TEXT, format!("{}\n", self.text()))
            }
            "/metrics" => self.metrics.answer(request, |snapshot| metrics(&snapshot.borrow())),
            "/status" => {
                let text = || self.text();
                let render = |snapshot: &watch::Receiver<Snapshot>| {
                    status(&snapshot.borrow(), &text()).to_string()
                };
                plain(200, "application/json", self.status.get(render))
            }
            _ => plain(404, TEXT, "there are /healthz, /readyz, /metrics and /status\n"),
        }
    }
}

/// Registered, not leaving, and what is registered is not about to run out unheard.
fn ready(snapshot: &Snapshot) -> bool {
    let held = |s: &KeyStatus| matches!(s, KeyStatus::Owned { .. });
    let fresh = snapshot.registrar.lease_until.is_some_and(|until| until > Instant::now());
    let all = snapshot.services.values().all(|(_, standing)| held(standing));
    snapshot.ready && !snapshot.leaving && fresh && all
}

fn status(snapshot: &Snapshot, state: &str) -> serde_json::Value {
    let services = snapshot.services.iter().map(|(key, (report, standing))| {
        let (state, since, why) = match report {
            Some(report) => (
                name(report.state),
                report.since.elapsed().as_secs(),
                report.last.as_ref().map(|o| words(&o.verdict)),
            ),
            None => ("unknown", 0, None),
        };
        json!({
            "key": key.as_str(),
            "health": state,
            "for_seconds": since,
            "last_probe": why,
            "registration": match standing {
                KeyStatus::Owned { at, .. } => json!({ "held_at_revision": at }),
                KeyStatus::Pending => json!("owed"),
                KeyStatus::Absent { .. } => json!("absent"),
                KeyStatus::Rival { value } => json!({ "held_by": String::from_utf8_lossy(value) }),
            },
        })
    });
    let trouble = snapshot.registrar.failure.as_ref();
    json!({
        "version": common::VERSION,
        "ready": ready(snapshot),
        "leaving": snapshot.leaving,
        "words": state,
        "services": services.collect::<Vec<_>>(),
        "etcd": {
            "trouble": trouble.map(|t| t.error.to_string()),
            "trouble_for_seconds": trouble.map(|t| t.since.elapsed().as_secs()),
            "requests": snapshot.registrar.requests,
            "failures": snapshot.registrar.failures,
        },
    })
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "passed".to_owned(),
        Verdict::Fail(why) => why.clone(),
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Up => "up",
        State::Down => "down",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKey {
    key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

type Float = Gauge<f64, AtomicU64>;

/// Every name is in `docs/metrics.md`.
fn metrics(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("register");
    let version =
        Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("revision", common::COMMIT)]);
    registry.register("build", "What runs", version);
    let yes = |value: bool| number(if value { 1.0 } else { 0.0 });
    registry.register("ready", "What /readyz says", yes(ready(snapshot)));
    registry.register("leaving", "Whether the end has begun", yes(snapshot.leaving));
    drain(&mut registry, snapshot);
    services(&mut registry, snapshot);
    etcd(&mut registry, snapshot);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

fn drain(registry: &mut Registry, snapshot: &Snapshot) {
    let waits_for = Gauge::<i64>::default();
    let drains = Family::<ByResult, Counter>::default();
    let count = |confirmed| u64::from(snapshot.drain == Some(Drain::Over { confirmed }));
    for (result, confirmed) in [("confirmed", true), ("unconfirmed", false)] {
        drains.get_or_create(&ByResult { result }).inc_by(count(confirmed));
    }
    if let Some(Drain::WaitsFor(lbs)) = snapshot.drain {
        waits_for.set(i64::try_from(lbs).unwrap_or(i64::MAX));
    }
    let help = "Load balancers that have not let go as yet";
    registry.register("drain_waits_for", help, waits_for);
    registry.register("drains", "Drains that have ended, and how", drains);
}

fn services(registry: &mut Registry, snapshot: &Snapshot) {
    let healthy = Family::<ByKey, Gauge>::default();
    let registered = Family::<ByKey, Gauge>::default();
    let probes = Family::<ByKey, Counter>::default();
    let failures = Family::<ByKey, Counter>::default();
    let took = Family::<ByKey, Float>::default();
    let age = Family::<ByKey, Float>::default();
    for (key, (report, standing)) in &snapshot.services {
        let label = ByKey { key: key.to_string() };
        let held = matches!(standing, KeyStatus::Owned { .. });
        registered.get_or_create(&label).set(i64::from(held));
        let up = report.as_ref().is_some_and(|report| report.state == State::Up);
        healthy.get_or_create(&label).set(i64::from(up));
        let counts = report.as_ref().map_or((0, 0), |report| (report.probes, report.failures));
        probes.get_or_create(&label).inc_by(counts.0);
        failures.get_or_create(&label).inc_by(counts.1);
        if let Some(last) = report.as_ref().and_then(|report| report.last.as_ref()) {
            took.get_or_create(&label).set(last.took.as_secs_f64());
            age.get_or_create(&label).set(last.at.elapsed().as_secs_f64());
        }
    }
    registry.register("healthy", "Whether the backend is healthy", healthy);
    registry.register("registered", "Whether etcd confirmed the key", registered);
    registry.register("probes", "Probes since the start", probes);
    registry.register("probe_failures", "Failed probes since the start", failures);
    let help = "How long the last probe took";
    registry.register_with_unit("last_probe_duration", help, Unit::Seconds, took);
    let help = "How long ago the last probe was answered or given up";
    registry.register_with_unit("last_probe_age", help, Unit::Seconds, age);
}

fn etcd(registry: &mut Registry, snapshot: &Snapshot) {
    let report = &snapshot.registrar;
    registry.register("etcd_requests", "Requests to etcd", counter(report.requests));
    registry.register("etcd_failures", "Of these, without a good answer", counter(report.failures));
    let trouble = report.failure.as_ref().map(|trouble| trouble.since.elapsed());
    registry.register_with_unit(
        "etcd_trouble",
        "How long etcd has not done as asked",
        Unit::Seconds,
        number(trouble.unwrap_or_default().as_secs_f64()),
    );
    let left = report.lease_until.map(|until| until.saturating_duration_since(Instant::now()));
    registry.register_with_unit(
        "lease_left",
        "How long our keys stay if etcd hears nothing more from us",
        Unit::Seconds,
        number(left.unwrap_or(Duration::ZERO).as_secs_f64()),
    );
}

fn number(value: f64) -> Float {
    let gauge = Float::default();
    gauge.set(value);
    gauge
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_drain_ended_is_counted() {
        let said = |drain| metrics(&Snapshot { drain, ..Snapshot::default() });
        let unconfirmed = "register_drains_total{result=\"unconfirmed\"}";
        let text = said(Some(Drain::WaitsFor(2)));
        assert!(text.contains("register_drain_waits_for 2\n"), "{text}");
        assert!(text.contains(&format!("{unconfirmed} 0\n")), "{text}");
        let text = said(Some(Drain::Over { confirmed: false }));
        assert!(text.contains("register_drain_waits_for 0\n"), "{text}");
        assert!(text.contains(&format!("{unconfirmed} 1\n")), "{text}");
        assert!(text.contains("register_drains_total{result=\"confirmed\"} 0\n"), "{text}");
    }
}
