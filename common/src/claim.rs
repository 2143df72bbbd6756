//! The claim: what etcd has confirmed that we hold, and the one step owed next.
//!
//! Pure: no clock, no I/O; instants come in. Only an answer of the store moves it
//! (the `record_*` methods), so there is one truth. KnownBackends in a lease counts from
//! *before* the request was sent: a slow answer never flatters us.
//!
//! It knows nothing of health. It is told what is wanted, key by key, and leads
//! there from wherever the store turns out to be: lease unknown, key missing, key
//! changed by somebody, store gone backwards.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Entry, Key, Revision, Ttl};
use crate::store::{Guard, KeyState, Lease, Ownership, Renewed, WriteOutcome};

mod terms;

use terms::nothing_to_hold;
pub use terms::{Aim, Delete, KeyStatus, Put, Step, Takeover, Want, Wants, to_hold};

/// How many guarded writes go out at once.
const BATCH: usize = 32;

/// The ledger of all our keys under one lease.
#[derive(Debug)]
pub struct Claim {
    ttl: Ttl,
    lease: Option<Tenure>,
    seen: Revision,
    keys: BTreeMap<Key, Record>,
}

#[derive(Debug, Clone, Copy)]
struct Tenure {
    lease: Lease,
    /// When the last confirmed refresh was sent.
    confirmed: Instant,
}

#[derive(Debug, Default)]
struct Record {
    held: Option<Held>,
    rival: Option<Rival>,
    /// We held it, or know who else does: one with our value is no longer taken for
    /// a remnant of an earlier life of ours.
    settled: bool,
    /// A write of this value went out and no answer came: it may have happened.
    doubt: Option<Vec<u8>>,
    removed: Option<Revision>,
}

#[derive(Debug)]
struct Held {
    value: Vec<u8>,
    mark: Ownership,
    at: Revision,
}

#[derive(Debug)]
struct Rival {
    entry: Entry,
    /// When to look again.
    again: Instant,
}

impl Claim {
    /// A claim on nothing.
    #[must_use]
    pub fn new(ttl: Ttl) -> Self {
        Self { ttl, lease: None, seen: Revision::default(), keys: BTreeMap::new() }
    }

    /// The step owed, given what is wanted. Refreshing goes first: writing many
    /// keys must not cost those that are there.
    #[must_use]
    pub fn next(&self, wants: &Wants, now: Instant) -> Step {
        if let Some(step) = self.refresh_due(wants, now) {
            return step;
        }
        let withdraw = self.to_withdraw(wants);
        if !withdraw.is_empty() {
            return Step::Withdraw(withdraw);
        }
        let puts = self.to_put(wants, now);
        match self.lease {
            None if nothing_to_hold(wants) => Step::Idle,
            None => Step::Grant,
            Some(tenure) if !puts.is_empty() => Step::Put(tenure.lease, puts),
            Some(tenure) => self.wait(wants, tenure),
        }
    }

    fn refresh_due(&self, wants: &Wants, now: Instant) -> Option<Step> {
        let tenure = self.lease?;
        if nothing_to_hold(wants) && self.holds_nothing() {
            return None;
        }
        let due = now >= tenure.confirmed + self.refresh_interval(tenure);
        due.then(|| Step::Renew(tenure.lease, self.held().collect()))
    }

    /// A third of what the server granted, which may be more than asked.
    fn refresh_interval(&self, tenure: Tenure) -> Duration {
        self.ttl.refresh().min(tenure.lease.ttl / 3)
    }

    fn held(&self) -> impl Iterator<Item = (Key, Ownership)> {
        let mark = |(key, record): (&Key, &Record)| Some((key.clone(), record.held.as_ref()?.mark));
        self.keys.iter().filter_map(mark)
    }

    fn holds_nothing(&self) -> bool {
        self.keys.values().all(|record| record.held.is_none())
    }

    fn to_withdraw(&self, wants: &Wants) -> Vec<Delete> {
        let unwanted = self.keys.iter().filter(|(key, _)| !to_hold(wants, key));
        let delete = |(key, record): (&Key, &Record)| {
            let guard = match (&record.held, &record.doubt) {
                (Some(held), _) => Guard::Ours(held.mark),
                (None, Some(value)) => self.guard_of_doubt(value),
                (None, None) => return None,
            };
            Some(Delete { key: key.clone(), guard })
        };
        let remnants = wants.iter().filter_map(|(key, want)| self.remnant(key, want));
        unwanted.filter_map(delete).chain(remnants).take(BATCH).collect()
    }

    /// What an earlier life of ours may have left, until we have looked once.
    fn remnant(&self, key: &Key, want: &Want) -> Option<Delete> {
        let looked = self.keys.get(key).is_some_and(Record::is_known);
        let due = want.aim == Aim::Clear && !looked;
        due.then(|| Delete { key: key.clone(), guard: Guard::Value(want.value.clone()) })
    }

    /// Our lease tells a write of ours for certain; without leases only the value.
    fn guard_of_doubt(&self, value: &[u8]) -> Guard {
        match self.lease {
            Some(Tenure { lease: Lease { id, .. }, .. }) if id != 0 => {
                Guard::Ours(Ownership { lease: id, modified: Revision::default() })
            }
            _ => Guard::Value(value.to_vec()),
        }
    }

    fn to_put(&self, wants: &Wants, now: Instant) -> Vec<Put> {
        let put = |(key, want): (&Key, &Want)| {
            let guard = self.guard(key, want, now)?;
            Some(Put { key: key.clone(), value: want.value.clone(), guard })
        };
        wants.iter().filter(|(_, want)| want.aim == Aim::Hold).filter_map(put).take(BATCH).collect()
    }

    /// Under which condition the key may be written now, if it is to be written.
    fn guard(&self, key: &Key, want: &Want, now: Instant) -> Option<Guard> {
        let Some(record) = self.keys.get(key) else { return Some(Guard::Absent) };
        match (&record.held, &record.rival) {
            (Some(held), _) if held.value == want.value => None,
            (Some(held), _) => Some(Guard::Ours(held.mark)),
            (None, None) => Some(Guard::Absent),
            (None, Some(rival)) => {
                let ours = match want.takeover {
                    Takeover::Any => true,
                    Takeover::SameValue => *rival.entry.value == *want.value,
                };
                if ours && !record.settled {
                    return Some(Guard::Value(rival.entry.value.to_vec()));
                }
                (now >= rival.again).then_some(Guard::Absent)
            }
        }
    }

    fn wait(&self, wants: &Wants, tenure: Tenure) -> Step {
        if nothing_to_hold(wants) {
            return Step::Idle;
        }
        let refresh = tenure.confirmed + self.refresh_interval(tenure);
        let rivals = self.keys.iter().filter(|(key, r)| to_hold(wants, key) && r.held.is_none());
        let look = rivals.filter_map(|(_, record)| Some(record.rival.as_ref()?.again)).min();
        Step::Wait(look.map_or(refresh, |look| look.min(refresh)))
    }

    /// The server granted a lease to a request sent at `sent`.
    pub fn record_grant(&mut self, lease: Lease, sent: Instant) {
        self.lease = Some(Tenure { lease, confirmed: sent });
    }

    /// The server answered a refresh sent at `sent`; `None`: it does not know the
    /// lease.
    pub fn record_renewal(
        &mut self,
        asked: &[(Key, Ownership)],
        answer: Option<Renewed>,
        sent: Instant,
    ) {
        let Some(renewed) = answer else {
            self.lose_lease();
            return;
        };
        self.see(renewed.revision);
        if let Some(tenure) = &mut self.lease {
            tenure.confirmed = sent;
        }
        for ((key, _), state) in asked.iter().zip(renewed.keys) {
            let Some(record) = self.keys.get_mut(key) else { continue };
            match state {
                KeyState::Ours(mark) => record.held.iter_mut().for_each(|held| held.mark = mark),
                KeyState::Missing => record.vacate(),
                KeyState::Foreign(entry) => record.meet(entry, sent),
            }
        }
    }

    /// The server answered a guarded write sent at `sent`; `None`: it does not know
    /// the lease.
    pub fn record_put(&mut self, put: &Put, answer: Option<WriteOutcome>, sent: Instant) {
        let Some(written) = answer else {
            self.lose_lease();
            return;
        };
        let lease = self.lease.map_or(0, |tenure| tenure.lease.id);
        match written {
            WriteOutcome::Done { revision, mark } => {
                self.see(revision);
                let held = Held { value: put.value.clone(), mark, at: revision };
                self.record(&put.key).hold(held);
            }
            WriteOutcome::Held { by: None, revision } => {
                self.see(revision);
                self.record(&put.key).vacate();
            }
            // An earlier try of ours, whose answer was lost.
            WriteOutcome::Held { by: Some(entry), revision }
                if lease != 0 && entry.lease == lease =>
            {
                self.see(revision);
                let mark = Ownership { lease, modified: entry.modified };
                let held = Held { value: entry.value.to_vec(), mark, at: entry.modified };
                self.record(&put.key).hold(held);
            }
            WriteOutcome::Held { by: Some(entry), revision } => {
                self.see(revision);
                self.record(&put.key).meet(entry, sent);
            }
        }
    }

    /// The server answered, at `now`, a guarded delete. Whatever it said, the key is
    /// not ours any more; what is found in its place was not removed.
    pub fn record_withdrawal(&mut self, key: &Key, answer: &WriteOutcome, now: Instant) {
        let (WriteOutcome::Done { revision, .. } | WriteOutcome::Held { revision, .. }) = answer;
        self.see(*revision);
        let record = self.record(key);
        match answer {
            WriteOutcome::Held { by: Some(entry), .. } => record.meet(entry.clone(), now),
            _ => {
                record.vacate();
                record.removed = Some(*revision);
            }
        }
    }

    /// A write went out and no answer came: it may have happened.
    pub fn record_put_unanswered(&mut self, put: &Put) {
        let record = self.record(&put.key);
        record.settled = false;
        record.doubt = Some(put.value.clone());
    }

    /// A refresh went out and no answer came. A v2 refresh moves the index by which
    /// we know our key; what has our value then may well be ours.
    pub fn record_renewal_unanswered(&mut self, asked: &[(Key, Ownership)]) {
        for (key, mark) in asked {
            if mark.lease == 0 {
                self.record(key).settled = false;
            }
        }
    }

    /// The lease was ended by us.
    pub fn record_revoked(&mut self) {
        self.lose_lease();
    }

    fn record(&mut self, key: &Key) -> &mut Record {
        self.keys.entry(key.clone()).or_default()
    }

    /// All keys went with the lease. What is found in their place may be what a
    /// restored store still has of us.
    fn lose_lease(&mut self) {
        self.lease = None;
        for record in self.keys.values_mut() {
            *record = Record { removed: record.removed, ..Record::default() };
        }
    }

    /// A revision lower than before: the store was restored, and a key of ours in
    /// it may bear an old lease.
    fn see(&mut self, revision: Revision) {
        if revision < self.seen {
            self.keys.values_mut().for_each(|record| record.settled = false);
        }
        self.seen = revision;
    }

    /// What is known of `key`, given that it is wanted or not.
    #[must_use]
    pub fn standing(&self, key: &Key, wanted: bool) -> KeyStatus {
        match self.keys.get(key) {
            Some(Record { held: Some(held), .. }) => {
                KeyStatus::Held { at: held.at, value: held.value.clone() }
            }
            Some(Record { rival: Some(rival), settled, .. }) if wanted || *settled => {
                KeyStatus::Rival { value: rival.entry.value.to_vec() }
            }
            // It may be there: a write of ours was not answered, nor is its removal.
            Some(Record { doubt: Some(_), .. }) => KeyStatus::Pending,
            _ if wanted => KeyStatus::Pending,
            Some(record) => KeyStatus::Absent { removed: record.removed },
            None => KeyStatus::Absent { removed: None },
        }
    }

    /// Every key that was ever wanted.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    /// Until when the store keeps our keys even if it hears nothing more; `None`
    /// without a lease.
    #[must_use]
    pub fn believed_until(&self) -> Option<Instant> {
        self.lease.map(|tenure| tenure.confirmed + tenure.lease.ttl.min(self.ttl.span()))
    }

    /// The lease, to be revoked at the end.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.lease.map(|tenure| tenure.lease)
    }
}

impl Record {
    /// Whether we ever heard of the key since it was last lost from sight.
    fn is_known(&self) -> bool {
        let met = self.rival.is_some() || self.settled;
        met || self.held.is_some() || self.doubt.is_some() || self.removed.is_some()
    }

    fn hold(&mut self, held: Held) {
        *self = Self { held: Some(held), settled: true, ..Self::default() };
    }

    fn vacate(&mut self) {
        (self.held, self.rival, self.doubt) = (None, None, None);
    }

    fn meet(&mut self, entry: Entry, now: Instant) {
        let known = self.rival.as_ref().is_some_and(|rival| rival.entry.value == entry.value);
        if known {
            self.settled = true;
        }
        self.vacate();
        self.rival = Some(Rival { entry, again: now + LOOK_AGAIN });
    }
}

/// How often to look whether a rival is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
