//! When READY=1 is sent: once everything healthy is registered; or, with `--wait-applied`,
//! once every load balancer serves it as well, within a bound.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use common::handshake::Bookkeeping;
use common::model::{Key, Revision};
use common::store::Store;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::registration::KeyRegistration;
use crate::config::RegisterConfig;
use crate::handshake::{
    DrainResult, Goal, HandshakeResult, LoadBalancerWait, MissingLoadBalancer, WaitBounds,
    WaitsEnd, names_or_all, wait_for_all,
};

/// Keys and the revisions at which they were written.
type Registered = BTreeMap<Key, Revision>;

/// How ready the process is.
pub(super) struct Readiness {
    state: ReadinessState,
    /// How long load balancers may take; `None`: they are not waited for.
    hold_back: Option<Duration>,
    /// Readiness is delayed until then at most, however often the wait begins anew.
    until: Option<Instant>,
}

enum ReadinessState {
    /// Not everything healthy is registered.
    Unregistered,
    /// Load balancers are to serve it first.
    Waiting(ServedWait),
    /// READY=1 is due, or was sent.
    Ready,
}

/// A wait for load balancers to serve what is registered.
struct ServedWait {
    registered: Registered,
    missing: watch::Receiver<Vec<MissingLoadBalancer>>,
    task: AbortOnDropHandle<WaitsEnd>,
}

/// What to do next, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ReadinessStep {
    Stay,
    /// A wait for what is not there any more proves nothing and ends.
    StopWaiting,
    /// For this long at most.
    WaitForLoadBalancers(Duration),
    SendReady,
}

impl fmt::Display for ReadinessStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stay => f.write_str("nothing changed"),
            Self::StopWaiting => f.write_str("a healthy service is not registered"),
            Self::WaitForLoadBalancers(_) => {
                f.write_str("everything healthy is registered, and --wait-applied is given")
            }
            Self::SendReady => f.write_str("everything healthy is registered"),
        }
    }
}

impl Readiness {
    pub(super) fn new(hold_back: Option<Duration>) -> Self {
        Self { state: ReadinessState::Unregistered, hold_back, until: None }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, ReadinessState::Ready)
    }

    /// Takes in which keys are registered, if all of them are. Whether READY=1 is due now.
    pub(super) fn update<S: Store>(
        &mut self,
        registered: Option<Registered>,
        registration: &KeyRegistration<S>,
        bookkeeping: &Bookkeeping,
        config: &RegisterConfig,
    ) -> bool {
        let step = self.next(registered.as_ref(), Instant::now());
        if step != ReadinessStep::Stay {
            tracing::debug!(%step, "readiness");
        }
        match (step, registered) {
            (ReadinessStep::Stay, _) => {}
            (ReadinessStep::SendReady, _) => {
                self.state = ReadinessState::Ready;
                return true;
            }
            (ReadinessStep::WaitForLoadBalancers(bound), Some(registered)) => {
                let store = registration.store().clone();
                let wait = ServedWait::begin(registered, bound, store, bookkeeping, config);
                self.state = ReadinessState::Waiting(wait);
            }
            _ => self.state = ReadinessState::Unregistered,
        }
        false
    }

    fn next(&mut self, registered: Option<&Registered>, now: Instant) -> ReadinessStep {
        match (&self.state, registered, self.hold_back) {
            (ReadinessState::Ready, ..) | (ReadinessState::Unregistered, None, _) => {
                ReadinessStep::Stay
            }
            (ReadinessState::Waiting(_), None, _) => ReadinessStep::StopWaiting,
            (ReadinessState::Waiting(wait), Some(now), _) if wait.registered == *now => {
                ReadinessStep::Stay
            }
            (_, Some(_), None) => ReadinessStep::SendReady,
            (_, Some(_), Some(hold_back)) => {
                let until = *self.until.get_or_insert(now + hold_back);
                ReadinessStep::WaitForLoadBalancers(until.saturating_duration_since(now))
            }
        }
    }

    /// How the wait for load balancers ended, or `None` when others are missing than before;
    /// without a wait, never.
    pub(super) async fn progressed(&mut self) -> Option<WaitsEnd> {
        let ReadinessState::Waiting(wait) = &mut self.state else {
            return std::future::pending().await;
        };
        tokio::select! {
            end = &mut wait.task => Some(end.unwrap_or(WaitsEnd::Aborted)),
            Ok(()) = wait.missing.changed() => None,
        }
    }

    /// The wait is over: READY=1 is sent all the same, and the load balancers that do not serve us
    /// are named. Whether READY=1 is due now.
    pub(super) fn served(&mut self, end: WaitsEnd) -> bool {
        let due = match end {
            WaitsEnd::Results(results) => {
                results.iter().for_each(log_served);
                true
            }
            // Health is not at stake: when etcd is back, the key is registered and served.
            WaitsEnd::Regressed(_) => true,
            WaitsEnd::Aborted => false,
        };
        self.state = if due { ReadinessState::Ready } else { ReadinessState::Unregistered };
        due
    }

    /// For the status line: the load balancers that do not serve us yet.
    pub(super) fn waiting_for(&self) -> Option<String> {
        let ReadinessState::Waiting(wait) = &self.state else { return None };
        let missing = wait.missing.borrow();
        (!missing.is_empty())
            .then(|| format!("; waiting to be served by {}", names_or_all(&missing)))
    }
}

impl ServedWait {
    fn begin<S: Store>(
        registered: Registered,
        bound: Duration,
        store: S,
        bookkeeping: &Bookkeeping,
        config: &RegisterConfig,
    ) -> Self {
        let min_lbs = config.process.bounds().min_lbs;
        let bounds = WaitBounds { applied: bound, min_lbs, ..WaitBounds::default() };
        let now = Instant::now();
        let wait = |(key, at): (&Key, &Revision)| {
            LoadBalancerWait::new(key.clone(), *at, Goal::Served, bounds.clone(), now)
        };
        let waits = registered.iter().map(wait).collect();
        let bookkeeping = bookkeeping.clone();
        let (publish, missing) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let report = |missing: &[MissingLoadBalancer]| {
                publish.send_if_modified(|before| {
                    let changed = before != missing;
                    missing.clone_into(before);
                    changed
                });
            };
            // It is aborted with its task.
            let never = CancellationToken::new();
            wait_for_all(&store, &bookkeeping, waits, None, report, &never).await
        });
        Self { registered, missing, task: AbortOnDropHandle::new(task) }
    }
}

fn log_served(result: &HandshakeResult) {
    match result.summary() {
        DrainResult::Confirmed | DrainResult::NoLoadBalancer => tracing::info!("served: {result}"),
        DrainResult::Assumed | DrainResult::Unconfirmed => {
            tracing::warn!("ready, but not proven to be served: {result}");
        }
    }
}
