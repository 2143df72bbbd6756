//! `/metrics`, in the OpenMetrics text format. Every name is in `docs/metrics.md`.

use std::time::Duration;

use common::claim::KeyStatus;
use common::metrics::{self, EtcdUse, FloatGauge, number, yes};
use common::registrar::RegistrarReport;
use common::tls::CertificateExpiry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::{DrainStatus, SidekickStatus};
use crate::handshake::DrainResult;
use crate::health::HealthState;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKey {
    key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

/// Everything, as it is now.
pub(super) fn text(
    status: &SidekickStatus,
    certificate: &CertificateExpiry,
    etcd: &EtcdUse,
) -> String {
    metrics::metrics("register", etcd, certificate, |own| {
        own.register("ready", "Whether /readyz answers 200", yes(status.is_ready()));
        own.register(
            "leaving",
            "Whether the process is shutting down",
            yes(status.drain.is_some()),
        );
        drain(own, status);
        services(own, status);
        lease(own, &status.registrar);
    })
}

fn drain(registry: &mut Registry, status: &SidekickStatus) {
    let waiting_for = Gauge::<i64>::default();
    let drains = Family::<ByResult, Counter>::default();
    for result in DrainResult::ALL {
        let ended = status.drain == Some(DrainStatus::Over(result));
        drains.get_or_create(&ByResult { result: result.name() }).inc_by(u64::from(ended));
    }
    if let Some(DrainStatus::WaitingFor(missing)) = &status.drain {
        waiting_for.set(i64::try_from(missing.len()).unwrap_or(i64::MAX));
    }
    let help = "Load balancers that have not finished the drain";
    registry.register("drain_waits_for", help, waiting_for);
    registry.register("drains", "Drains that have ended, by result", drains);
}

fn services(registry: &mut Registry, status: &SidekickStatus) {
    let healthy = Family::<ByKey, Gauge>::default();
    let registered = Family::<ByKey, Gauge>::default();
    let probes = Family::<ByKey, Counter>::default();
    let failures = Family::<ByKey, Counter>::default();
    let not_made = Family::<ByKey, Counter>::default();
    let took = Family::<ByKey, FloatGauge>::default();
    let age = Family::<ByKey, FloatGauge>::default();
    for (key, service) in &status.services {
        let label = ByKey { key: key.to_string() };
        let report = service.probes.borrow();
        let owned = matches!(service.registration, KeyStatus::Owned { .. });
        registered.get_or_create(&label).set(i64::from(owned));
        healthy.get_or_create(&label).set(i64::from(report.state == HealthState::Up));
        probes.get_or_create(&label).inc_by(report.probes);
        failures.get_or_create(&label).inc_by(report.failures);
        not_made.get_or_create(&label).inc_by(report.not_made);
        if let Some(last) = &report.last {
            took.get_or_create(&label).set(last.took.as_secs_f64());
            age.get_or_create(&label).set(last.at.elapsed().as_secs_f64());
        }
    }
    registry.register("healthy", "Whether the backend is healthy", healthy);
    registry.register("registered", "Whether etcd has confirmed the key", registered);
    registry.register("probes", "Probes since the start", probes);
    registry.register("probe_failures", "Failed probes since the start", failures);
    let help = "Probes not made: this process lacked files, processes, memory or ports";
    registry.register("probes_not_made", help, not_made);
    let help = "Duration of the last probe";
    registry.register_with_unit("last_probe_duration", help, Unit::Seconds, took);
    let help = "Time since the last probe ended";
    registry.register_with_unit("last_probe_age", help, Unit::Seconds, age);
}

fn lease(registry: &mut Registry, report: &RegistrarReport) {
    let failing = report.failure.as_ref().map(|failure| failure.since.elapsed());
    registry.register_with_unit(
        "etcd_trouble",
        "How long requests to etcd have been failing; 0 when they succeed",
        Unit::Seconds,
        number(failing.unwrap_or_default().as_secs_f64()),
    );
    let left = report.lease_until.map(|until| until.saturating_duration_since(Instant::now()));
    registry.register_with_unit(
        "lease_left",
        "Time until the lease ends if it is not refreshed",
        Unit::Seconds,
        number(left.unwrap_or(Duration::ZERO).as_secs_f64()),
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use common::registrar::RequestCounts;

    use super::*;

    #[test]
    fn etcd_counters_have_its_api_and_the_endpoint() {
        let none = tokio::sync::watch::channel(None).1;
        let status = SidekickStatus::default();
        let endpoint = "10.0.0.9:2379".to_owned();
        let away = ("10.0.0.8:2379".to_owned(), RequestCounts { requests: 1, failures: 1 });
        let counts = RequestCounts { requests: 7, failures: 2 };
        let requests = BTreeMap::from([away, (endpoint.clone(), counts)]);
        let used = EtcdUse { api: "v3", endpoint, requests };
        let served = text(&status, &none, &used);
        for line in [
            "register_etcd_requests_total{api=\"v3\",endpoint=\"10.0.0.9:2379\"} 7\n",
            "register_etcd_failures_total{api=\"v3\",endpoint=\"10.0.0.9:2379\"} 2\n",
            "register_etcd_failures_total{api=\"v3\",endpoint=\"10.0.0.8:2379\"} 1\n",
            "register_etcd_endpoint{api=\"v3\",endpoint=\"10.0.0.9:2379\"} 1\n",
        ] {
            assert!(served.contains(line), "{line}{served}");
        }
        let unknown = text(&status, &none, &EtcdUse::default());
        assert!(
            unknown.contains("register_etcd_endpoint{api=\"\",endpoint=\"\"} 0\n"),
            "{unknown}"
        );
    }

    #[test]
    fn how_a_drain_ended_is_counted() {
        let none = tokio::sync::watch::channel(None).1;
        let drained = |drain| {
            let status = SidekickStatus { drain: Some(drain), ..SidekickStatus::default() };
            text(&status, &none, &EtcdUse::default())
        };
        let total = |result: &str| format!("register_drains_total{{result=\"{result}\"}}");
        let waiting = drained(DrainStatus::WaitingFor(vec!["a".into(), "b".into()]));
        assert!(waiting.contains("register_drain_waits_for 2\n"), "{waiting}");
        for result in DrainResult::ALL {
            assert!(waiting.contains(&format!("{} 0\n", total(result.name()))), "{waiting}");
            let over = drained(DrainStatus::Over(result));
            assert!(over.contains("register_drain_waits_for 0\n"), "{over}");
            assert!(over.contains(&format!("{} 1\n", total(result.name()))), "{over}");
        }
    }
}
