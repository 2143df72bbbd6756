//! Leaving: the key goes, every load balancer lets go, then the backend is stopped
//! and we end. Each step is bounded; a second signal ends the waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use common::claim::{Aim, KeyStatus, Takeover, Want};
use common::model::{Key, Revision, format_span};
use common::registrar::RegistrarReport;
use common::runtime::Exit;
use common::store::Store;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Agent, Drain, End};
use crate::drain::{Goal, Verdict, Wait};
use crate::handshake::{Ending, wait_for_all, who};
use crate::health::State;

/// How long the mark that we leave on purpose may take to be written; a load
/// balancer reads it only when it doubts a loss.
const MARK: Duration = Duration::from_secs(1);

/// How long the backend may take to end after SIGTERM.
const BACKEND: Duration = Duration::from_secs(30);

/// The service manager is asked for this much more time, again and again.
pub(super) const EXTENSION: Duration = Duration::from_secs(15);

impl<S: Store> Agent<S> {
    /// Ends everything in order. Each step is bounded, so who goes on is alive.
    pub(super) async fn leave(&mut self, end: End) -> anyhow::Result<Exit> {
        let manager = self.parts.manager.clone();
        let every = manager.watchdog_interval();
        let leaving = self.leave_in_order(end);
        let Some(every) = every else { return leaving.await };
        tokio::pin!(leaving);
        let mut beat = tokio::time::interval(every);
        loop {
            tokio::select! {
                exit = &mut leaving => return exit,
                _ = beat.tick() => manager.watchdog(),
            }
        }
    }

    async fn leave_in_order(&mut self, end: End) -> anyhow::Result<Exit> {
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
        self.want(BTreeMap::new());
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
        self.say(&match keys.as_slice() {
            [key] => format!("draining: removing {key}"),
            keys => format!("draining: removing {} keys", keys.len()),
        });
        self.mark(&held, began + MARK).await;
        let removed = self.remove_or_outlive(&keys, began + drain.applied).await;
        let Some(mut removed) = removed else {
            return self.say_unasked(drain.min).await;
        };
        removed.extend(left_over);
        if removed.is_empty() {
            return self.say_taken_over();
        }
        let confirmed = self.await_load_balancers(removed).await;
        tracing::info!(after = %format_span(began.elapsed()), confirmed, "drained");
        confirmed
    }

    fn held(&self) -> Vec<Key> {
        let held = |(key, standing)| matches!(standing, KeyStatus::Owned { .. }).then_some(key);
        self.standings().into_iter().filter_map(held).collect()
    }

    /// Keys that are there, or may be (a write is under way, or was not answered), or
    /// were there: who lost its health a moment ago may be routed to as yet.
    fn registered(&self) -> Vec<Key> {
        let concerns = |key: &Key, standing: &KeyStatus| match standing {
            KeyStatus::Owned { .. }
            | KeyStatus::Pending
            | KeyStatus::Absent { removed: Some(_) } => true,
            KeyStatus::Absent { removed: None } => {
                self.running.get(key).is_some_and(|running| running.said == State::Up)
            }
            KeyStatus::Rival { .. } => false,
        };
        let all = self.standings().into_iter();
        all.filter(|(key, standing)| concerns(key, standing)).map(|(key, _)| key).collect()
    }

    /// Leaves the marks that this is on purpose, besides the keys.
    async fn mark(&mut self, keys: &[Key], until: Instant) {
        let marks = self.marks(keys);
        let mut all: BTreeMap<Key, Want> = self.wants.borrow().clone().into();
        all.extend(marks.clone());
        self.want(all);
        let held = |report: &RegistrarReport| {
            let standing = |key| report.keys.get(key);
            marks.keys().all(|key| matches!(standing(key), Some(KeyStatus::Owned { .. })))
        };
        self.until(until, held).await;
    }

    /// Has the registrar want exactly these keys; the version of that.
    pub(super) fn want(&self, keys: BTreeMap<Key, Want>) -> u64 {
        self.wants.send_if_modified(|wants| wants.replace(keys));
        self.wants.borrow().version()
    }

    pub(super) fn marks(&self, keys: &[Key]) -> BTreeMap<Key, Want> {
        let mark = |key: &Key| {
            let (name, value) = self.bookkeeping.leave_marker(key)?;
            Some((name, Want { value, takeover: Takeover::Any, aim: Aim::Present }))
        };
        keys.iter().filter_map(mark).collect()
    }

    pub(super) async fn until(
        &mut self,
        until: Instant,
        done: impl Fn(&RegistrarReport) -> bool,
    ) -> bool {
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
        let bounds = process.bounds();
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

    /// Load balancers go on as before, so there is nobody to wait for.
    fn say_taken_over(&self) -> bool {
        let text = "drained: another instance has taken the key over, so it stays";
        tracing::info!("{text}");
        self.say(text);
        true
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

    pub(super) fn say(&self, text: &str) {
        self.parts.manager.status(text);
    }
}
