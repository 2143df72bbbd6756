//! `/metrics`, in the OpenMetrics text format. Every name is in `docs/metrics.md`.

use std::fmt;
use std::time::SystemTime;

use common::tls::certificate_metric;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric as _};
use prometheus_client::registry::{Registry, Unit};

use super::Sources;
use crate::status::state::{GroupState, States};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySet {
    set: String,
}

/// Everything, as it is now.
pub(super) fn text(sources: &Sources) -> String {
    let states = sources.states.borrow().clone();
    let mut registry = Registry::with_prefix("confsync");
    process(&mut registry, sources);
    backends(&mut registry, &states);
    revisions(&mut registry, &states);
    loads(&mut registry, &states);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

fn process(registry: &mut Registry, sources: &Sources) {
    let about = sources.about.borrow().clone();
    let version =
        Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("revision", common::COMMIT)]);
    registry.register("build", "What runs", version);
    let one = |value: f64| {
        let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
        gauge.set(value);
        gauge
    };
    let yes = |value: bool| one(if value { 1.0 } else { 0.0 });
    let started = about.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    registry.register_with_unit(
        "start_time",
        "When the process began, in Unix time",
        Unit::Seconds,
        one(started.as_secs_f64()),
    );
    registry.register("ready", "What /readyz says", yes(sources.ready().0));
    registry.register(
        "joined",
        "Whether etcd has our member key, so that leaving backends wait for us",
        yes(about.joined),
    );
    let page_clients = u32::try_from(sources.page_clients.count()).unwrap_or(u32::MAX);
    registry.register("page_clients", "Browsers that follow the page", one(page_clients.into()));
    let total = |value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        counter
    };
    let (requests, failures) = about.requests;
    registry.register("etcd_requests", "Requests to etcd about our own keys", total(requests));
    registry.register("etcd_failures", "Of these, without a good answer", total(failures));
    certificate_metric(registry, &sources.certificate);
}

fn backends(registry: &mut Registry, states: &States) {
    gauge(registry, states, "backends", "Backends wanted", |s| s.wanted_backends() as u64);
    gauge(registry, states, "backends_live", "Backends proven to be routed to", |s| {
        s.backends.iter().filter(|backend| backend.live).count() as u64
    });
    gauge(
        registry,
        states,
        "backends_held",
        "Backends kept although etcd does not have them",
        |s| s.backends.iter().filter(|backend| backend.held).count() as u64,
    );
    gauge(registry, states, "values_refused", "Values withheld from the templates", |s| {
        s.refused.len() as u64
    });
}

fn revisions(registry: &mut Registry, states: &States) {
    gauge(registry, states, "in_sync", "Whether what is wanted is live", |s| u64::from(s.in_sync));
    gauge(registry, states, "watch_fresh", "Whether the keys in etcd are followed", |s| {
        u64::from(s.stale.is_none())
    });
    gauge(registry, states, "revision_seen", "The revision last looked at", |s| s.revision);
    gauge(registry, states, "revision_applied", "The revision proven to be live", |s| s.applied);
    gauge(
        registry,
        states,
        "revision_quiesced",
        "The revision that no older worker is left of",
        |s| s.quiesced,
    );
    let owed = Family::<BySet, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for state in states.values() {
        let since = state.owed_since.and_then(|at| SystemTime::now().duration_since(at).ok());
        owed.get_or_create(&label(state)).set(since.unwrap_or_default().as_secs_f64());
    }
    let help = "How long what is wanted has not been live";
    registry.register_with_unit("owed", help, Unit::Seconds, owed);
}

fn loads(registry: &mut Registry, states: &States) {
    gauge(registry, states, "old_generations", "Old generations that still finish requests", |s| {
        s.old_generations as u64
    });
    counter(registry, states, "loads", "Loads proven", |s| s.loads_total);
    counter(
        registry,
        states,
        "member_changes",
        "Changes of backends that the proxy confirmed without a load",
        |s| s.member_changes_total,
    );
    counter(registry, states, "refusals", "Candidates refused", |s| s.refusals_total);
    counter(registry, states, "failures", "Steps failed for another reason", |s| s.failures_total);
    let all = states.values().map(|s| (label(s), s.load_seconds.clone())).collect();
    registry.register_collector(Box::new(Durations(all)));
}

/// The histograms that the pipelines keep, one a set.
#[derive(Debug)]
struct Durations(Vec<(BySet, Histogram)>);

impl Collector for Durations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "How long a proven load took, from the check to the proof";
        let kind: MetricType = Histogram::TYPE;
        let mut family =
            encoder.encode_descriptor("load_duration", help, Some(&Unit::Seconds), kind)?;
        for (label, histogram) in &self.0 {
            histogram.encode(family.encode_family(label)?)?;
        }
        Ok(())
    }
}

fn label(state: &GroupState) -> BySet {
    BySet { set: state.name.clone() }
}

fn gauge(
    registry: &mut Registry,
    states: &States,
    name: &str,
    help: &str,
    of: impl Fn(&GroupState) -> u64,
) {
    let family = Family::<BySet, Gauge>::default();
    for state in states.values() {
        let value = i64::try_from(of(state)).unwrap_or(i64::MAX);
        family.get_or_create(&label(state)).set(value);
    }
    registry.register(name, help, family);
}

fn counter(
    registry: &mut Registry,
    states: &States,
    name: &str,
    help: &str,
    of: impl Fn(&GroupState) -> u64,
) {
    let family = Family::<BySet, Counter>::default();
    for state in states.values() {
        family.get_or_create(&label(state)).inc_by(of(state));
    }
    registry.register(name, help, family);
}
