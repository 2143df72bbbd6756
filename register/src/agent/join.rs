//! READY=1: at once when everything healthy is registered, or held back until every
//! load balancer serves it (`--wait-applied`), within a bound.

use std::collections::BTreeMap;
use std::time::Duration;

use common::claim::KeyStatus;
use common::model::{Key, Revision};
use common::store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Agent, Happened, words};
use crate::drain::{Bounds, Goal, Wait};
use crate::handshake::{Ending, wait_for_all};
use crate::health::State;

/// A wait for the load balancers to take up what is registered.
pub(super) struct Joining {
    /// What they are to take up: the keys, as written at these revisions.
    of: BTreeMap<Key, Revision>,
    missing: watch::Receiver<Vec<String>>,
    task: JoinHandle<Ending>,
}

impl Joining {
    /// For whom it is.
    pub(super) fn words(&self) -> Option<String> {
        let missing = self.missing.borrow();
        (!missing.is_empty()).then(|| format!("; waiting to be served by {}", missing.join(", ")))
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the wait brings; without one, nothing ever.
pub(super) async fn of_joining(joining: &mut Option<Joining>) -> Happened {
    let Some(Joining { task, missing, .. }) = joining else { return std::future::pending().await };
    tokio::select! {
        ended = &mut *task => Happened::Served(ended.unwrap_or(Ending::Aborted)),
        Ok(()) = missing.changed() => Happened::News,
    }
}

impl<S: Store> Agent<S> {
    /// READY=1, or the wait for it, once every healthy service is registered. A wait
    /// for what is not there any more proves nothing and ends.
    pub(super) fn become_ready(&mut self, standings: &BTreeMap<Key, KeyStatus>) {
        if self.ready {
            return;
        }
        let registered = self.all_registered(standings);
        if self.joining.as_ref().is_some_and(|joining| Some(&joining.of) != registered.as_ref()) {
            self.joining = None;
        }
        let Some(registered) = registered.filter(|_| self.joining.is_none()) else { return };
        match self.parts.config.process.wait_applied {
            None => self.say_ready(),
            // However often it begins anew, the service manager is told in the end.
            Some(patience) => {
                let now = Instant::now();
                let until = *self.patience.get_or_insert(now + patience);
                self.joining = Some(self.join(registered, until.saturating_duration_since(now)));
            }
        }
    }

    /// The keys of everything healthy, if all of them are there.
    fn all_registered(
        &self,
        standings: &BTreeMap<Key, KeyStatus>,
    ) -> Option<BTreeMap<Key, Revision>> {
        let mut registered = BTreeMap::new();
        for (key, running) in &self.running {
            match (running.said, standings.get(key)) {
                (State::Down, _) => {}
                (State::Up, Some(KeyStatus::Owned { at, .. })) => {
                    registered.insert(key.clone(), *at);
                }
                _ => return None,
            }
        }
        (!registered.is_empty()).then_some(registered)
    }

    fn join(&self, of: BTreeMap<Key, Revision>, patience: Duration) -> Joining {
        let bounds = Bounds {
            applied: patience,
            min_lbs: usize::try_from(self.parts.config.process.min_lbs).unwrap_or(usize::MAX),
            ..Bounds::default()
        };
        let now = Instant::now();
        let wait = |(key, at): (&Key, &Revision)| {
            Wait::new(key.clone(), *at, Goal::Joined, bounds.clone(), now)
        };
        let waits = of.iter().map(wait).collect();
        let (store, bookkeeping) = (self.parts.store.clone(), self.bookkeeping.clone());
        let abort = self.parts.signals.drain.clone();
        let (say, missing) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let tell = |missing: &[String]| {
                say.send_if_modified(|before| {
                    let changed = before != missing;
                    missing.clone_into(before);
                    changed
                });
            };
            wait_for_all(&store, &bookkeeping, waits, tell, &abort).await
        });
        Joining { of, missing, task }
    }

    /// The wait is over. It fails open: who is not served everywhere is named.
    pub(super) fn served(&mut self, ending: Ending) {
        self.joining = None;
        match ending {
            Ending::Verdicts(verdicts) => {
                verdicts.iter().for_each(words::say_served);
                self.say_ready();
            }
            // Health is not at stake; who comes back registers and is served.
            Ending::Regressed(_) => self.say_ready(),
            Ending::Aborted => {}
        }
    }

    fn say_ready(&mut self) {
        self.ready = true;
        self.parts.manager.ready();
    }
}
