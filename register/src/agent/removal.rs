//! Taking our keys away: by the registrar that wrote them, or by their value where it
//! does not know any more. What has become another's stays.

use std::collections::BTreeMap;

use common::claim::KeyStatus;
use common::model::{Key, Revision, format_span};
use common::registrar::RegistrarReport;
use common::store::{DeleteOutcome, Guard, Store};
use tokio::time::Instant;

use super::Agent;
use super::leave::EXTENSION;
use crate::health::State;

/// What stood at a key that was to go.
#[derive(Debug, Clone, Copy)]
enum Found {
    /// Our value; removed at this revision.
    Ours(Revision),
    /// Nothing, at this revision.
    Nothing(Revision),
    /// Another's value, which stays.
    Anothers,
}

impl<S: Store> Agent<S> {
    /// While etcd is away it is tried on until the lease must have ended: if it is
    /// back by then, the drain is as good as any.
    pub(super) async fn remove_or_outlive(
        &mut self,
        keys: &[Key],
        until: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        let end_of_lease = self.report.borrow().lease_until.unwrap_or(until);
        if let Some(removed) = self.remove(keys, until).await {
            return Some(removed);
        }
        if self.parts.signals.abort.is_cancelled() {
            return None;
        }
        let rest = end_of_lease.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return None;
        }
        let text = format!("etcd is away: waiting {} for the lease to run out", format_span(rest));
        tracing::warn!("{text}");
        self.say(&text);
        self.remove(keys, end_of_lease).await
    }

    /// Has the keys removed; their revisions, without those of which another instance
    /// has become the owner. `None`: etcd did not answer in time.
    pub(super) async fn remove(
        &mut self,
        keys: &[Key],
        until: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        self.parts.manager.extend(until.saturating_duration_since(Instant::now()) + EXTENSION);
        let version = self.want(self.marks(keys));
        // What it says of older wishes proves nothing: a write may have been under way.
        let gone = |report: &RegistrarReport| {
            let let_go = |key| {
                let standing = report.keys.get(key);
                matches!(standing, None | Some(KeyStatus::Absent { .. } | KeyStatus::Rival { .. }))
            };
            report.version >= version && keys.iter().all(let_go)
        };
        if !self.until(until, gone).await {
            return None;
        }
        let (mut removed, mut unknown) = (BTreeMap::new(), Vec::new());
        for key in keys {
            match self.report.borrow().keys.get(key) {
                Some(KeyStatus::Absent { removed: Some(at) }) => {
                    removed.insert(key.clone(), *at);
                }
                Some(KeyStatus::Rival { .. }) => {}
                _ => unknown.push(key.clone()),
            }
        }
        // They went with the lease, nobody knows when: asked now, they are gone now.
        removed.extend(self.remove_by_value(&unknown, until).await?);
        Some(removed)
    }

    /// Removes what has our value, whosever lease it is under. `None`: etcd did not
    /// answer in time.
    pub(super) async fn remove_by_value(
        &self,
        keys: &[Key],
        until: Instant,
    ) -> Option<BTreeMap<Key, Revision>> {
        let asked = keys.iter().filter(|key| self.running.contains_key(*key)).count();
        let deleted = self.delete_ours(keys, until).await;
        let all = deleted.len() == asked;
        let gone = |(key, found)| match found {
            Found::Ours(at) | Found::Nothing(at) => Some((key, at)),
            Found::Anothers => None,
        };
        all.then(|| deleted.into_iter().filter_map(gone).collect())
    }

    /// Removes what an earlier life of ours left at the keys of services about which
    /// nothing is decided yet; the revisions of those that were there.
    pub(super) async fn clear_left_over(&mut self) -> BTreeMap<Key, Revision> {
        let starting = self.running.iter().filter(|(_, r)| r.said == State::Starting);
        let keys: Vec<Key> = starting.map(|(key, _)| key.clone()).collect();
        let until = Instant::now() + self.parts.config.process.drain.applied;
        let deleted = self.delete_ours(&keys, until).await.into_iter();
        let was_there = |(key, found)| match found {
            Found::Ours(at) => Some((key, at)),
            Found::Nothing(_) | Found::Anothers => None,
        };
        deleted.filter_map(was_there).collect()
    }

    /// Deletes keys that have our value, whatever their lease. Left out: those about
    /// which etcd did not answer.
    async fn delete_ours(&self, keys: &[Key], until: Instant) -> BTreeMap<Key, Found> {
        let mut deleted = BTreeMap::new();
        for key in keys {
            let Some(running) = self.running.get(key) else { continue };
            let guard = Guard::Value(running.service.value.clone().into_bytes());
            let found = match self.parts.store.delete(key, &guard, until).await {
                Ok(DeleteOutcome::Deleted(revision)) => Found::Ours(revision),
                Ok(DeleteOutcome::Missing(revision)) => Found::Nothing(revision),
                Ok(DeleteOutcome::Taken { .. }) => Found::Anothers,
                Err(_) => continue,
            };
            deleted.insert(key.clone(), found);
        }
        deleted
    }
}
