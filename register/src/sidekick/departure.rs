//! Leaving: the keys go, every load balancer drains, then the backend is stopped and the
//! process ends. Each step is bounded; a second signal ends the waiting.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use common::claim::{Aim, KeyStatus, Marker, Takeover, Want};
use common::handshake::Bookkeeping;
use common::model::{Key, Revision, format_span, plural};
use common::runtime::{Exit, ServiceManager};
use common::store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::SupervisedBackend;
use super::registration::{KeyStatuses, Registration};
use super::services::Instance;
use crate::config::Process;
use crate::handshake::wait::LoadBalancerState;
use crate::handshake::{
    DrainResult, Goal, HandshakeResult, LoadBalancerWait, WaitsEnd, names_or_all, wait_for_all,
};
use crate::health::HealthState;
use crate::status::{DrainStatus, SidekickStatus};

/// How long the backend may take to end after SIGTERM.
const BACKEND_STOP: Duration = Duration::from_secs(30);

/// The service manager is asked for this much more time, again and again.
const EXTENSION: Duration = Duration::from_secs(15);

/// Why the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// The backend ended by itself, with this exit code.
    BackendEnded(u8),
}

/// What is to be removed, and why.
#[derive(Debug, PartialEq, Eq)]
enum DeparturePlan {
    /// No key of ours can be there.
    NothingRegistered,
    /// These keys are there, or may be, or were a moment ago.
    Remove { keys: BTreeMap<Key, Vec<u8>> },
}

impl DeparturePlan {
    fn of(statuses: &KeyStatuses, instances: &BTreeMap<Key, Instance>) -> Self {
        let mut keys = BTreeMap::new();
        for (key, instance) in instances {
            let concerned = match statuses.get(key) {
                // A write may be under way, or was not answered; who lost its health a moment
                // ago may still be routed to.
                Some(
                    KeyStatus::Owned { .. }
                    | KeyStatus::Pending
                    | KeyStatus::Absent { removed: Some(_) },
                ) => true,
                Some(KeyStatus::Absent { removed: None }) => instance.health == HealthState::Up,
                Some(KeyStatus::Rival { .. }) | None => false,
            };
            if concerned {
                keys.insert(key.clone(), instance.value.clone());
            }
        }
        if keys.is_empty() { Self::NothingRegistered } else { Self::Remove { keys } }
    }
}

impl fmt::Display for DeparturePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingRegistered => f.write_str("nothing is registered"),
            Self::Remove { keys } => match keys.keys().next() {
                Some(key) if keys.len() == 1 => write!(f, "removing {key}"),
                _ => write!(f, "removing {}", plural(keys.len(), "key")),
            },
        }
    }
}

/// Everything that leaving takes.
pub(super) struct Departure<S> {
    pub(super) instances: BTreeMap<Key, Instance>,
    pub(super) registration: Registration<S>,
    pub(super) process: Process,
    pub(super) bookkeeping: Bookkeeping,
    pub(super) manager: ServiceManager,
    /// The second signal.
    pub(super) abort: CancellationToken,
    pub(super) publish: watch::Sender<SidekickStatus>,
    pub(super) backend: Option<SupervisedBackend>,
}

impl<S: Store> Departure<S> {
    /// Leaves in order. Each step is bounded, so the service manager gets its signs of life.
    pub(super) async fn leave(self, reason: EndReason) -> Exit {
        let manager = self.manager.clone();
        let leaving = self.leave_in_order(reason);
        let Some(interval) = manager.watchdog_interval() else { return leaving.await };
        tokio::pin!(leaving);
        let mut beat = tokio::time::interval(interval);
        loop {
            tokio::select! {
                exit = &mut leaving => return exit,
                _ = beat.tick() => manager.watchdog(),
            }
        }
    }

    async fn leave_in_order(mut self, reason: EndReason) -> Exit {
        self.manager.stopping();
        self.manager.extend(EXTENSION);
        self.publish_drain(DrainStatus::Removing);
        let exit = match reason {
            EndReason::Signal => {
                let result = self.drain().await;
                self.publish_drain(DrainStatus::Over(result));
                match self.stop_backend().await {
                    None | Some(0) => result.exit(),
                    Some(code) => Exit::Child(code),
                }
            }
            EndReason::BackendEnded(code) => {
                tracing::warn!(code, "the backend ended by itself");
                let plan = self.plan();
                let deadline = Instant::now() + self.process.drain.applied;
                self.remove(&plan, deadline).await;
                Exit::Child(code)
            }
        };
        self.registration.end().await;
        exit
    }

    fn plan(&self) -> DeparturePlan {
        DeparturePlan::of(&self.registration.statuses(self.instances.keys()), &self.instances)
    }

    /// Stops the backend that we supervise; its exit code.
    async fn stop_backend(&mut self) -> Option<u8> {
        let mut backend = self.backend.take()?.process;
        self.manager.status("stopping the backend");
        self.manager.extend(BACKEND_STOP + EXTENSION);
        let ended = tokio::select! {
            ended = backend.stop(BACKEND_STOP) => ended,
            () = self.abort.cancelled() => backend.stop(Duration::ZERO).await,
        };
        let code = ended.map(crate::supervise::Exit::code);
        Some(code.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot determine the backend's exit status");
            1
        }))
    }

    /// Removes the keys and waits for the load balancers.
    async fn drain(&mut self) -> DrainResult {
        let began = Instant::now();
        let plan = self.plan();
        let left_over = self.remove_left_over(began + self.process.drain.applied).await;
        if plan == DeparturePlan::NothingRegistered && left_over.is_empty() {
            tracing::info!("nothing is registered, so no load balancer is waited for");
            return DrainResult::Confirmed;
        }
        self.manager.status(&format!("draining: {plan}"));
        let removed = self.remove_or_outlive(&plan, began + self.process.drain.applied).await;
        let Some(mut removed) = removed else { return self.unasked().await };
        removed.extend(left_over);
        if removed.is_empty() {
            return self.taken_over();
        }
        let result = self.wait_for_load_balancers(removed).await;
        let after = format_span(began.elapsed());
        tracing::info!(%after, result = result.name(), "drain is over");
        result
    }

    /// What an earlier instance left at the keys of services about which nothing is decided.
    async fn remove_left_over(&self, deadline: Instant) -> BTreeMap<Key, Revision> {
        let starting = self.instances.iter().filter(|(_, i)| i.health == HealthState::Starting);
        let keys = starting.map(|(key, instance)| (key.clone(), instance.value.clone())).collect();
        self.registration.remove_left_over(&keys, deadline).await
    }

    /// Removes the keys, each with its leave marker in one transaction. `None`: etcd did not
    /// answer in time.
    async fn remove(
        &mut self,
        plan: &DeparturePlan,
        deadline: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        let DeparturePlan::Remove { keys } = plan else { return Some(BTreeMap::new()) };
        self.manager.extend(deadline.saturating_duration_since(Instant::now()) + EXTENSION);
        let mut wants = BTreeMap::new();
        for (key, value) in keys {
            let marker = self.bookkeeping.leave_marker(key);
            let marker = marker.map(|(key, value)| Marker { key, value });
            // The markers stay as long as we do.
            wants.extend(marker.clone().map(|Marker { key, value }| {
                (key, Want { value, takeover: Takeover::Any, aim: Aim::Present })
            }));
            let aim = marker.map_or(Aim::Absent, Aim::Left);
            let want = Want { value: value.clone(), takeover: Takeover::SameValue, aim };
            wants.insert(key.clone(), want);
        }
        self.registration.remove(keys, wants, deadline, &self.abort).await
    }

    /// While etcd does not answer, it is asked until the lease must have ended: if it is back
    /// by then, the drain is as good as any.
    async fn remove_or_outlive(
        &mut self,
        plan: &DeparturePlan,
        deadline: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        let lease_until = self.registration.lease_until().unwrap_or(deadline);
        if let Some(removed) = self.remove(plan, deadline).await {
            return Some(removed);
        }
        let rest = lease_until.saturating_duration_since(Instant::now());
        if self.abort.is_cancelled() || rest.is_zero() {
            return None;
        }
        let text =
            format!("etcd does not answer: waiting {} for the lease to end", format_span(rest));
        tracing::warn!("{text}");
        self.manager.status(&text);
        self.remove(plan, lease_until).await
    }

    /// The keys have ended with their lease, and no load balancer could be asked. The least
    /// time is for those that learn of it without us.
    async fn unasked(&self) -> DrainResult {
        let least = self.process.drain.min;
        self.manager.extend(least + EXTENSION);
        let _ = self.abort.run_until_cancelled(sleep_until(Instant::now() + least)).await;
        let reason = match self.registration.failure() {
            _ if self.abort.is_cancelled() => "a second signal came".to_owned(),
            Some(error) if error.is_without_quorum() => {
                format!("{error}; the key stays and is routed to until etcd has a quorum again")
            }
            Some(error) => error.to_string(),
            None => "etcd did not answer in time".to_owned(),
        };
        self.unconfirmed(&format!("drain unconfirmed: {reason}"))
    }

    fn unconfirmed(&self, text: &str) -> DrainResult {
        tracing::warn!("{text}");
        self.manager.status(text);
        DrainResult::Unconfirmed
    }

    /// Load balancers route on as before, so there is nothing to wait for.
    fn taken_over(&self) -> DrainResult {
        let text = "drained: another instance has taken the key over, so it stays";
        tracing::info!("{text}");
        self.manager.status(text);
        DrainResult::Confirmed
    }

    async fn wait_for_load_balancers(
        &mut self,
        mut removed: BTreeMap<Key, Revision>,
    ) -> DrainResult {
        // Twice: once more if the store is restored meanwhile and the keys come back.
        for _ in 0..2 {
            let now = Instant::now();
            let bounds = self.process.bounds();
            let wait = |(key, at): (&Key, &Revision)| {
                LoadBalancerWait::new(key.clone(), *at, Goal::Drained, bounds.clone(), now)
            };
            let waits = removed.iter().map(wait).collect();
            let store = self.registration.store().clone();
            let report = DrainReport::new(self.manager.clone(), self.publish.clone());
            match wait_for_all(&store, &self.bookkeeping, waits, report.into_fn(), &self.abort)
                .await
            {
                WaitsEnd::Results(results) => return self.results(results),
                WaitsEnd::Aborted => {
                    return self.unconfirmed("drain unconfirmed: a second signal came");
                }
                WaitsEnd::Regressed(to) => {
                    tracing::warn!(%to, "etcd has regressed during the drain: removing the keys again");
                    let Some(again) = self.remove_again(&removed).await else { break };
                    removed = again;
                }
            }
        }
        self.unconfirmed("drain unconfirmed: etcd has regressed, and the keys may be back")
    }

    async fn remove_again(
        &self,
        removed: &BTreeMap<Key, Revision>,
    ) -> Option<BTreeMap<Key, Revision>> {
        let bound = self.process.drain.applied;
        self.manager.extend(bound + EXTENSION);
        let value = |key: &Key| Some((key.clone(), self.instances.get(key)?.value.clone()));
        let keys = removed.keys().filter_map(value).collect();
        self.registration.remove_by_value(&keys, Instant::now() + bound).await
    }

    fn results(&self, mut results: Vec<HandshakeResult>) -> DrainResult {
        let failure = self.registration.failure();
        for result in &mut results {
            if let (DrainResult::Unconfirmed, Some(error)) = (result.summary(), &failure) {
                blame(result, error);
            }
        }
        let worst = results.iter().map(HandshakeResult::summary).max();
        let worst = worst.unwrap_or(DrainResult::Confirmed);
        let mut texts: Vec<String> = results.iter().map(ToString::to_string).collect();
        texts.dedup();
        let text = format!("drain {}", texts.join("; "));
        match worst {
            DrainResult::Confirmed => tracing::info!("{text}"),
            DrainResult::Assumed | DrainResult::Unconfirmed => tracing::warn!("{text}"),
            DrainResult::NoLoadBalancer => {
                let bookkeeping = &self.process.bookkeeping;
                tracing::warn!(
                    "no load balancer is registered below {bookkeeping}, so none was waited for; \
                     --min-lbs 1 makes this an error"
                );
            }
        }
        self.manager.status(&text);
        worst
    }

    fn publish_drain(&self, drain: DrainStatus) {
        self.publish.send_modify(|status| status.drain = Some(drain));
    }
}

/// Why a drain is unconfirmed while requests to etcd fail: who cannot write cannot acknowledge.
fn blame(result: &mut HandshakeResult, error: &StoreError) {
    let silent = LoadBalancerState::Silent.to_string();
    if matches!(error, StoreError::Rejected(_)) {
        for (_, why) in result.unconfirmed.iter_mut().filter(|(_, why)| *why == silent) {
            "cannot say what it has applied while etcd takes no writes".clone_into(why);
        }
    }
    result.unconfirmed.push(("etcd".to_owned(), error.to_string()));
}

/// Reports whom a drain waits for, when that changes.
struct DrainReport {
    manager: ServiceManager,
    publish: watch::Sender<SidekickStatus>,
    last: String,
}

impl DrainReport {
    fn new(manager: ServiceManager, publish: watch::Sender<SidekickStatus>) -> Self {
        Self { manager, publish, last: String::new() }
    }

    fn into_fn(mut self) -> impl FnMut(&[String]) {
        move |missing| {
            self.manager.extend(EXTENSION);
            let text = format!("draining: waiting for {}", names_or_all(missing));
            if self.last != text {
                tracing::info!("{text}");
                self.manager.status(&text);
                let drain = DrainStatus::WaitingFor(missing.to_vec());
                self.publish.send_modify(|status| status.drain = Some(drain));
                self.last = text;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        format!("/services/apache/{id}").parse().unwrap()
    }

    fn planned(status: KeyStatus, health: HealthState) -> DeparturePlan {
        let instance = Instance { health, value: b"10.0.0.1:80".to_vec() };
        let statuses = BTreeMap::from([(key("a"), status)]);
        DeparturePlan::of(&statuses, &BTreeMap::from([(key("a"), instance)]))
    }

    #[test]
    fn what_is_there_or_may_be_is_removed_and_what_is_anothers_is_not() {
        use HealthState::{Down, Starting, Up};
        let owned = || KeyStatus::Owned { at: Revision(7), value: b"10.0.0.1:80".to_vec() };
        let rival = || KeyStatus::Rival { value: b"10.0.0.2:80".to_vec() };
        let absent = |removed| KeyStatus::Absent { removed };
        for (status, health, removes) in [
            (owned(), Up, true),
            (owned(), Down, true),
            (KeyStatus::Pending, Up, true),
            (absent(Some(Revision(7))), Down, true),
            (absent(None), Up, true),
            (absent(None), Down, false),
            (absent(None), Starting, false),
            (rival(), Up, false),
        ] {
            let text = format!("{status:?} {health}");
            match planned(status, health) {
                DeparturePlan::NothingRegistered => assert!(!removes, "{text}"),
                DeparturePlan::Remove { .. } => assert!(removes, "{text}"),
            }
        }
    }

    #[test]
    fn who_cannot_write_is_not_said_to_have_done_nothing() {
        let unconfirmed = vec![("lb".to_owned(), LoadBalancerState::Silent.to_string())];
        let mut result = HandshakeResult { unconfirmed, ..HandshakeResult::default() };
        blame(&mut result, &StoreError::Rejected("database space exceeded".into()));
        assert_eq!(
            result.to_string(),
            "unconfirmed (lb: cannot say what it has applied while etcd takes no writes; etcd: \
             etcd rejects the request: database space exceeded)"
        );
    }

    #[test]
    fn a_plan_says_what_it_does() {
        assert_eq!(
            planned(KeyStatus::Pending, HealthState::Up).to_string(),
            "removing /services/apache/a"
        );
        let two = [key("a"), key("b")].map(|key| (key, Vec::new()));
        let plan = DeparturePlan::Remove { keys: two.into() };
        assert_eq!(plan.to_string(), "removing 2 keys");
    }
}
