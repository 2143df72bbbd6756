//! The HTTP surface of the load balancer's config process: `/healthz`, `/readyz`,
//! `/metrics`, `/status`. It reads what the agents published and says no more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::runtime::{Answer, Handler, HttpError, plain};
use hyper::Request;
use hyper::body::Incoming;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::state::{SetState, States};

/// How long something may be owed before the process counts as not ready.
const PATIENCE: Duration = Duration::from_secs(30);
const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the surface until `shutdown`.
///
/// # Errors
/// When the address cannot be had.
pub async fn serve(
    addr: SocketAddr,
    states: watch::Receiver<States>,
    shutdown: CancellationToken,
) -> Result<SocketAddr, HttpError> {
    common::runtime::serve(addr, Arc::new(Surface { states }), shutdown).await
}

struct Surface {
    states: watch::Receiver<States>,
}

impl Handler for Surface {
    fn answer(&self, request: &Request<Incoming>) -> Answer {
        let states = self.states.borrow().clone();
        match request.uri().path() {
            "/healthz" => plain(200, TEXT, "ok\n"),
            "/readyz" => {
                let ready =
                    !states.is_empty() && states.values().all(|state| state.ready(PATIENCE));
                let words: Vec<String> = states.values().map(SetState::words).collect();
                let words =
                    if words.is_empty() { "waiting for etcd".into() } else { words.join("\n") };
                plain(if ready { 200 } else { 503 }, TEXT, format!("{words}\n"))
            }
            "/metrics" => plain(200, OPEN_METRICS, metrics(&states)),
            "/status" => {
                let text = serde_json::to_string(&states).unwrap_or_default();
                plain(200, "application/json", text)
            }
            _ => plain(404, TEXT, "there are /healthz, /readyz, /metrics and /status\n"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySet {
    set: String,
}

fn metrics(states: &States) -> String {
    let mut registry = Registry::with_prefix("confsync");
    gauge(&mut registry, states, "backends", "Backends routed to", |s| s.backends.len() as u64);
    gauge(
        &mut registry,
        states,
        "backends_held",
        "Of these, held although etcd does not have them",
        |s| s.backends.iter().filter(|backend| backend.held).count() as u64,
    );
    gauge(&mut registry, states, "values_refused", "Values withheld from the templates", |s| {
        s.refused.len() as u64
    });
    gauge(&mut registry, states, "in_sync", "Whether what is wanted is live", |s| {
        u64::from(s.in_sync)
    });
    gauge(&mut registry, states, "watch_fresh", "Whether the keys in etcd are followed", |s| {
        u64::from(s.stale.is_none())
    });
    gauge(&mut registry, states, "revision_seen", "The revision last looked at", |s| s.revision);
    gauge(&mut registry, states, "revision_applied", "The revision proven to be live", |s| {
        s.applied
    });
    gauge(
        &mut registry,
        states,
        "old_generations",
        "Old generations that still finish requests",
        |s| s.old_generations as u64,
    );
    gauge(&mut registry, states, "last_load_milliseconds", "How long the last load took", |s| {
        s.loads.last().map_or(0, |load| u64::try_from(load.took_ms).unwrap_or(u64::MAX))
    });
    let owed = Family::<BySet, Gauge>::default();
    for state in states.values() {
        let since = state.owed_since.and_then(|at| SystemTime::now().duration_since(at).ok());
        owed.get_or_create(&label(state)).set(number(since.map_or(0, |since| since.as_secs())));
    }
    registry.register_with_unit(
        "owed",
        "How long what is wanted has not been live",
        Unit::Seconds,
        owed,
    );
    counter(&mut registry, states, "loads", "Loads proven", |s| s.loads_total);
    counter(&mut registry, states, "refusals", "Candidates refused", |s| s.refusals_total);
    counter(&mut registry, states, "failures", "Steps failed for another reason", |s| {
        s.failures_total
    });
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

fn label(state: &SetState) -> BySet {
    BySet { set: state.name.clone() }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn gauge(
    registry: &mut Registry,
    states: &States,
    name: &str,
    help: &str,
    of: impl Fn(&SetState) -> u64,
) {
    let family = Family::<BySet, Gauge>::default();
    for state in states.values() {
        family.get_or_create(&label(state)).set(number(of(state)));
    }
    registry.register(name, help, family);
}

fn counter(
    registry: &mut Registry,
    states: &States,
    name: &str,
    help: &str,
    of: impl Fn(&SetState) -> u64,
) {
    let family = Family::<BySet, Counter>::default();
    for state in states.values() {
        family.get_or_create(&label(state)).inc_by(of(state));
    }
    registry.register(name, help, family);
}
