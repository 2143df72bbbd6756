//! The HTTP surface of the sidekick: `/healthz`, `/readyz`, `/metrics`, `/status`.
//!
//! It reads what the loop published and says no more than that.

use std::net::SocketAddr;
use std::sync::Arc;

use common::claim::Standing;
use common::runtime::{Answer, Handler, HttpError, plain};
use hyper::Request;
use hyper::body::Incoming;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::Snapshot;
use crate::health::State;
use crate::probe::Verdict;

/// Serves the surface until `shutdown`.
///
/// # Errors
/// When the address cannot be had.
pub async fn serve(
    addr: SocketAddr,
    snapshot: watch::Receiver<Snapshot>,
    shutdown: CancellationToken,
) -> Result<SocketAddr, HttpError> {
    common::runtime::serve(addr, Arc::new(Surface { snapshot }), shutdown).await
}

struct Surface {
    snapshot: watch::Receiver<Snapshot>,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Handler for Surface {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let snapshot = self.snapshot.borrow().clone();
        match request.uri().path() {
            "/healthz" => plain(200, TEXT, "ok\n"),
            "/readyz" => {
                let code = if ready(&snapshot) { 200 } else { 503 };
                plain(code, TEXT, format!("{}\n", snapshot.words))
            }
            "/metrics" => plain(
                200,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                metrics(&snapshot),
            ),
            "/status" => plain(200, "application/json", status(&snapshot).to_string()),
            _ => plain(404, TEXT, "there are /healthz, /readyz, /metrics and /status\n"),
        }
    }
}

/// Registered, and what is registered is not about to run out unheard.
fn ready(snapshot: &Snapshot) -> bool {
    let held = |s: &Standing| matches!(s, Standing::Held { .. });
    let fresh =
        snapshot.registrar.believed_until.is_some_and(|until| until > tokio::time::Instant::now());
    snapshot.ready && fresh && snapshot.services.values().all(|(_, standing)| held(standing))
}

fn status(snapshot: &Snapshot) -> serde_json::Value {
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
                Standing::Held { at, .. } => json!({ "held_at_revision": at }),
                Standing::Owed => json!("owed"),
                Standing::Absent { .. } => json!("absent"),
                Standing::Rival { value } => json!({ "held_by": String::from_utf8_lossy(value) }),
            },
        })
    });
    let trouble = snapshot.registrar.trouble.as_ref();
    json!({
        "ready": ready(snapshot),
        "words": snapshot.words,
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

fn metrics(snapshot: &Snapshot) -> String {
    let mut registry = Registry::with_prefix("register");
    let healthy = Family::<ByKey, Gauge>::default();
    let registered = Family::<ByKey, Gauge>::default();
    let probes = Family::<ByKey, Gauge>::default();
    let failures = Family::<ByKey, Gauge>::default();
    for (key, (report, standing)) in &snapshot.services {
        let label = ByKey { key: key.to_string() };
        let held = matches!(standing, Standing::Held { .. });
        registered.get_or_create(&label).set(i64::from(held));
        if let Some(report) = report {
            healthy.get_or_create(&label).set(i64::from(report.state == State::Up));
            let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            probes.get_or_create(&label).set(number(report.probes));
            failures.get_or_create(&label).set(number(report.failures));
        }
    }
    registry.register("healthy", "Whether the backend is healthy", healthy);
    registry.register("registered", "Whether etcd confirmed the key", registered);
    registry.register("probes", "Probes since the start", probes);
    registry.register("probe_failures", "Failed probes since the start", failures);
    let requests = gauge(snapshot.registrar.requests);
    registry.register("etcd_requests", "Requests to etcd since the start", requests);
    let failed = gauge(snapshot.registrar.failures);
    registry.register("etcd_failures", "Of these, without a good answer", failed);
    let trouble =
        gauge(snapshot.registrar.trouble.as_ref().map_or(0, |t| t.since.elapsed().as_secs()));
    registry.register("etcd_trouble_seconds", "How long etcd has not done as asked", trouble);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}
