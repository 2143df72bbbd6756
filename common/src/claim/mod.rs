//! The claim: which keys etcd has confirmed to be ours, and the next step towards what is
//! wanted.
//!
//! Pure: no clock, no I/O; instants come in. Only an answer of the store changes it (the
//! `record_*` methods), so there is one truth. The lifetime of a lease is counted from
//! *before* the request was sent: a slow answer never makes a key look alive for too long.
//!
//! It knows nothing of health. Whatever the store turns out to be (lease unknown, key
//! missing, key changed by another process, revision regressed), the steps lead from
//! there to what is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Entry, Key, Revision, Ttl};
use crate::store::{DeleteOutcome, Guard, KeyState, Lease, Ownership, PutOutcome, RefreshOutcome};

mod plan;
mod record;

use plan::nothing_is_wanted;
pub use plan::{
    Aim, Delete, KeyStatus, Marker, Put, Step, Takeover, Want, Wants, instance_of, is_wanted,
};
use record::{KeyRecord, OwnedKey};

/// How many guarded writes are sent at once: enough to fill a round trip, few enough that a
/// refresh which falls due meanwhile is not late.
const BATCH: usize = 32;

/// All our keys under one lease.
#[derive(Debug)]
pub struct Claim {
    ttl: Ttl,
    lease: Option<CurrentLease>,
    highest_revision: Revision,
    keys: BTreeMap<Key, KeyRecord>,
}

#[derive(Debug, Clone, Copy)]
struct CurrentLease {
    lease: Lease,
    /// When the last refresh that was confirmed had been sent.
    refreshed: Instant,
}

impl Claim {
    /// A claim without a lease or a key.
    pub fn new(ttl: Ttl) -> Self {
        Self { ttl, lease: None, highest_revision: Revision::default(), keys: BTreeMap::new() }
    }

    /// The next step towards `wants`. Refreshing goes first: writing many keys must not cost
    /// those that exist.
    pub fn next(&self, wants: &Wants, now: Instant) -> Step {
        if let Some(step) = self.refresh_due(wants, now) {
            return step;
        }
        let deletes = self.to_delete(wants);
        if !deletes.is_empty() {
            return Step::Delete(deletes);
        }
        let puts = self.to_put(wants, now);
        match self.lease {
            None if nothing_is_wanted(wants) => Step::Idle,
            None => Step::Grant,
            Some(current) if !puts.is_empty() => Step::Put(current.lease, puts),
            Some(current) => self.wait(wants, current),
        }
    }

    fn refresh_due(&self, wants: &Wants, now: Instant) -> Option<Step> {
        let current = self.lease?;
        if nothing_is_wanted(wants) && self.owns_nothing() {
            return None;
        }
        let due = now >= current.refreshed + self.refresh_interval(current);
        due.then(|| Step::Refresh(current.lease, self.owned_keys().collect()))
    }

    /// A third of what the server granted, which may be more than asked.
    fn refresh_interval(&self, current: CurrentLease) -> Duration {
        self.ttl.refresh().min(current.lease.ttl / 3)
    }

    fn owned_keys(&self) -> impl Iterator<Item = (Key, Ownership)> {
        let owned =
            |(key, record): (&Key, &KeyRecord)| Some((key.clone(), record.owned()?.ownership));
        self.keys.iter().filter_map(owned)
    }

    fn owns_nothing(&self) -> bool {
        self.keys.values().all(|record| record.owned().is_none())
    }

    fn to_delete(&self, wants: &Wants) -> Vec<Delete> {
        let unwanted = self.keys.iter().filter(|(key, _)| !is_wanted(wants, key));
        let delete = |(key, record): (&Key, &KeyRecord)| {
            let guard = record.guard_of_delete(self.lease())?;
            Some(Delete { key: key.clone(), guard, marker: wants.get(key).and_then(marker) })
        };
        let left_over = wants.iter().filter_map(|(key, want)| self.left_over(key, want));
        unwanted.filter_map(delete).chain(left_over).take(BATCH).collect()
    }

    /// What an earlier instance may have left, until the key was looked at once.
    fn left_over(&self, key: &Key, want: &Want) -> Option<Delete> {
        let known = self.keys.get(key).is_some_and(KeyRecord::is_known);
        let due = want.aim != Aim::Present && !known;
        let guard = Guard::Value(want.value.clone());
        due.then(|| Delete { key: key.clone(), guard, marker: marker(want) })
    }

    fn to_put(&self, wants: &Wants, now: Instant) -> Vec<Put> {
        let put = |(key, want): (&Key, &Want)| {
            let guard = match self.keys.get(key) {
                Some(record) => record.guard_of_put(want, now)?,
                None => Guard::Absent,
            };
            Some(Put { key: key.clone(), value: want.value.clone(), guard })
        };
        let present = wants.iter().filter(|(_, want)| want.aim == Aim::Present);
        present.filter_map(put).take(BATCH).collect()
    }

    fn wait(&self, wants: &Wants, current: CurrentLease) -> Step {
        if nothing_is_wanted(wants) {
            return Step::Idle;
        }
        let refresh = current.refreshed + self.refresh_interval(current);
        let wanted = self.keys.iter().filter(|(key, _)| is_wanted(wants, key));
        let look = wanted.filter_map(|(_, record)| Some(record.rival()?.look_again)).min();
        Step::Wait(look.map_or(refresh, |look| look.min(refresh)))
    }

    /// The server granted a lease to a request sent at `sent`.
    pub fn record_grant(&mut self, lease: Lease, sent: Instant) {
        self.lease = Some(CurrentLease { lease, refreshed: sent });
    }

    /// The server keeps the lease of an earlier instance alive, by a request sent at `sent`:
    /// these keys have their values and are bound to it.
    pub fn record_adoption(&mut self, lease: Lease, entries: Vec<(Key, Entry)>, sent: Instant) {
        self.record_grant(lease, sent);
        for (key, entry) in entries {
            let ownership = Ownership { lease: lease.id, modified: entry.modified };
            let (value, at) = (entry.value.to_vec(), entry.modified);
            self.record(&key).own(OwnedKey { value, ownership, at });
        }
    }

    /// The server answered a refresh of the keys `asked`, sent at `sent`.
    pub fn record_refresh(
        &mut self,
        asked: &[(Key, Ownership)],
        outcome: RefreshOutcome,
        sent: Instant,
    ) {
        let RefreshOutcome::Refreshed { revision, keys } = outcome else {
            self.lose_lease();
            return;
        };
        self.observe_revision(revision);
        if let Some(current) = &mut self.lease {
            current.refreshed = sent;
        }
        for ((key, _), state) in asked.iter().zip(keys) {
            let Some(record) = self.keys.get_mut(key) else { continue };
            match state {
                KeyState::Ours(ownership) => record.refresh(ownership),
                KeyState::Missing => record.clear(),
                KeyState::Foreign(entry) => record.meet_rival(entry, sent),
            }
        }
    }

    /// The server answered a guarded write sent at `sent`.
    pub fn record_put(&mut self, put: &Put, outcome: PutOutcome, sent: Instant) {
        let lease = self.lease.map_or(0, |current| current.lease.id);
        match outcome {
            PutOutcome::LeaseLost => self.lose_lease(),
            PutOutcome::Written(ownership) => {
                let at = ownership.modified;
                self.observe_revision(at);
                self.record(&put.key).own(OwnedKey { value: put.value.clone(), ownership, at });
            }
            PutOutcome::Missing { revision } => {
                self.observe_revision(revision);
                self.record(&put.key).clear();
            }
            // An earlier write of ours, whose answer was lost.
            PutOutcome::Taken { by, revision } if lease != 0 && by.lease == lease => {
                self.observe_revision(revision);
                let ownership = Ownership { lease, modified: by.modified };
                let owned = OwnedKey { value: by.value.to_vec(), ownership, at: by.modified };
                self.record(&put.key).own(owned);
            }
            PutOutcome::Taken { by, revision } => {
                self.observe_revision(revision);
                self.record(&put.key).meet_rival(by, sent);
            }
        }
    }

    /// The server answered, at `now`, a guarded delete. In any case the key is not ours any
    /// more; an entry that was found in its place was not removed.
    pub fn record_delete(&mut self, key: &Key, outcome: DeleteOutcome, now: Instant) {
        match outcome {
            DeleteOutcome::Deleted(revision) | DeleteOutcome::Missing(revision) => {
                self.observe_revision(revision);
                self.record(key).remove(revision);
            }
            DeleteOutcome::Taken { by, revision } => {
                self.observe_revision(revision);
                self.record(key).meet_rival(by, now);
            }
        }
    }

    /// A write was sent and not answered: it may have happened.
    pub fn record_put_unanswered(&mut self, put: &Put) {
        self.record(&put.key).note_unanswered(put.value.clone());
    }

    /// A refresh was sent and not answered. With v2 it moves the index by which we recognise
    /// our key; a key with our value may then be ours.
    pub fn record_refresh_unanswered(&mut self, asked: &[(Key, Ownership)]) {
        for (key, ownership) in asked {
            if ownership.lease == 0 {
                self.record(key).unsettle();
            }
        }
    }

    fn record(&mut self, key: &Key) -> &mut KeyRecord {
        self.keys.entry(key.clone()).or_default()
    }

    /// All keys went with the lease. A key that exists all the same may be one of ours that a
    /// restored store still has.
    fn lose_lease(&mut self) {
        self.lease = None;
        self.keys.values_mut().for_each(KeyRecord::lose_lease);
    }

    /// After a fall of the revision the store was restored, and a key of ours in it may be
    /// bound to an old lease.
    fn observe_revision(&mut self, revision: Revision) {
        if revision < self.highest_revision {
            self.keys.values_mut().for_each(KeyRecord::unsettle);
        }
        self.highest_revision = revision;
    }

    /// What is known of `key`, given whether it is wanted.
    pub fn status(&self, key: &Key, wanted: bool) -> KeyStatus {
        let unknown = KeyRecord::default();
        self.keys.get(key).unwrap_or(&unknown).status(wanted)
    }

    /// The entry that another process has at `key`, if one was met.
    pub fn rival(&self, key: &Key) -> Option<&Entry> {
        Some(&self.keys.get(key)?.rival()?.entry)
    }

    /// Every key that was ever wanted.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    /// Until when the store keeps our keys if it is not asked again; `None` without a lease.
    pub fn lease_until(&self) -> Option<Instant> {
        self.lease.map(|current| current.refreshed + current.lease.ttl.min(self.ttl.span()))
    }

    /// The lease, to be revoked at the end.
    pub fn lease(&self) -> Option<Lease> {
        self.lease.map(|current| current.lease)
    }
}

fn marker(want: &Want) -> Option<Marker> {
    match &want.aim {
        Aim::Left(marker) => Some(marker.clone()),
        Aim::Present | Aim::Absent => None,
    }
}

#[cfg(test)]
mod tests;
