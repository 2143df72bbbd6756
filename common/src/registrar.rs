//! Carries out what a [`Claim`] owes: one task that owns the lease and all keys of
//! this process, tells what stands, and never gives up.
//!
//! It waits for etcd, never for a probe or a template; who wants keys writes a new
//! [`Wants`] and goes on. RequestFailure with etcd changes nothing that is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::claim::{Claim, Delete, KeyStatus, Put, Step, Wants, to_hold};
use crate::model::{Key, Ttl};
use crate::runtime::Reminder;
use crate::store::{Store, StoreError};

/// What the registrar knows, published whenever it changes.
#[derive(Debug, Clone, Default)]
pub struct RegistrarReport {
    /// The wishes that it has come to, and that the standings are about; the very same
    /// allocation that was sent.
    pub acted_on: Wants,
    /// Every key that is or was wanted.
    pub keys: BTreeMap<Key, KeyStatus>,
    /// Until when the store keeps our keys even if it hears nothing more.
    pub believed_until: Option<Instant>,
    /// Why etcd does not do as asked, and since when.
    pub trouble: Option<RequestFailure>,
    /// Requests made and failed since the start.
    pub requests: u64,
    /// Of these, those without a good answer.
    pub failures: u64,
}

/// etcd does not do as asked.
#[derive(Debug, Clone)]
pub struct RequestFailure {
    /// Since when.
    pub since: Instant,
    /// What it said.
    pub error: StoreError,
}

/// Starts the registrar. It holds what `wants` says until `shutdown`; then it tries
/// once to withdraw what is not wanted any more, and ends its lease.
pub fn start<S: Store>(
    store: S,
    ttl: Ttl,
    wants: watch::Receiver<Wants>,
    shutdown: CancellationToken,
) -> (watch::Receiver<RegistrarReport>, tokio::task::JoinHandle<()>) {
    let (sender, receiver) = watch::channel(RegistrarReport::default());
    let backoff = Backoff::new(Duration::from_millis(100), ttl.refresh().min(MAX_PAUSE));
    let registrar = Registrar {
        store,
        ttl,
        claim: Claim::new(ttl),
        wants,
        report: sender,
        backoff,
        outage: None,
    };
    (receiver, tokio::spawn(registrar.run(shutdown)))
}

/// Even with a long TTL, etcd's return is noticed within seconds.
const MAX_PAUSE: Duration = Duration::from_secs(3);

struct Registrar<S> {
    store: S,
    ttl: Ttl,
    claim: Claim,
    wants: watch::Receiver<Wants>,
    report: watch::Sender<RegistrarReport>,
    backoff: Backoff,
    outage: Option<Outage>,
}

/// What was said of the present trouble: with several members, each failure may have
/// another's words, and a long one shall not fill the log.
#[derive(Default)]
struct Outage {
    said: Vec<StoreError>,
    reminder: Reminder,
}

/// How many different errors of one outage are logged when they come.
const SAID: usize = 8;

impl Outage {
    fn say(&mut self, error: &StoreError) {
        if self.said.len() < SAID && !self.said.contains(error) {
            tracing::warn!(%error, "etcd does not do as asked; trying on");
            self.said.push(error.clone());
        } else {
            self.reminder.remind(&format!("etcd still does not do as asked: {error}"));
        }
    }
}

impl<S: Store> Registrar<S> {
    async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let wants = self.wants.borrow_and_update().clone();
            let step = self.claim.next(&wants, Instant::now());
            let pause = match step {
                Step::Idle => Some(None),
                Step::Wait(until) => Some(Some(until)),
                step => self.carry_out(step).await.map(|pause| Some(Instant::now() + pause)),
            };
            self.publish(&wants);
            if let Some(until) = pause {
                self.wait(until, &shutdown).await;
            }
        }
        self.withdraw_the_rest().await;
        if let Some(lease) = self.claim.lease() {
            // The process is leaving; if etcd is away the lease ends by itself.
            let _ = self.bounded(self.store.revoke(lease)).await;
        }
    }

    /// A write may have been under way when its key was no longer wanted. With v2 there
    /// is no lease whose end would take it away.
    async fn withdraw_the_rest(&mut self) {
        let wants = self.wants.borrow_and_update().clone();
        while let step @ Step::Withdraw(_) = self.claim.next(&wants, Instant::now()) {
            if self.carry_out(step).await.is_some() {
                break;
            }
        }
        self.publish(&wants);
    }

    async fn wait(&mut self, until: Option<Instant>, shutdown: &CancellationToken) {
        let far = Instant::now() + Duration::from_secs(3600);
        tokio::select! {
            () = tokio::time::sleep_until(until.unwrap_or(far)) => {}
            changed = self.wants.changed() => {
                // Nobody is left to want anything else: hold on until told to end.
                if changed.is_err() { shutdown.cancelled().await }
            }
            () = shutdown.cancelled() => {}
        }
    }

    /// Performs one step. A failure returns how long to pause.
    async fn carry_out(&mut self, step: Step) -> Option<Duration> {
        let sent = Instant::now();
        let outcome = match step {
            Step::Grant => self.grant(sent).await,
            Step::Renew(lease, keys) => {
                let answer = self.bounded(self.store.renew(lease, &keys)).await;
                match answer {
                    Ok(renewed) => {
                        self.say_renewal(renewed.is_some());
                        self.claim.record_renewal(&keys, renewed, sent);
                        Ok(())
                    }
                    Err(error) => {
                        self.claim.record_renewal_unanswered(&keys);
                        Err(error)
                    }
                }
            }
            Step::Put(lease, puts) => {
                let calls = puts
                    .iter()
                    .map(|p| self.bounded(self.store.put(&p.key, &p.value, lease, &p.guard)));
                let answers = join_all(calls).await;
                self.record_puts(&puts, answers, sent)
            }
            Step::Withdraw(deletes) => {
                let calls =
                    deletes.iter().map(|d| self.bounded(self.store.delete(&d.key, &d.guard)));
                let answers = join_all(calls).await;
                self.record_withdrawals(&deletes, answers)
            }
            Step::Wait(_) | Step::Idle => Ok(()),
        };
        self.settle(outcome)
    }

    async fn grant(&mut self, sent: Instant) -> Result<(), StoreError> {
        let lease = self.bounded(self.store.grant(self.ttl)).await?;
        tracing::debug!(lease = lease.id, ttl = ?lease.ttl, "lease granted");
        self.claim.record_grant(lease, sent);
        Ok(())
    }

    fn record_puts(
        &mut self,
        puts: &[Put],
        answers: Vec<Result<Option<crate::store::WriteOutcome>, StoreError>>,
        sent: Instant,
    ) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for (put, answer) in puts.iter().zip(answers) {
            match answer {
                Ok(written) => self.claim.record_put(put, written, sent),
                Err(error) => {
                    self.claim.record_put_unanswered(put);
                    outcome = Err(error);
                }
            }
        }
        outcome
    }

    fn record_withdrawals(
        &mut self,
        deletes: &[Delete],
        answers: Vec<Result<crate::store::WriteOutcome, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for (delete, answer) in deletes.iter().zip(answers) {
            match answer {
                Ok(written) => {
                    self.claim.record_withdrawal(&delete.key, &written, Instant::now());
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn say_renewal(&self, known: bool) {
        if !known {
            tracing::warn!("etcd does not know our lease any more; registering again");
        }
    }

    /// No request outlives a third of the time between refreshes, so three tries
    /// fit before the next is due.
    async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.report.send_if_modified(|report| {
            report.requests += 1;
            false
        });
        match tokio::time::timeout(self.ttl.attempt(), call).await {
            Ok(answer) => answer,
            Err(_) => {
                let waited = crate::model::format_span(self.ttl.attempt());
                Err(StoreError::Unreachable(format!("no answer within {waited}")))
            }
        }
    }

    fn settle(&mut self, outcome: Result<(), StoreError>) -> Option<Duration> {
        match outcome {
            Ok(()) => {
                self.backoff.reset();
                self.outage = None;
                self.report.send_modify(|report| {
                    if let Some(trouble) = report.trouble.take() {
                        let after = crate::model::format_span(trouble.since.elapsed());
                        tracing::info!(%after, "etcd answers again");
                    }
                });
                None
            }
            Err(error) => {
                let pause = self.backoff.after_failure(fastrand::f64());
                self.outage.get_or_insert_default().say(&error);
                self.report.send_modify(|report| {
                    report.failures += 1;
                    let since = report.trouble.as_ref().map_or_else(Instant::now, |t| t.since);
                    report.trouble = Some(RequestFailure { since, error });
                });
                Some(pause)
            }
        }
    }

    fn publish(&self, wants: &Wants) {
        let wanted = wants.keys().map(|key| (key, to_hold(wants, key)));
        let known = self.claim.keys().map(|key| (key, to_hold(wants, key)));
        let keys: BTreeMap<_, _> = wanted
            .chain(known)
            .map(|(key, wanted)| (key.clone(), self.claim.standing(key, wanted)))
            .collect();
        let believed_until = self.claim.believed_until();
        self.report.send_if_modified(|report| {
            let news = !Arc::ptr_eq(&report.acted_on, wants);
            let changed = news || report.keys != keys || report.believed_until != believed_until;
            (report.keys, report.believed_until) = (keys, believed_until);
            report.acted_on = Arc::clone(wants);
            changed
        });
    }
}
