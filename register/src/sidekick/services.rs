//! The services of this process: what the probes found of each, which key follows from it,
//! and what is logged of both.
//!
//! It knows nothing of etcd but the statuses that it is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::claim::{Aim, KeyStatus, Takeover, Want};
use common::model::{Endpoint, Key, Revision};
use common::registrar::RegistrarReport;
use tokio::sync::Notify;

use super::registration::KeyStatuses;
use super::reload::ReloadPlan;
use super::status_line;
use crate::config::Service;
use crate::health::HealthState;
use crate::probe::{Check, Probe, Verdict};
use crate::prober::{self, ProbeLimits, ServiceProbe};
use crate::status::{ServiceStatus, WeightChange, with_weight};

/// All services, by key.
pub(super) struct RunningServices {
    running: BTreeMap<Key, RunningService>,
    limits: ProbeLimits,
    bell: Arc<Notify>,
}

struct RunningService {
    service: Service,
    probing: ServiceProbe,
    /// The health that the key follows.
    health: HealthState,
    /// The status last logged.
    logged: KeyStatus,
    /// Whether it was logged that the probes could not be made.
    unprobed: bool,
    /// Whether etcd has ever confirmed its key.
    was_registered: bool,
}

/// What is left to know of a service when it is no longer probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoppedService {
    /// The health last acted on.
    pub(super) health: HealthState,
    /// The value that its key was to have.
    pub(super) value: Vec<u8>,
    /// Where it listens.
    pub(super) addr: Endpoint,
    /// Whether etcd has ever confirmed its key.
    pub(super) was_registered: bool,
}

impl RunningServices {
    /// Begins to probe services; `probes` are theirs, in the same order.
    pub(super) fn start(services: Vec<Service>, probes: Vec<Vec<Probe>>) -> Self {
        let mut all = Self {
            running: BTreeMap::new(),
            limits: ProbeLimits::default(),
            bell: Arc::new(Notify::new()),
        };
        let spread = prober::spread(services.len());
        for (service, probes) in services.into_iter().zip(probes) {
            all.begin(service, probes, spread);
        }
        all
    }

    fn begin(&mut self, service: Service, probes: Vec<Probe>, spread: Duration) {
        let (limits, bell) = (self.limits.clone(), Arc::clone(&self.bell));
        let probing = prober::start(probes, service.policy.clone(), limits, bell, spread);
        let key = service.target.key.clone();
        // A service that is probed in another way keeps its key until the probes decide.
        let (health, logged, was_registered) = match self.running.remove(&key) {
            Some(before) => (before.health, before.logged, before.was_registered),
            None => (HealthState::Starting, KeyStatus::Absent { removed: None }, false),
        };
        let unprobed = false;
        let running = RunningService { service, probing, health, logged, unprobed, was_registered };
        self.running.insert(key, running);
    }

    /// Waits until the probes of any service found something new.
    pub(super) async fn changed(&self) {
        self.bell.notified().await;
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.running.keys()
    }

    /// Takes in what the probes found, and logs changes.
    pub(super) fn observe(&mut self) {
        for (key, running) in &mut self.running {
            let report = running.probing.report.borrow();
            if report.state != HealthState::Starting && report.state != running.health {
                status_line::log_health(key, &report);
                running.health = report.state;
            }
            let not_made = report.last.as_ref().and_then(|last| match &last.verdict {
                Verdict::NotMade(why) => Some(why.clone()),
                Verdict::Pass | Verdict::Fail(_) => None,
            });
            if let Some(why) = not_made.as_ref().filter(|_| !running.unprobed) {
                tracing::warn!(%key, "cannot probe: {why}; the health stays as it was");
            }
            running.unprobed = not_made.is_some();
        }
    }

    /// The keys that follow from the health of each service.
    pub(super) fn wants(&self) -> BTreeMap<Key, Want> {
        let want = |(key, running): (&Key, &RunningService)| {
            let aim = match running.health {
                HealthState::Up => Aim::Present,
                HealthState::Down => Aim::Absent,
                HealthState::Starting => return None,
            };
            let value = running.service.value.clone().into_bytes();
            Some((key.clone(), Want { value, takeover: Takeover::SameValue, aim }))
        };
        self.running.iter().filter_map(want).collect()
    }

    /// The keys of everything healthy, if all of them are registered and there is any.
    pub(super) fn registered(&self, statuses: &KeyStatuses) -> Option<BTreeMap<Key, Revision>> {
        let mut registered = BTreeMap::new();
        for (key, running) in &self.running {
            match (running.health, statuses.get(key)) {
                (HealthState::Down, _) => {}
                (HealthState::Up, Some(KeyStatus::Owned { at, .. })) => {
                    registered.insert(key.clone(), *at);
                }
                _ => return None,
            }
        }
        (!registered.is_empty()).then_some(registered)
    }

    /// Logs what became of the keys; `away`: etcd does not answer.
    pub(super) fn log_changes(&mut self, statuses: &KeyStatuses, away: bool) {
        for (key, running) in &mut self.running {
            let Some(status) = statuses.get(key) else { continue };
            let ours = running.service.value.as_bytes();
            status_line::log_status(key, ours, (&running.logged, status), away);
            running.was_registered |= matches!(status, KeyStatus::Owned { .. });
            running.logged.clone_from(status);
        }
    }

    /// One line for `systemctl status`.
    pub(super) fn status_line(
        &self,
        statuses: &KeyStatuses,
        registrar: &RegistrarReport,
    ) -> String {
        let reports = self.running.iter().map(|(key, r)| (key, r.probing.report.borrow().clone()));
        status_line::of(reports, statuses, registrar)
    }

    /// For the status server.
    pub(super) fn publish(&self, statuses: &KeyStatuses) -> BTreeMap<Key, ServiceStatus> {
        let status = |(key, running): (&Key, &RunningService)| {
            let absent = KeyStatus::Absent { removed: None };
            let status = ServiceStatus {
                probes: running.probing.report.clone(),
                registration: statuses.get(key).cloned().unwrap_or(absent),
                value: running.service.value.clone(),
                checks: running.service.checks.iter().map(Check::shown).collect(),
            };
            (key.clone(), status)
        };
        self.running.iter().map(status).collect()
    }

    /// Writes the key again, in place. A configuration that is read again overrides this weight
    /// only where it differs from the configuration before.
    pub(super) fn set_weight(&mut self, change: &WeightChange) {
        let Some(running) = self.running.get_mut(&change.key) else { return };
        if let Some(value) = with_weight(&running.service.value, change.weight) {
            tracing::info!(key = %change.key, weight = change.weight, "the weight is changed");
            running.service.value = value;
        }
    }

    /// Goes over to a new configuration; what did not change is not touched.
    pub(super) fn replace(&mut self, plan: ReloadPlan) {
        for key in plan.removed {
            tracing::info!(%key, "no longer configured");
            self.running.remove(&key);
        }
        for service in plan.probed_as_before {
            if let Some(running) = self.running.get_mut(&service.target.key) {
                running.service = service;
            }
        }
        for (service, probes) in plan.probed_anew {
            tracing::info!(key = %service.target.key, "probing");
            self.begin(service, probes, Duration::ZERO);
        }
    }

    /// Ends the probing: from now on health changes nothing.
    pub(super) fn into_instances(self) -> BTreeMap<Key, StoppedService> {
        let instance = |running: RunningService| StoppedService {
            health: running.health,
            value: running.service.value.into_bytes(),
            addr: running.service.target.addr,
            was_registered: running.was_registered,
        };
        self.running.into_iter().map(|(key, running)| (key, instance(running))).collect()
    }
}
