//! The view that readers see, and what is logged of its changes.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::view::{Stale, StaleReason, View, WatchLog};
use crate::model::{Change, Entry, Snapshot, changed_keys, format_span};
use crate::runtime::OutageLog;

/// What was published last.
pub(super) struct PublishedView {
    view: watch::Sender<View>,
    log: WatchLog,
    outage: OutageLog,
}

impl PublishedView {
    /// Nothing was read yet.
    pub(super) fn new(log: WatchLog) -> (Self, watch::Receiver<View>) {
        let stale = Stale { since: Instant::now(), reason: StaleReason::NotReadYet };
        let (view, receiver) = watch::channel(View { stale: Some(stale), ..View::default() });
        (Self { view, log, outage: OutageLog::default() }, receiver)
    }

    pub(super) fn view(&self) -> watch::Ref<'_, View> {
        self.view.borrow()
    }

    /// Whether the published snapshot has the same entries, refreshes aside.
    pub(super) fn has(&self, snapshot: &Snapshot) -> bool {
        let view = self.view.borrow();
        let Some(before) = &view.snapshot else { return false };
        let entry = |snapshot: &Snapshot, key: &Arc<str>| {
            let entry = snapshot.entries.get(key);
            entry.map(|entry: &Entry| (entry.value.clone(), entry.created))
        };
        view.stale.is_none()
            && before.cluster == snapshot.cluster
            && before.revision <= snapshot.revision
            && changed_keys(&before.entries, &snapshot.entries)
                .all(|key| entry(before, key) == entry(snapshot, key))
    }

    /// This snapshot was read whole.
    pub(super) fn publish(&self, snapshot: Snapshot) {
        self.view.send_modify(|view| {
            if let Some(before) = &view.snapshot
                && (snapshot.revision < before.revision
                    || snapshot.cluster != before.cluster
                    || snapshot.contradicts(before))
            {
                if self.log != WatchLog::Nothing {
                    tracing::warn!(
                        before = before.revision.0,
                        now = snapshot.revision.0,
                        "etcd has regressed: it was wiped, or restored from a backup"
                    );
                }
                view.regressions += 1;
                view.regressed_at = Some(Instant::now());
            }
            let is_news = |stale: &Stale| match self.log {
                WatchLog::All => true,
                WatchLog::Trouble => matches!(stale.reason, StaleReason::Failed(_)),
                WatchLog::Nothing => false,
            };
            if let Some(stale) = view.stale.take().filter(is_news) {
                tracing::info!(
                    after = %format_span(stale.since.elapsed()),
                    revision = snapshot.revision.0, keys = snapshot.entries.len(),
                    "following the keys in etcd"
                );
            }
            view.snapshot = Some(Arc::new(snapshot));
        });
    }

    /// These changes followed.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        self.view.send_modify(|view| {
            let mut next = view.snapshot.take().unwrap_or_default();
            let snapshot = Arc::make_mut(&mut next);
            changes.into_iter().for_each(|change| snapshot.apply(change));
            view.snapshot = Some(next);
        });
    }

    /// What is published may be out of date from now on, if it was not before.
    pub(super) fn mark_stale(&self, reason: StaleReason) {
        self.view.send_modify(|view| {
            let since = view.stale.as_ref().map_or_else(Instant::now, |stale| stale.since);
            view.stale = Some(Stale { since, reason });
        });
    }

    /// Whether a key was put again as it was. Not if it has another lease, or a lifetime of its
    /// own (v2): a process took the key over, and may wait until the revision of that is applied.
    pub(super) fn has_already(&self, change: &Change) -> bool {
        let Change::Put(entry) = change else { return false };
        let view = self.view.borrow();
        let known = view.snapshot.as_ref().and_then(|known| known.entries.get(&entry.key));
        known.is_some_and(|known| {
            entry.ttl.is_none()
                && known.lease == entry.lease
                && known.created == entry.created
                && known.value == entry.value
        })
    }

    /// Logs what is wrong, when it begins and then now and then.
    pub(super) fn remind(&mut self, what: &str) {
        match self.log {
            WatchLog::All | WatchLog::Trouble => drop(self.outage.remind(what)),
            WatchLog::Nothing => tracing::debug!("{what}"),
        }
    }

    pub(super) fn end_outage(&mut self) {
        self.outage = OutageLog::default();
    }
}
