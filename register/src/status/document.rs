//! `/status` as one JSON object. Its names are documented in `docs/operations.md`; what is
//! there stays.

use common::claim::KeyStatus;
use common::metrics::EtcdUse;
use common::model::Key;
use common::registrar::RequestCounts;
use serde_json::{Value, json};

use super::{DrainStatus, ServiceStatus, SidekickStatus};
use crate::health::HealthState;
use crate::probe::Verdict;

/// Everything now. `text` is the status line.
pub(super) fn of(status: &SidekickStatus, text: &str, etcd: &EtcdUse) -> String {
    let failure = status.registrar.failure.as_ref();
    let requests = RequestCounts::sum(&etcd.requests);
    let services: Vec<Value> = status.services.iter().map(|(key, s)| service(key, s)).collect();
    let document = json!({
        "version": common::VERSION,
        "ready": status.is_ready(),
        "leaving": status.drain.is_some(),
        "words": text,
        "drain": status.drain.as_ref().map(drain),
        "services": services,
        "etcd": {
            "api": etcd.api,
            "endpoint": etcd.endpoint,
            "trouble": failure.map(|failure| failure.error.to_string()),
            "trouble_for_seconds": failure.map(|failure| failure.since.elapsed().as_secs()),
            "requests": requests.requests,
            "failures": requests.failures,
        },
    });
    document.to_string()
}

fn service(key: &Key, status: &ServiceStatus) -> Value {
    let report = status.probes.borrow();
    let last = report.last.as_ref();
    let change = match &status.registration {
        KeyStatus::Owned { at, .. } => Some(format!("{key}@{at}")),
        KeyStatus::Absent { removed } => removed.map(|at| format!("{key}@{at}")),
        KeyStatus::Pending | KeyStatus::Rival { .. } => None,
    };
    json!({
        "key": key.as_str(),
        "value": status.value,
        "checks": status.checks,
        "health": name(report.state),
        "for_seconds": report.since.elapsed().as_secs(),
        "last_probe": last.map(|last| verdict(&last.verdict)),
        "last_probe_ms": last.map(|last| last.took.as_millis()),
        "probes": report.probes,
        "failures": report.failures,
        "not_made": report.not_made,
        "history": report.history.to_string(),
        "registration": match &status.registration {
            KeyStatus::Owned { at, .. } => json!({ "held_at_revision": at }),
            KeyStatus::Pending => json!("owed"),
            KeyStatus::Absent { .. } => json!("absent"),
            KeyStatus::Rival { value } => json!({ "held_by": String::from_utf8_lossy(value) }),
        },
        "change": change,
    })
}

fn drain(status: &DrainStatus) -> Value {
    match status {
        DrainStatus::Removing => json!({ "result": null, "waiting_for": [] }),
        DrainStatus::WaitingFor(missing) => json!({ "result": null, "waiting_for": missing }),
        DrainStatus::Over(result) => json!({ "result": result.name(), "waiting_for": [] }),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => "passed".to_owned(),
        Verdict::Fail(why) => why.clone(),
        Verdict::NotMade(why) => format!("not made: {why}"),
    }
}

fn name(state: HealthState) -> &'static str {
    match state {
        HealthState::Starting => "starting",
        HealthState::Up => "up",
        HealthState::Down => "down",
    }
}
