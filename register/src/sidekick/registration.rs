//! Our side of the registrar: which keys are wanted, what etcd has confirmed of them, and
//! how they are removed.
//!
//! It knows nothing of health or of load balancers.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::claim::{KeyStatus, Want, Wants};
use common::leases;
use common::model::{Key, Revision, Snapshot, Tree, Ttl};
use common::registrar::RegistrarReport;
use common::store::{DeleteOutcome, Guard, Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// What is known of each key.
pub(super) type KeyStatuses = BTreeMap<Key, KeyStatus>;

/// The registrar's task and the channels to it.
pub(super) struct KeyRegistration<S> {
    store: S,
    ttl: Ttl,
    wants: watch::Sender<Wants>,
    report: watch::Receiver<RegistrarReport>,
    task: JoinHandle<()>,
    end: CancellationToken,
}

/// How the keys are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RemovalPatience {
    /// Until the deadline, whatever etcd answers: a right may be granted meanwhile.
    UntilDeadline,
    /// Until etcd refuses access.
    UntilRefused,
}

/// What was at a key that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RemovalResult {
    /// Our value; removed at this revision.
    Ours(Revision),
    /// Nothing, at this revision.
    Nothing(Revision),
    /// Another value, which stays.
    Another,
}

impl<S: Store> KeyRegistration<S> {
    pub(super) fn start(store: S, ttl: Ttl) -> Self {
        let (wants, wanted) = watch::channel(Wants::default());
        let end = CancellationToken::new();
        let (report, task) = leases::start(store.clone(), ttl, wanted, end.clone());
        Self { store, ttl, wants, report, task, end }
    }

    pub(super) fn store(&self) -> &S {
        &self.store
    }

    /// Has the registrar want exactly these keys; the version of that.
    pub(super) fn want(&self, keys: BTreeMap<Key, Want>) -> u64 {
        self.wants.send_if_modified(|wants| wants.replace(keys));
        self.wants.borrow().version()
    }

    /// Waits until the registrar has published something new.
    pub(super) async fn changed(&mut self) {
        // It ends only when it is asked to.
        if self.report.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What the registrar has published last.
    pub(super) fn report(&mut self) -> RegistrarReport {
        self.report.borrow_and_update().clone()
    }

    /// What is known of these keys. What etcd confirmed is worth nothing when it has not
    /// answered for a whole TTL.
    pub(super) fn statuses<'k>(&self, keys: impl Iterator<Item = &'k Key>) -> KeyStatuses {
        let report = self.report.borrow();
        let alive = report.lease_until.is_some_and(|until| Instant::now() < until);
        let status = |key: &Key| match report.keys.get(key) {
            Some(KeyStatus::Owned { .. }) if !alive => KeyStatus::Pending,
            Some(status) => status.clone(),
            None => KeyStatus::Absent { removed: None },
        };
        keys.map(|key| (key.clone(), status(key))).collect()
    }

    /// Waits until the registrar has reached this; `false` at the deadline, or when `abort` was
    /// cancelled.
    pub(super) async fn wait_for(
        &mut self,
        deadline: Instant,
        abort: &CancellationToken,
        reached: impl Fn(&RegistrarReport) -> bool,
    ) -> bool {
        let wait = timeout_at(deadline, self.report.wait_for(|report| reached(report)));
        let found = abort.run_until_cancelled(wait).await;
        matches!(found, Some(Ok(Ok(_))))
    }

    /// Removes keys, each of which was to have this value, by wanting `wants` from now on, where
    /// they are absent. The revisions at which they were removed, without those that another instance
    /// owns by now. `None`: etcd did not answer in time.
    pub(super) async fn remove(
        &mut self,
        keys: &BTreeMap<Key, Vec<u8>>,
        wants: BTreeMap<Key, Want>,
        (deadline, patience): (Instant, RemovalPatience),
        abort: &CancellationToken,
    ) -> Option<BTreeMap<Key, Revision>> {
        let version = self.want(wants);
        // What it reports of older wants proves nothing: a write may have been under way.
        let all_absent = |report: &RegistrarReport| {
            let is_absent = |key| {
                let status = report.keys.get(key);
                matches!(status, None | Some(KeyStatus::Absent { .. } | KeyStatus::Rival { .. }))
            };
            report.version >= version && keys.keys().all(is_absent)
        };
        let refused = |report: &RegistrarReport| {
            patience == RemovalPatience::UntilRefused
                && report.version >= version
                && is_refused(report)
        };
        let over = |report: &RegistrarReport| all_absent(report) || refused(report);
        if !self.wait_for(deadline, abort, over).await || !all_absent(&self.report.borrow()) {
            return None;
        }
        let (mut removed, unknown) = self.removed(keys);
        // They went with the lease, at an unknown moment: the store confirms now that they are
        // absent.
        removed.extend(self.remove_by_value(&unknown, deadline).await?);
        Some(removed)
    }

    /// Of keys that are gone: the revisions at which the registrar removed them, and those that it
    /// did not remove. Those of another instance are neither.
    fn removed(
        &self,
        keys: &BTreeMap<Key, Vec<u8>>,
    ) -> (BTreeMap<Key, Revision>, BTreeMap<Key, Vec<u8>>) {
        let (mut removed, mut unknown) = (BTreeMap::new(), BTreeMap::new());
        let report = self.report.borrow();
        for (key, value) in keys {
            match report.keys.get(key) {
                Some(KeyStatus::Absent { removed: Some(at) }) => {
                    removed.insert(key.clone(), *at);
                }
                Some(KeyStatus::Rival { .. }) => {}
                _ => {
                    unknown.insert(key.clone(), value.clone());
                }
            }
        }
        (removed, unknown)
    }

    /// After etcd has refused to remove these keys: whether they are not there anyway. `None`: they
    /// may not be read either.
    pub(super) async fn are_absent<'k>(
        &self,
        keys: impl Iterator<Item = &'k Key>,
        deadline: Instant,
    ) -> Option<bool> {
        let trees: Vec<Tree> = keys.map(Tree::from).collect();
        let found = self.store.read(&trees, deadline).await.ok()?;
        Some(found.entries.is_empty())
    }

    /// Why etcd refuses access, if it does.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        let report = self.report.borrow();
        report.failure.as_ref().filter(|_| is_refused(&report)).map(|failure| failure.error.clone())
    }

    /// Removes what has these values, whatever lease it is bound to. `None`: etcd did not
    /// answer in time.
    pub(super) async fn remove_by_value(
        &self,
        keys: &BTreeMap<Key, Vec<u8>>,
        deadline: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        let found = self.delete(keys, deadline).await;
        let absent = |(key, found)| match found {
            RemovalResult::Ours(at) | RemovalResult::Nothing(at) => Some((key, at)),
            RemovalResult::Another => None,
        };
        (found.len() == keys.len()).then(|| found.into_iter().filter_map(absent).collect())
    }

    /// Removes what an earlier instance of ours left; the revisions of what there was.
    pub(super) async fn remove_left_over(
        &self,
        keys: &BTreeMap<Key, Vec<u8>>,
        deadline: Instant,
    ) -> BTreeMap<Key, Revision> {
        let existed = |(key, found)| match found {
            RemovalResult::Ours(at) => Some((key, at)),
            RemovalResult::Nothing(_) | RemovalResult::Another => None,
        };
        self.delete(keys, deadline).await.into_iter().filter_map(existed).collect()
    }

    /// Left out: keys about which etcd did not answer.
    async fn delete(
        &self,
        keys: &BTreeMap<Key, Vec<u8>>,
        deadline: Instant,
    ) -> BTreeMap<Key, RemovalResult> {
        let mut all = BTreeMap::new();
        for (key, value) in keys {
            let guard = Guard::Value(value.clone());
            let found = match self.store.delete(key, &guard, deadline).await {
                Ok(DeleteOutcome::Deleted(revision)) => RemovalResult::Ours(revision),
                Ok(DeleteOutcome::Missing(revision)) => RemovalResult::Nothing(revision),
                Ok(DeleteOutcome::Taken { .. }) => RemovalResult::Another,
                Err(_) => continue,
            };
            all.insert(key.clone(), found);
        }
        all
    }

    /// What was read with the removal of the one key that is `removed`.
    pub(super) fn read_with_removal(
        &self,
        removed: &BTreeMap<Key, Revision>,
    ) -> Option<Arc<Snapshot>> {
        let read = self.report.borrow().read_with.clone()?;
        let same = removed.len() == 1 && removed.values().all(|at| *at == read.revision);
        same.then_some(read)
    }

    /// Until when etcd keeps our keys if it gets no further request from us.
    pub(super) fn lease_until(&self) -> Option<Instant> {
        self.report.borrow().lease_until
    }

    /// Why etcd does not answer now, if it does not.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.report.borrow().failure.as_ref().map(|failure| failure.error.clone())
    }

    /// Ends the registrar and its lease: the write at hand, a delete, the end of the lease.
    pub(super) async fn end(self) {
        self.want(BTreeMap::new());
        self.end.cancel();
        let last = Instant::now() + self.ttl.attempt() * 3;
        let _ = timeout_at(last, self.task).await;
    }
}

fn is_refused(report: &RegistrarReport) -> bool {
    report.failure.as_ref().is_some_and(|failure| matches!(failure.error, StoreError::Denied(_)))
}
