//! `/metrics`, in the OpenMetrics text format. Every name is in `docs/metrics.md`.

use std::fmt;
use std::time::SystemTime;

use common::metrics::{self, FloatGauge, number, yes};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric as _};
use prometheus_client::registry::{Registry, Unit};

use super::{About, Sources};
use crate::apply::record::Counts;
use crate::status::resources::ServiceState;
use crate::status::state::{GroupState, States};
use crate::status::totals::{self, TotalsByGroup};
use crate::status::traffic::TrafficByGroup;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySet {
    set: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByService {
    set: String,
    resource: String,
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResource {
    set: String,
    resource: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDriver {
    set: String,
    driver: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByMember {
    set: String,
    pool: String,
    addr: String,
}

/// All metrics, with their present values.
pub(super) fn text(sources: &Sources) -> String {
    let states = sources.states.borrow().clone();
    let about = sources.about.borrow().clone();
    let totals = totals::all(&about.ended, &states);
    metrics::metrics("confsync", &about.etcd, &sources.certificate, |own| {
        process(own, sources, &about);
        backends(own, &states);
        revisions(own, &states);
        loads(own, &states, &totals);
        traffic(own, &states, &sources.traffic.newest().borrow());
    })
}

fn process(registry: &mut Registry, sources: &Sources, about: &About) {
    registry.register("ready", "Whether /readyz answers 200", yes(sources.ready().0));
    let help =
        "Whether etcd has the member key, so that draining backends wait for this load balancer";
    registry.register("joined", help, yes(about.joined));
    let page_clients = u32::try_from(sources.page_clients.count()).unwrap_or(u32::MAX);
    registry.register(
        "page_clients",
        "Browsers that have the status page open",
        number(page_clients.into()),
    );
}

/// Only for resources that have services: a file made of settings has no backends to lose.
fn backends(registry: &mut Registry, states: &States) {
    by_service(registry, states, "backends", "Backends of the wanted configuration", |s| {
        s.backends
    });
    by_service(
        registry,
        states,
        "backends_in_rotation",
        "Backends that new requests are proven to be sent to",
        |s| s.in_rotation,
    );
    by_service(
        registry,
        states,
        "backends_retained",
        "Backends that are absent from etcd and retained",
        |s| s.retained,
    );
    by_keys(registry, states);
    gauge(registry, states, "values_refused", "Values in etcd that are rejected", |s| {
        s.rejected.len() as u64
    });
}

fn by_keys(registry: &mut Registry, states: &States) {
    let family = Family::<ByResource, Gauge>::default();
    for state in states.values() {
        for resource in state.resources.iter().filter(|resource| !resource.services.is_empty()) {
            let label = ByResource { set: state.name.clone(), resource: resource.name.clone() };
            family.get_or_create(&label).set(i64::from(resource.counted_by_keys));
        }
    }
    let help = "Whether backends count as in rotation by their keys: the file has no addresses";
    registry.register("counted_by_keys", help, family);
}

fn by_service(
    registry: &mut Registry,
    states: &States,
    name: &str,
    help: &str,
    of: impl Fn(&ServiceState) -> usize,
) {
    let family = Family::<ByService, Gauge>::default();
    for state in states.values() {
        for resource in &state.resources {
            for service in &resource.services {
                let label = ByService {
                    set: state.name.clone(),
                    resource: resource.name.clone(),
                    service: service.service.to_string(),
                };
                let value = i64::try_from(of(service)).unwrap_or(i64::MAX);
                family.get_or_create(&label).set(value);
            }
        }
    }
    registry.register(name, help, family);
}

fn revisions(registry: &mut Registry, states: &States) {
    gauge(registry, states, "in_sync", "Whether the wanted configuration is active", |s| {
        u64::from(s.in_sync)
    });
    gauge(
        registry,
        states,
        "watch_fresh",
        "Whether the watch of the keys in etcd is running",
        |s| u64::from(s.stale.is_none()),
    );
    gauge(registry, states, "revision_seen", "The last revision that was evaluated", |s| {
        s.revision
    });
    gauge(registry, states, "revision_applied", "The revision that is proven to be active", |s| {
        s.applied
    });
    gauge(
        registry,
        states,
        "revision_quiesced",
        "The revision up to which no request is served by older keys",
        |s| s.quiesced,
    );
    let pending = Family::<BySet, FloatGauge>::default();
    for state in states.values() {
        let since = state.pending_since.and_then(|at| SystemTime::now().duration_since(at).ok());
        pending.get_or_create(&label(state)).set(since.unwrap_or_default().as_secs_f64());
    }
    let help = "How long the wanted configuration has been pending; 0 when it is active";
    registry.register_with_unit("owed", help, Unit::Seconds, pending);
}

fn loads(registry: &mut Registry, states: &States, totals: &TotalsByGroup) {
    gauge(registry, states, "old_generations", "Old generations that still finish requests", |s| {
        s.old_generations as u64
    });
    counter(registry, totals, "loads", "Loads that were proven", |counts| counts.loads);
    let help = "Changes of backends that the proxy confirmed without a load";
    counter(registry, totals, "member_changes", help, |counts| counts.member_changes);
    counter(registry, totals, "refusals", "Candidates rejected", |counts| counts.refusals);
    let help = "Steps that failed for a reason other than a rejection";
    counter(registry, totals, "failures", help, |counts| counts.failures);
    let label = |name: &String| BySet { set: name.clone() };
    let all = totals.iter().map(|(name, totals)| (label(name), totals.load_seconds.clone()));
    registry.register_collector(Box::new(Durations(all.collect())));
}

/// Of groups whose driver knows it.
fn traffic(registry: &mut Registry, states: &States, all: &TrafficByGroup) {
    let driver = Family::<ByDriver, Gauge>::default();
    for state in states.values() {
        let label = ByDriver { set: state.name.clone(), driver: state.driver };
        driver.get_or_create(&label).set(1);
    }
    registry.register(
        "driver",
        "1 for the driver that changes backends in the running proxy",
        driver,
    );
    let (requests, failures) = (Family::<ByMember, Counter>::default(), Family::default());
    let (in_flight, ejected) = (Family::<ByMember, Gauge>::default(), Family::default());
    for state in states.values() {
        for member in state.traffic(all) {
            let label = ByMember {
                set: state.name.clone(),
                pool: member.pool.clone(),
                addr: member.addr.clone(),
            };
            let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
            // One that left and comes back is there twice until its last request has ended.
            requests.get_or_create(&label).inc_by(member.requests);
            Family::<ByMember, Counter>::get_or_create(&failures, &label).inc_by(member.failures);
            if let Some(count) = member.in_flight {
                in_flight.get_or_create(&label).inc_by(number(count));
            }
            let ejected = Family::<ByMember, Gauge>::get_or_create(&ejected, &label);
            ejected.set(i64::from(member.ejected));
        }
    }
    registry.register("backend_requests", "Requests sent to a backend", requests);
    registry.register("backend_failures", "Failed attempts at a backend", failures);
    let help = "Requests in flight to a backend";
    registry.register("backend_in_flight", help, in_flight);
    let help = "Whether a backend is ejected after failures";
    registry.register("backend_ejected", help, ejected);
}

/// The histograms that the pipelines keep, one a set.
#[derive(Debug)]
struct Durations(Vec<(BySet, Histogram)>);

impl Collector for Durations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Duration of proven loads, from the check to the proof";
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
    totals: &TotalsByGroup,
    name: &str,
    help: &str,
    of: impl Fn(&Counts) -> u64,
) {
    let family = Family::<BySet, Counter>::default();
    for (set, totals) in totals {
        family.get_or_create(&BySet { set: set.clone() }).inc_by(of(&totals.counts));
    }
    registry.register(name, help, family);
}
