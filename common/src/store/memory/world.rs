//! The content of the store in memory. Pure: no connection, no waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Change, Entry, Key, Revision, Snapshot, Tree};
use crate::store::{Guard, StoreError};

/// Entries, history and leases.
#[derive(Debug)]
pub(super) struct World {
    pub(super) revision: Revision,
    pub(super) cluster: u64,
    pub(super) entries: BTreeMap<Arc<str>, Entry>,
    /// All changes after `compacted`, in order.
    history: Vec<Change>,
    pub(super) compacted: Revision,
    leases: BTreeMap<i64, LeaseTime>,
    next_lease: i64,
    /// Grows whenever running watches have to end.
    pub(super) cuts: u64,
    pub(super) announcements: u64,
    pub(super) writes: u64,
    pub(super) events: u64,
    pub(super) calls: u64,
}

#[derive(Debug, Clone, Copy)]
struct LeaseTime {
    ttl: Duration,
    left: Duration,
}

/// A backup of the store.
#[derive(Debug, Clone)]
pub struct Saved {
    revision: Revision,
    entries: BTreeMap<Arc<str>, Entry>,
    leases: BTreeMap<i64, LeaseTime>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            // An empty etcd is at revision 1.
            revision: Revision(1),
            cluster: 1,
            entries: BTreeMap::new(),
            history: Vec::new(),
            compacted: Revision(0),
            leases: BTreeMap::new(),
            next_lease: 1,
            cuts: 0,
            announcements: 0,
            writes: 0,
            events: 0,
            calls: 0,
        }
    }
}

impl World {
    pub(super) fn read(&self, trees: &[Tree]) -> Snapshot {
        let asked = |key: &str| trees.iter().any(|tree| tree.covers(key));
        let entries = self.entries.iter().filter(|(key, _)| asked(key));
        let entries = entries.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        Snapshot { revision: self.revision, cluster: self.cluster, entries }
    }

    pub(super) fn since(&self, seen: Revision, trees: &[Tree]) -> Result<Vec<Change>, StoreError> {
        if seen < self.compacted {
            return Err(StoreError::Compacted(seen));
        }
        let covers = |change: &Change| trees.iter().any(|tree| tree.covers(change.key()));
        let new = self.history.iter().filter(|change| change.revision() > seen && covers(change));
        Ok(new.cloned().collect())
    }

    pub(super) fn write(&mut self, key: &str, value: Vec<u8>, lease: i64) -> Revision {
        self.revision.0 += 1;
        self.writes += 1;
        let modified = self.revision;
        let created = self.entries.get(key).map_or(modified, |entry| entry.created);
        let value = value.as_slice().into();
        let entry = Entry { key: key.into(), value, created, modified, lease, ttl: None };
        self.entries.insert(Arc::clone(&entry.key), entry.clone());
        self.history.push(Change::Put(entry));
        modified
    }

    /// Deletes keys in one transaction.
    pub(super) fn erase(&mut self, keys: &[Arc<str>]) -> Revision {
        let mut gone = Vec::new();
        for key in keys {
            gone.extend(self.entries.remove(key).map(|entry| entry.key));
        }
        if !gone.is_empty() {
            self.revision.0 += 1;
            self.writes += gone.len() as u64;
            let at = self.revision;
            self.history.extend(gone.into_iter().map(|key| Change::Deleted { key, at }));
        }
        self.revision
    }

    pub(super) fn allows(&self, key: &Key, guard: &Guard) -> bool {
        let entry = self.entries.get(key.as_str());
        match guard {
            Guard::Absent => entry.is_none(),
            Guard::Value(value) => entry.is_some_and(|entry| *entry.value == **value),
            Guard::Ours(ours) => entry.is_some_and(|entry| entry.lease == ours.lease),
        }
    }

    pub(super) fn grant(&mut self, ttl: Duration) -> i64 {
        let id = self.next_lease;
        self.next_lease += 1;
        self.leases.insert(id, LeaseTime { ttl, left: ttl });
        id
    }

    pub(super) fn knows(&self, lease: i64) -> bool {
        self.leases.contains_key(&lease)
    }

    pub(super) fn renew(&mut self, lease: i64) -> Option<Duration> {
        let term = self.leases.get_mut(&lease)?;
        term.left = term.ttl;
        Some(term.ttl)
    }

    pub(super) fn time_left(&self, lease: i64) -> Duration {
        self.leases.get(&lease).map_or(Duration::ZERO, |term| term.left)
    }

    pub(super) fn revoke(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let bound: Vec<_> = self
            .entries
            .values()
            .filter(|e| e.lease == lease && lease != 0)
            .map(|e| e.key.clone())
            .collect();
        self.erase(&bound);
    }

    pub(super) fn advance(&mut self, time: Duration) {
        for term in self.leases.values_mut() {
            term.left = term.left.saturating_sub(time);
        }
        let ended: Vec<_> =
            self.leases.iter().filter(|(_, t)| t.left.is_zero()).map(|(id, _)| *id).collect();
        ended.into_iter().for_each(|lease| self.revoke(lease));
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    pub(super) fn save(&self) -> Saved {
        let Self { revision, entries, leases, .. } = self;
        Saved { revision: *revision, entries: entries.clone(), leases: leases.clone() }
    }

    pub(super) fn restore(&mut self, saved: &Saved) {
        self.revision = saved.revision;
        self.entries.clone_from(&saved.entries);
        self.leases.clone_from(&saved.leases);
        self.compacted = saved.revision;
        self.history.clear();
        self.cuts += 1;
    }

    pub(super) fn wipe(&mut self) {
        let (cluster, next_lease) = (self.cluster + 1, self.next_lease);
        let nothing =
            Saved { revision: Revision(1), entries: BTreeMap::new(), leases: BTreeMap::new() };
        self.restore(&nothing);
        (self.cluster, self.next_lease, self.compacted) = (cluster, next_lease, Revision(0));
    }
}
