//! Leaving: the keys go, every load balancer drains, then the backend is stopped and the
//! process ends. Each step is bounded; a second signal ends the waiting.

mod plan;
mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use common::handshake::{Bookkeeping, DrainTimes};
use common::model::{Endpoint, Key, Revision, format_span};
use common::runtime::{Exit, ProcessExit, ServiceManager};
use common::store::Store;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use plan::{DeparturePlan, removal};
use report::{DrainReport, EXTENSION, blame, why_unasked};

use super::SupervisedBackend;
use super::registration::{KeyRegistration, RemovalPatience};
use super::services::StoppedService;
use crate::config::Process;
use crate::connection_drain::{self, ConnectionDrainEnd};
use crate::handshake::{
    DrainResult, Goal, HandshakeResult, LoadBalancerWait, WaitsEnd, wait_for_all,
};
use crate::health::HealthState;
use crate::status::{DrainStatus, SidekickStatus};

/// How long the backend may take to end after SIGTERM.
const BACKEND_STOP: Duration = Duration::from_secs(30);

/// Why a drain is unconfirmed that was not waited for to its end.
const SECOND_SIGNAL: &str = "received a second signal";

/// Why the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// The backend ended by itself, with this exit code.
    BackendEnded(u8),
}

/// Everything that leaving takes.
pub(super) struct Departure<S> {
    pub(super) instances: BTreeMap<Key, StoppedService>,
    pub(super) registration: KeyRegistration<S>,
    pub(super) process: Process,
    pub(super) bookkeeping: Bookkeeping,
    /// When it began, for the leave markers.
    pub(super) times: DrainTimes,
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
        tokio::select! {
            exit = self.leave_in_order(reason) => exit,
            never = manager.signs_of_life() => match never {},
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
                    None | Some(0) if self.process.drain_exit_zero => Exit::Done,
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
        let code = ended.map(ProcessExit::code);
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
        if let Some(refused) = self.refused(&plan, began + self.process.drain.applied).await {
            return refused;
        }
        let removed = self.remove_or_outlive(&plan, began + self.process.drain.applied).await;
        let Some(mut removed) = removed else { return self.unasked().await };
        removed.extend(left_over);
        if removed.is_empty() {
            return self.taken_over();
        }
        for (key, at) in &removed {
            tracing::info!(%key, revision = at.0, change = %format_args!("{key}@{at}"), "deregistered");
        }
        let removed_addrs: Vec<Endpoint> =
            removed.keys().filter_map(|key| Some(self.instances.get(key)?.addr.clone())).collect();
        let result = self.wait_for_load_balancers(removed).await;
        let result = self.wait_for_connections(&removed_addrs, result).await;
        let after = format_span(began.elapsed());
        tracing::info!(%after, result = result.name(), "drain is over");
        result
    }

    /// A process that may not write has registered nothing, so there is no drain to wait for.
    /// `None`: it may have, and the keys are removed as usual.
    async fn refused(&mut self, plan: &DeparturePlan, deadline: Instant) -> Option<DrainResult> {
        let DeparturePlan::Remove { keys } = plan else { return None };
        let was_registered = |key| self.instances.get(key).is_some_and(|i| i.was_registered);
        if keys.keys().any(was_registered) || self.registration.refusal().is_none() {
            return None;
        }
        if self.remove_patiently(plan, deadline, RemovalPatience::UntilRefused).await.is_some() {
            // The right was granted meanwhile. Removing the keys once more does no harm.
            return None;
        }
        let why = self.registration.refusal()?;
        match self.registration.are_absent(keys.keys(), deadline).await {
            // What an earlier instance left.
            Some(false) => None,
            Some(true) => {
                let text =
                    format!("nothing is registered, so no load balancer is waited for: {why}");
                tracing::warn!("{text}");
                self.manager.status(&text);
                Some(DrainResult::Confirmed)
            }
            None => Some(self.unconfirmed(&format!(
                "this process has registered nothing, and may not read what an earlier one has left: \
                 {why}"
            ))),
        }
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
        self.remove_patiently(plan, deadline, RemovalPatience::UntilDeadline).await
    }

    async fn remove_patiently(
        &mut self,
        plan: &DeparturePlan,
        deadline: Instant,
        patience: RemovalPatience,
    ) -> Option<BTreeMap<Key, Revision>> {
        let DeparturePlan::Remove { keys } = plan else { return Some(BTreeMap::new()) };
        self.manager.extend(deadline.saturating_duration_since(Instant::now()) + EXTENSION);
        let is_marked = patience == RemovalPatience::UntilDeadline;
        let wants = removal(keys, &self.bookkeeping, is_marked.then_some(self.times));
        self.registration.remove(keys, wants, (deadline, patience), &self.abort).await
    }

    /// While etcd does not answer, it is asked until the lease must have ended: if it answers by
    /// then, the drain is an ordinary one.
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

    /// The keys have ended with their lease, and no load balancer could be asked. `--drain-min` is
    /// waited for all the same: load balancers learn of the end without us.
    async fn unasked(&self) -> DrainResult {
        let least = self.process.drain.min;
        self.manager.extend(least + EXTENSION);
        let _ = self.abort.run_until_cancelled(sleep_until(Instant::now() + least)).await;
        let reason = match self.abort.is_cancelled() {
            true => SECOND_SIGNAL.to_owned(),
            false => why_unasked(self.registration.failure()),
        };
        self.unconfirmed(&reason)
    }

    fn unconfirmed(&self, reason: &str) -> DrainResult {
        let text = format!("drain unconfirmed: {reason}");
        tracing::warn!("{text}");
        self.manager.status(&text);
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
        let mut known = self.registration.read_with_removal(&removed);
        // Twice: once more if the store is restored meanwhile and the keys come back.
        for _ in 0..2 {
            let now = Instant::now();
            let bounds = self.process.bounds();
            let wait = |(key, at): (&Key, &Revision)| {
                LoadBalancerWait::new(key.clone(), *at, Goal::Drained, bounds.clone(), now)
            };
            let waits = removed.iter().map(wait).collect();
            let store = self.registration.store().clone();
            let mut report = DrainReport::new(self.manager.clone(), self.publish.clone());
            let (known, book) = (known.take(), &self.bookkeeping);
            let waits_for = |missing: &[_]| report.waits_for_load_balancers(missing);
            let end = wait_for_all(&store, book, waits, known, waits_for, &self.abort).await;
            report.is_over();
            match end {
                WaitsEnd::Results(results) => return self.results(results),
                WaitsEnd::Aborted => {
                    return self.unconfirmed(SECOND_SIGNAL);
                }
                WaitsEnd::Regressed(to) => {
                    tracing::warn!(%to, "etcd has regressed during the drain: removing the keys again");
                    let Some(again) = self.remove_again(&removed).await else { break };
                    removed = again;
                }
            }
        }
        self.unconfirmed("etcd has regressed, and the keys may be back")
    }

    /// With `--drain-quiet`: the connections to the backends themselves decide.
    async fn wait_for_connections(
        &self,
        backends: &[Endpoint],
        result: DrainResult,
    ) -> DrainResult {
        let Some(span) = self.process.drain.quiet else { return result };
        let bound = self.process.drain.quiesced;
        let mut report = DrainReport::new(self.manager.clone(), self.publish.clone());
        let report = |missing: &str| report.waits_for(missing, vec![missing.to_owned()]);
        match connection_drain::wait(backends, span, bound, report, &self.abort).await {
            ConnectionDrainEnd::Drained => {
                let quiet_for = format_span(span);
                tracing::info!(%quiet_for, "no connection to the backend is open, and none came");
                result
            }
            ConnectionDrainEnd::NotDrained(why) => self.unconfirmed(&why),
            ConnectionDrainEnd::Aborted => self.unconfirmed(SECOND_SIGNAL),
        }
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
            // With --drain-quiet the connections themselves are waited for.
            DrainResult::NoLoadBalancer if self.process.drain.quiet.is_some() => {}
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
