//! Leaving: the key goes, every load balancer lets go, then the backend is stopped
//! and we end. Each step is bounded; a second signal ends the waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::claim::{Aim, Standing, Takeover, Want};
use common::model::{Key, Revision, format_span};
use common::registrar::Report;
use common::runtime::Exit;
use common::store::{Guard, Store, Written};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Agent, Drain, End};
use crate::drain::{Bounds, Goal, Verdict, Wait};
use crate::handshake::{Ending, wait_for_all, who};
use crate::health::State;

/// How long the mark that we leave on purpose may take to be written; a load
/// balancer reads it only when it doubts a loss.
const MARK: Duration = Duration::from_secs(1);

/// How long the backend may take to end after SIGTERM.
const BACKEND: Duration = Duration::from_secs(30);

/// The service manager is asked for this much more time, again and again.
const EXTENSION: Duration = Duration::from_secs(15);

impl<S: Store> Agent<S> {
    /// Ends everything in order.
    pub(super) async fn leave(&mut self, end: End) -> anyhow::Result<Exit> {
        self.parts.manager.stopping();
        self.parts.manager.extend(EXTENSION);
        self.parts.publish.send_modify(|snapshot| snapshot.leaving = true);
        self.joining = None;
        let exit = match end {
            End::Asked => {
                let confirmed = self.drain().await;
                self.parts.publish.send_modify(|s| s.drain = Some(Drain::Over { confirmed }));
                let code = self.stop_backend().await;
                match (confirmed, code) {
                    (true, None | Some(0)) => Exit::Done,
                    (false, None | Some(0)) => Exit::Unconfirmed,
                    (_, Some(code)) => Exit::Child(code),
                }
            }
            End::BackendLeft(code) => {
                tracing::warn!(code, "the backend ended by itself");
                let until = Instant::now() + self.parts.config.process.drain.applied;
                let keys = self.registered();
                self.remove(&keys, until).await;
                Exit::Child(code)
            }
        };
        self.wants.send_replace(Arc::default());
        self.end_registrar.cancel();
        // The write at hand, a withdrawal, the end of the lease.
        let last = Instant::now() + self.parts.config.process.ttl.attempt() * 3;
        let _ = timeout_at(last, &mut self.registrar).await;
        Ok(exit)
    }

    /// Stops the backend that we supervise; its exit code.
    async fn stop_backend(&mut self) -> Option<u8> {
        let mut backend = self.parts.backend.take()?.backend;
        self.say("stopping the backend");
        self.parts.manager.extend(BACKEND + EXTENSION);
        let abort = self.parts.signals.abort.clone();
        let ended = tokio::select! {
            ended = backend.stop(BACKEND) => ended,
            () = abort.cancelled() => backend.stop(Duration::ZERO).await,
        };
        match ended {
            Ok(exit) => Some(exit.code()),
            Err(error) => {
                tracing::error!(%error, "the backend's end is not known");
                Some(1)
            }
        }
    }

    /// Removes the keys and waits for the load balancers. `true`: all confirmed.
    async fn drain(&mut self) -> bool {
        let held = self.held();
        let keys = self.registered();
        let left_over = self.clear_left_over().await;
        if keys.is_empty() && left_over.is_empty() {
            tracing::info!("nothing is registered, so nobody is waited for");
            return true;
        }
        let drain = self.parts.config.process.drain.clone();
        let began = Instant::now();
        self.say(&format!("draining: removing {} keys", keys.len()));
        self.mark(&held, began + MARK).await;
        let removed = self.remove_or_outlive(&keys, began + drain.applied).await;
        let Some(mut removed) = removed else {
            return self.say_unasked(drain.min.unwrap_or_default()).await;
        };
        removed.extend(left_over);
        let confirmed = self.await_load_balancers(removed).await;
        tracing::info!(after = %format_span(began.elapsed()), confirmed, "drained");
        confirmed
    }

    /// Removes what an earlier life of ours left at the keys of services about which
    /// nothing is decided yet; the revisions of those that were there.
    async fn clear_left_over(&mut self) -> BTreeMap<Key, Revision> {
        let starting = self.running.iter().filter(|(_, r)| r.said == State::Starting);
        let keys: Vec<Key> = starting.map(|(key, _)| key.clone()).collect();
        let until = Instant::now() + self.parts.config.process.drain.applied;
        let deleted = self.delete_ours(&keys, until).await.into_iter();
        deleted.filter_map(|(key, at)| Some((key, at.ok()?))).collect()
    }

    fn held(&self) -> Vec<Key> {
        let held = |(key, standing)| matches!(standing, Standing::Held { .. }).then_some(key);
        self.standings().into_iter().filter_map(held).collect()
    }

    /// Keys that are there, or may be (a write is under way, or was not answered), or
    /// were there: who lost its health a moment ago may be routed to as yet.
    fn registered(&self) -> Vec<Key> {
        let concerns = |key: &Key, standing: &Standing| match standing {
            Standing::Held { .. } | Standing::Owed | Standing::Absent { removed: Some(_) } => true,
            Standing::Absent { removed: None } => {
                self.running.get(key).is_some_and(|running| running.said == State::Up)
            }
            Standing::Rival { .. } => false,
        };
        let all = self.standings().into_iter();
        all.filter(|(key, standing)| concerns(key, standing)).map(|(key, _)| key).collect()
    }

    /// Leaves the marks that this is on purpose, besides the keys.
    async fn mark(&mut self, keys: &[Key], until: Instant) {
        let marks = self.marks(keys);
        let mut all: BTreeMap<Key, Want> = self.wants.borrow().as_ref().clone();
        all.extend(marks.clone());
        self.wants.send_replace(Arc::new(all));
        let held = |report: &Report| {
            let standing = |key| report.keys.get(key);
            marks.keys().all(|key| matches!(standing(key), Some(Standing::Held { .. })))
        };
        self.until(until, held).await;
    }

    fn marks(&self, keys: &[Key]) -> BTreeMap<Key, Want> {
        let mark = |key: &Key| {
            let (name, value) = self.bookkeeping.mark_of(key)?;
            Some((name, Want { value, takeover: Takeover::Any, aim: Aim::Hold }))
        };
        keys.iter().filter_map(mark).collect()
    }

    /// While etcd is away it is tried on until the lease must have ended: if it is
    /// back by then, the drain is as good as any.
    async fn remove_or_outlive(
        &mut self,
        keys: &[Key],
        until: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        let end_of_lease = self.report.borrow().believed_until.unwrap_or(until);
        if let Some(removed) = self.remove(keys, until).await {
            return Some(removed);
        }
        if self.parts.signals.abort.is_cancelled() {
            return None;
        }
        let rest = end_of_lease.saturating_duration_since(Instant::now());
        let text = format!("etcd is away: waiting {} for the lease to run out", format_span(rest));
        tracing::warn!("{text}");
        self.say(&text);
        self.remove(keys, end_of_lease).await
    }

    /// Has the keys removed; their revisions. `None`: etcd did not answer in time.
    async fn remove(&mut self, keys: &[Key], until: Instant) -> Option<BTreeMap<Key, Revision>> {
        self.parts.manager.extend(until.saturating_duration_since(Instant::now()) + EXTENSION);
        let wants = Arc::new(self.marks(keys));
        self.wants.send_replace(Arc::clone(&wants));
        // What it says of older wishes proves nothing: a write may have been under way.
        let gone = |report: &Report| {
            let absent = |key| matches!(report.keys.get(key), None | Some(Standing::Absent { .. }));
            Arc::ptr_eq(&report.acted_on, &wants) && keys.iter().all(absent)
        };
        if !self.until(until, gone).await {
            return None;
        }
        let (mut removed, mut unknown) = (BTreeMap::new(), Vec::new());
        for key in keys {
            match self.report.borrow().keys.get(key) {
                Some(Standing::Absent { removed: Some(at) }) => {
                    removed.insert(key.clone(), *at);
                }
                _ => unknown.push(key.clone()),
            }
        }
        // They went with the lease, nobody knows when: asked now, they are gone now.
        removed.extend(self.remove_by_value(&unknown, until).await?);
        Some(removed)
    }

    /// Removes what has our value, whosever lease it is under. `None`: etcd did not
    /// answer in time.
    async fn remove_by_value(
        &self,
        keys: &[Key],
        until: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        let asked = keys.iter().filter(|key| self.running.contains_key(*key)).count();
        let deleted = self.delete_ours(keys, until).await;
        let all = deleted.len() == asked;
        let removed =
            deleted.into_iter().map(|(key, at)| (key, at.unwrap_or_else(|absent| absent)));
        all.then(|| removed.collect())
    }

    async fn until(&mut self, until: Instant, done: impl Fn(&Report) -> bool) -> bool {
        let wait = self.report.wait_for(|report| done(report));
        let abort = self.parts.signals.abort.clone();
        tokio::select! {
            found = timeout_at(until, wait) => matches!(found, Ok(Ok(_))),
            () = abort.cancelled() => false,
        }
    }

    /// The keys have ended with their lease, and nobody could be asked. The floor is
    /// for who learns of it without us.
    async fn say_unasked(&mut self, least: Duration) -> bool {
        let abort = self.parts.signals.abort.clone();
        self.parts.manager.extend(least + EXTENSION);
        let _ = abort.run_until_cancelled(sleep_until(Instant::now() + least)).await;
        let why =
            if abort.is_cancelled() { "told to leave now" } else { "etcd could not be asked" };
        let text = format!("drain unconfirmed: {why}");
        tracing::warn!("{text}");
        self.say(&text);
        false
    }

    async fn await_load_balancers(&mut self, mut removed: BTreeMap<Key, Revision>) -> bool {
        let process = self.parts.config.process.clone();
        let bounds = Bounds {
            applied: process.drain.applied,
            quiesced: process.drain.quiesced,
            least: process.drain.min.unwrap_or_default(),
            min_lbs: usize::try_from(process.min_lbs).unwrap_or(usize::MAX),
            ..Bounds::default()
        };
        // Twice: once more if the store is restored meanwhile and the keys come back.
        for _ in 0..2 {
            let now = Instant::now();
            let waits: Vec<Wait> = removed
                .iter()
                .map(|(key, at)| Wait::new(key.clone(), *at, Goal::Left, bounds.clone(), now))
                .collect();
            let manager = self.parts.manager.clone();
            let mut last = String::new();
            let publish = self.parts.publish.clone();
            let tell = |missing: &[String]| {
                manager.extend(EXTENSION);
                manager.watchdog();
                let text = format!("draining: waiting for {}", who(missing));
                if last != text {
                    tracing::info!("{text}");
                    manager.status(&text);
                    publish.send_modify(|s| s.drain = Some(Drain::WaitsFor(missing.len())));
                    last = text;
                }
            };
            let abort = self.parts.signals.abort.clone();
            let store = self.parts.store.clone();
            match wait_for_all(&store, &self.bookkeeping, waits, tell, &abort).await {
                Ending::Verdicts(verdicts) => return self.say_verdicts(&verdicts),
                Ending::Aborted => {
                    tracing::warn!("drain unconfirmed: told to leave now");
                    return false;
                }
                Ending::Regressed(to) => {
                    tracing::warn!(%to, "etcd went backwards during the drain: removing again");
                    let keys: Vec<Key> = removed.keys().cloned().collect();
                    let until = Instant::now() + process.drain.applied;
                    self.parts.manager.extend(process.drain.applied + EXTENSION);
                    match self.remove_by_value(&keys, until).await {
                        Some(again) => removed = again,
                        None => break,
                    }
                }
            }
        }
        tracing::warn!("drain unconfirmed: etcd went backwards, and the keys may be back");
        self.say("drain unconfirmed: etcd went backwards");
        false
    }

    /// Deletes keys that have our value, whatever their lease. `Ok`: removed at this
    /// revision; `Err`: not there at this revision; left out: etcd did not answer.
    async fn delete_ours(
        &self,
        keys: &[Key],
        until: Instant,
    ) -> BTreeMap<Key, Result<Revision, Revision>> {
        let mut deleted = BTreeMap::new();
        for key in keys {
            let Some(running) = self.running.get(key) else { continue };
            let guard = Guard::Value(running.service.value.clone().into_bytes());
            let answer = timeout_at(until, self.parts.store.delete(key, &guard)).await;
            let outcome = match answer {
                Ok(Ok(Written::Done { revision, .. })) => Ok(revision),
                Ok(Ok(Written::Held { revision, .. })) => Err(revision),
                _ => continue,
            };
            deleted.insert(key.clone(), outcome);
        }
        deleted
    }

    fn say_verdicts(&self, verdicts: &[Verdict]) -> bool {
        let mut texts: Vec<String> = verdicts.iter().map(ToString::to_string).collect();
        texts.dedup();
        let confirmed = verdicts.iter().all(|verdict| verdict.confirmed);
        let text = format!("drain {}", texts.join("; "));
        if confirmed {
            tracing::info!("{text}")
        } else {
            tracing::warn!("{text}")
        }
        self.say(&text);
        confirmed
    }

    fn say(&self, text: &str) {
        self.parts.manager.status(text);
    }
}
