//! Carries out the steps of a [`Claim`]: one task that owns the lease and all keys of this
//! process, publishes what is known of them, and never gives up.
//!
//! It waits for etcd, never for a probe or a template. A failing etcd changes nothing that is
//! wanted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::claim::{Claim, Delete, KeyStatus, Put, Step, Wants, is_wanted};
use crate::model::{Key, Snapshot, Ttl, format_span};
use crate::request_time::RequestTime;
use crate::runtime::{OutageLog, STEPS};
use crate::store::{
    DeleteOutcome, Guard, Lease, Ownership, PutOutcome, RefreshOutcome, Store, StoreError,
};

mod earlier_instance;

use earlier_instance::{EarlierLease, find_lease, watch_former_holder};

/// What the registrar knows, published whenever it changes.
#[derive(Debug, Clone, Default)]
pub struct RegistrarReport {
    /// The version of the [`Wants`] that `keys` is about.
    pub version: u64,
    /// Every key that is or was wanted.
    pub keys: BTreeMap<Key, KeyStatus>,
    /// Until when the store keeps our keys if it is not asked again.
    pub lease_until: Option<Instant>,
    /// What was read in the transaction that removed a key last.
    pub read_with: Option<Arc<Snapshot>>,
    /// The present failure, if the last request failed.
    pub failure: Option<RequestFailure>,
    /// Requests since the start, by endpoint.
    pub requests: RequestsByEndpoint,
    /// The endpoint that was asked last.
    pub(crate) asked: String,
}

/// Requests since the start, by `host:port` of the endpoint.
pub type RequestsByEndpoint = BTreeMap<String, RequestCounts>;

/// Requests to one endpoint, or to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestCounts {
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
}

impl RequestCounts {
    pub fn sum(all: &RequestsByEndpoint) -> Self {
        let mut sum = Self::default();
        all.values().for_each(|counts| sum.add(*counts));
        sum
    }

    pub fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.failures += more.failures;
    }
}

/// Requests to etcd fail.
#[derive(Debug, Clone)]
pub struct RequestFailure {
    /// When the first of them failed.
    pub since: Instant,
    /// The error of the last one.
    pub error: StoreError,
}

/// Even with a long TTL, etcd's return is noticed within seconds.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// How long the registrar is idle at most before it looks at what is wanted again.
const IDLE: Duration = Duration::from_secs(3600);

/// Starts the registrar. It keeps the keys that `wants` names until `shutdown`; then it tries once
/// to delete the keys that are no longer wanted, and revokes its lease.
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
        time: RequestTime::new(ttl),
        outage: OutageLog::default(),
        unwritten: Mutex::default(),
    };
    (receiver, tokio::spawn(registrar.run(shutdown)))
}

/// Removes a key, and writes its marker with it. A marker that etcd refuses (for want of space or
/// of a right) does not keep the key there, nor does a tree that may not be read.
async fn remove<S: Store>(
    store: &S,
    delete: &Delete,
    lease: Option<Lease>,
    deadline: Instant,
    unwritten: &Mutex<OutageLog>,
) -> Result<(DeleteOutcome, Option<Snapshot>), StoreError> {
    let (key, guard) = (&delete.key, &delete.guard);
    if let (Some(marker), Some(lease)) = (&delete.marker, lease) {
        let written = (&marker.key, marker.value.as_slice());
        let mut trees = marker.reads.as_slice();
        loop {
            match store.leave(key, guard, written, lease, trees, deadline).await {
                Err(StoreError::Denied(_)) if !trees.is_empty() => trees = &[],
                Err(error) if !error.is_transient() => {
                    let mut log = unwritten.lock().unwrap_or_else(PoisonError::into_inner);
                    log.remind(&format!("cannot write the leave marker: {error}"));
                    break;
                }
                answer => return answer,
            }
        }
    }
    Ok((store.delete(key, guard, deadline).await?, None))
}

struct Registrar<S> {
    store: S,
    ttl: Ttl,
    claim: Claim,
    wants: watch::Receiver<Wants>,
    report: watch::Sender<RegistrarReport>,
    backoff: Backoff,
    time: RequestTime,
    outage: OutageLog,
    /// Leave markers that etcd refuses; several keys may be removed at once.
    unwritten: Mutex<OutageLog>,
}

impl<S: Store> Registrar<S> {
    async fn run(mut self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let wants = self.wants.borrow_and_update().clone();
            let step = self.claim.next(&wants, Instant::now());
            let wait_until = match step {
                Step::Idle => Some(Instant::now() + IDLE),
                Step::Wait(until) => Some(until),
                step => self.carry_out(step).await.map(|pause| Instant::now() + pause),
            };
            self.publish(&wants);
            if let Some(until) = wait_until {
                self.wait(until, &shutdown).await;
            }
        }
        self.delete_the_rest().await;
        if let Some(lease) = self.claim.lease() {
            let deadline = self.begin_request();
            // If etcd is away, the lease ends by itself.
            let _ = self.store.revoke(lease, deadline).await;
        }
    }

    /// A write may have been under way when its key was no longer wanted. With v2 there is no
    /// lease whose end would remove it.
    async fn delete_the_rest(&mut self) {
        let wants = self.wants.borrow_and_update().clone();
        while let step @ Step::Delete(_) = self.claim.next(&wants, Instant::now()) {
            if self.carry_out(step).await.is_some() {
                break;
            }
        }
        self.publish(&wants);
    }

    async fn wait(&mut self, until: Instant, shutdown: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            changed = self.wants.changed() => {
                // The sender was dropped, so the wanted keys cannot change any more: keep them until
                // the end.
                if changed.is_err() { shutdown.cancelled().await }
            }
            () = shutdown.cancelled() => {}
        }
    }

    /// Performs one step. After a failure, returns how long to pause.
    async fn carry_out(&mut self, step: Step) -> Option<Duration> {
        tracing::debug!(target: STEPS, "next step: {step}");
        let sent = Instant::now();
        let outcome = match step {
            Step::Grant => match self.grant().await {
                Err(error @ StoreError::NoSpace(_)) => self.adopt(error).await,
                granted => granted,
            },
            Step::Refresh(lease, keys) => self.refresh(lease, &keys).await,
            Step::Put(lease, puts) => self.put(lease, &puts).await,
            Step::Delete(deletes) => self.delete(&deletes).await,
            Step::Wait(_) | Step::Idle => Ok(()),
        };
        match &outcome {
            Err(error) if error.is_unanswered() && sent.elapsed() >= self.time.now() => {
                self.time.unanswered();
            }
            _ => self.time.answered(sent.elapsed()),
        }
        self.settle(outcome)
    }

    async fn grant(&mut self) -> Result<(), StoreError> {
        let (sent, deadline) = (Instant::now(), self.begin_request());
        let lease = self.store.grant(self.ttl, deadline).await?;
        tracing::debug!(lease = lease.id, ttl = ?lease.ttl, "lease granted");
        self.claim.record_grant(lease, sent);
        Ok(())
    }

    /// No lease is granted: the one that an earlier instance left with our keys is used, if it
    /// still lives. `error` if there is none.
    async fn adopt(&mut self, error: StoreError) -> Result<(), StoreError> {
        let wants = self.wants.borrow().clone();
        let begin_request = || self.begin_request();
        let found = find_lease(&self.store, &wants, self.ttl, begin_request).await?;
        let Some(EarlierLease { lease, entries, sent }) = found else { return Err(error) };
        tracing::warn!(keys = entries.len(), "using the lease of an earlier instance: {error}");
        self.claim.record_adoption(lease, entries, sent);
        Ok(())
    }

    async fn refresh(&mut self, lease: Lease, keys: &[(Key, Ownership)]) -> Result<(), StoreError> {
        let (sent, deadline) = (Instant::now(), self.begin_request());
        match self.store.refresh(lease, keys, deadline).await {
            Ok(outcome) => {
                if outcome == RefreshOutcome::LeaseLost {
                    tracing::warn!("etcd no longer knows our lease; registering again");
                }
                self.claim.record_refresh(keys, outcome, sent);
                Ok(())
            }
            Err(error) => {
                self.claim.record_refresh_unanswered(keys);
                Err(error)
            }
        }
    }

    async fn put(&mut self, lease: Lease, puts: &[Put]) -> Result<(), StoreError> {
        let sent = Instant::now();
        let calls = puts.iter().map(|put| {
            let deadline = self.begin_request();
            self.store.put(&put.key, &put.value, lease, &put.guard, deadline)
        });
        let answers: Vec<Result<PutOutcome, StoreError>> = join_all(calls).await;
        let mut outcome = Ok(());
        for (put, answer) in puts.iter().zip(answers) {
            if let (Guard::Value(_), Ok(PutOutcome::Written(_))) = (&put.guard, &answer)
                && let Some(before) = self.claim.rival(&put.key)
            {
                tokio::spawn(watch_former_holder(self.store.clone(), before.clone()));
            }
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

    async fn delete(&mut self, deletes: &[Delete]) -> Result<(), StoreError> {
        let lease = self.claim.lease();
        let calls = deletes.iter().map(|delete| {
            let deadline = self.begin_request();
            remove(&self.store, delete, lease, deadline, &self.unwritten)
        });
        let answers = join_all(calls).await;
        let mut outcome = Ok(());
        for (delete, answer) in deletes.iter().zip(answers) {
            match answer {
                Ok((deleted, read)) => {
                    self.claim.record_delete(&delete.key, deleted, Instant::now());
                    if let Some(read) = read {
                        self.report.send_modify(|report| report.read_with = Some(Arc::new(read)));
                    }
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Counts a request and gives it its deadline.
    fn begin_request(&self) -> Instant {
        let endpoint = self.store.endpoint();
        self.report.send_if_modified(|report| {
            report.requests.entry(endpoint.clone()).or_default().requests += 1;
            report.asked = endpoint;
            false
        });
        Instant::now() + self.time.now()
    }

    fn settle(&mut self, outcome: Result<(), StoreError>) -> Option<Duration> {
        match outcome {
            Ok(()) => {
                self.backoff.reset();
                self.outage = OutageLog::default();
                self.report.send_if_modified(|report| {
                    let Some(failure) = report.failure.take() else { return false };
                    let after = format_span(failure.since.elapsed());
                    tracing::info!(%after, "etcd answers again");
                    true
                });
                None
            }
            Err(error) => {
                let pause = self.backoff.after_failure(fastrand::f64());
                self.outage.remind(&format!("etcd request failed; retrying: {error}"));
                self.report.send_modify(|report| {
                    // Another endpoint may be next by now.
                    let asked = report.asked.clone();
                    report.requests.entry(asked).or_default().failures += 1;
                    let since = report.failure.as_ref().map_or_else(Instant::now, |f| f.since);
                    report.failure = Some(RequestFailure { since, error });
                });
                Some(pause)
            }
        }
    }

    fn publish(&self, wants: &Wants) {
        let keys: BTreeMap<_, _> = wants
            .keys()
            .chain(self.claim.keys())
            .map(|key| (key.clone(), self.claim.status(key, is_wanted(wants, key))))
            .collect();
        let lease_until = self.claim.lease_until();
        self.report.send_if_modified(|report| {
            let version = wants.version();
            let changed = report.version != version
                || report.keys != keys
                || report.lease_until != lease_until;
            (report.version, report.keys, report.lease_until) = (version, keys, lease_until);
            changed
        });
    }
}
