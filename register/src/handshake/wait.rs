//! One wait for all load balancers, after a key was written or removed.
//!
//! Pure: snapshots of the member and acknowledgement keys come in, progress comes out.
//! Every wait is bounded, and every load balancer that did not confirm is named.
//!
//! When a load balancer joined does not matter: one that lost its lease for a while joins late and
//! still routes as before.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use common::handshake::{Ack, Bookkeeping, Member};
use common::model::{Key, Revision, Snapshot};
use tokio::time::Instant;

use super::result::HandshakeResult;
use super::state::LoadBalancerState;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goal {
    /// New requests are routed by a set that has the key.
    Served,
    /// No new request is routed to the key, and none is under way.
    Drained,
}

/// How long each wait may last, and how many load balancers there must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WaitBounds {
    /// For `applied` from every member, from the change on.
    pub applied: Duration,
    /// For `quiesced` from every member, after `applied` from all.
    pub quiesced: Duration,
    /// How much longer to wait for a member whose lease ended: its proxy may still route.
    pub lost: Duration,
    /// At least this long in any case, for readers who do not acknowledge.
    pub least: Duration,
    /// With fewer members the result is unconfirmed.
    pub min_lbs: usize,
}

/// One wait for all load balancers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LoadBalancerWait {
    key: Key,
    change: Revision,
    goal: Goal,
    bounds: WaitBounds,
    began: Instant,
    all_applied: Option<Instant>,
    /// Why members could not be read so far; `None` once they were.
    unread: Option<String>,
    load_balancers: BTreeMap<String, LoadBalancerState>,
}

/// How far a wait is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitProgress {
    /// Not over; look again at a new snapshot, or at this instant.
    Waiting {
        /// When a bound is next reached.
        until: Instant,
    },
    /// Over.
    Over(HandshakeResult),
}

/// A load balancer that is still waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MissingLoadBalancer {
    /// Its name.
    pub lb: String,
    /// What it has done, for an operator.
    pub why: String,
}

impl fmt::Display for MissingLoadBalancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.lb, self.why)
    }
}

impl LoadBalancerWait {
    /// Begins to wait for what happened to `key` at revision `change`.
    pub fn new(key: Key, change: Revision, goal: Goal, bounds: WaitBounds, now: Instant) -> Self {
        Self {
            key,
            change,
            goal,
            bounds,
            began: now,
            all_applied: None,
            unread: Some("etcd has not answered".to_owned()),
            load_balancers: BTreeMap::new(),
        }
    }

    /// Members could not be read as yet, for this reason.
    pub fn cannot_read(&mut self, why: &str) {
        if let Some(unread) = &mut self.unread {
            why.clone_into(unread);
        }
    }

    /// Takes in a snapshot of members and acknowledgements.
    pub fn observe(&mut self, snapshot: &Snapshot, bookkeeping: &Bookkeeping, now: Instant) {
        self.unread = None;
        let mut present = BTreeMap::new();
        for entry in snapshot.entries.values() {
            let Some(lb) = bookkeeping.member_name(&entry.key) else { continue };
            let member = serde_json::from_slice(&entry.value).ok();
            let known = self.load_balancers.contains_key(lb);
            let state = match &member {
                None => Some(LoadBalancerState::Unreadable),
                Some(member) => self.state_of(lb, member, known, snapshot, bookkeeping),
            };
            present.extend(state.map(|state| (lb.to_owned(), state)));
        }
        for (lb, state) in &mut self.load_balancers {
            match (present.remove(lb), &state) {
                (Some(new), _) => *state = new,
                (None, LoadBalancerState::Gone | LoadBalancerState::Lost(_)) => {}
                (None, _) => *state = LoadBalancerState::Lost(now),
            }
        }
        self.load_balancers.extend(present);
        if self.all_applied.is_none()
            && !self.load_balancers.values().any(LoadBalancerState::may_route_as_before)
        {
            self.all_applied = Some(now);
        }
    }

    /// The state of one member; `None`: it has nothing to do with this key.
    fn state_of(
        &self,
        lb: &str,
        member: &Member,
        known: bool,
        snapshot: &Snapshot,
        bookkeeping: &Bookkeeping,
    ) -> Option<LoadBalancerState> {
        let resources: Vec<&str> = member.consumers_of(&self.key).collect();
        // A load balancer that left, or never rendered this key, is not waited for. One that stops
        // rendering it withdraws the resource only when nothing routes by it any more.
        if resources.is_empty() || member.left {
            return known.then_some(LoadBalancerState::Gone);
        }
        let acks = resources.iter().map(|resource| {
            let key = bookkeeping.ack(resource, lb).ok()?;
            let entry = snapshot.entries.get(key.as_str())?;
            let ack = serde_json::from_slice::<Ack>(&entry.value).ok()?;
            // Each write has a later revision than what it acknowledges. One that has not is from
            // before a restore, and was written late.
            (ack.applied < entry.modified).then_some(ack)
        });
        // The resource that is furthest behind counts for the member.
        acks.map(|ack| self.judge(member, ack)).min_by_key(LoadBalancerState::rank)
    }

    fn judge(&self, member: &Member, ack: Option<Ack>) -> LoadBalancerState {
        use LoadBalancerState::{Applied, Failing, Quiesced, Rejected, Retaining, Silent, TooFew};
        let Some(ack) = ack.filter(|ack| ack.instance_id == member.instance_id) else {
            return Silent;
        };
        let retained = ack.retained.iter().any(|key| key == self.key.as_str());
        if ack.applied >= self.change {
            return match self.goal {
                Goal::Drained if retained => Retaining,
                _ if ack.quiesced >= self.change => Quiesced { assumed: ack.assumed },
                _ => Applied { assumed: ack.assumed },
            };
        }
        match ack.rejected.filter(|rejection| rejection.revision >= self.change) {
            Some(rejection) if rejection.too_few_backends => TooFew(rejection.reason),
            Some(rejection) => Rejected(rejection.reason),
            None => ack.trouble.map_or(Silent, Failing),
        }
    }

    /// How far the wait is. Never `Waiting` past its bounds.
    pub fn progress(&self, now: Instant) -> WaitProgress {
        let bounds = self.load_balancers.values().filter_map(|state| self.bound_of(state));
        let least = Some(self.began + self.bounds.least);
        // No member yet may mean that they are just coming back, or that etcd could not
        // be asked.
        let few = self.load_balancers.len() < self.bounds.min_lbs || self.unread.is_some();
        let few = few.then(|| self.began + self.bounds.applied);
        match bounds.chain(least).chain(few).filter(|bound| *bound > now).min() {
            Some(until) => WaitProgress::Waiting { until },
            None => WaitProgress::Over(self.result()),
        }
    }

    /// Until when this load balancer is waited for; `None`: nothing more can come from it.
    /// No bound lies past the deadline of the whole, however late members appear.
    fn bound_of(&self, state: &LoadBalancerState) -> Option<Instant> {
        use LoadBalancerState::{
            Applied, CannotAcknowledge, Failing, Gone, Lost, Quiesced, Rejected, Retaining, Silent,
            TooFew, Unreadable,
        };
        let bound = match (state, self.goal) {
            (Silent | CannotAcknowledge | Failing(_) | Retaining | TooFew(_) | Unreadable, _) => {
                self.began + self.bounds.applied
            }
            (Applied { .. }, Goal::Drained) => {
                let applied = self.all_applied.unwrap_or(self.began + self.bounds.applied);
                applied + self.bounds.quiesced
            }
            (Lost(at), _) => *at + self.bounds.lost,
            (Applied { .. }, Goal::Served) | (Quiesced { .. } | Rejected(_) | Gone, _) => {
                return None;
            }
        };
        Some(bound.min(self.deadline()))
    }

    fn result(&self) -> HandshakeResult {
        use LoadBalancerState::{Applied, Gone, Quiesced};
        let mut result = HandshakeResult::default();
        for (lb, state) in &self.load_balancers {
            match (state, self.goal) {
                (Quiesced { assumed: true }, _) | (Applied { assumed: true }, Goal::Served) => {
                    result.assumed.push(lb.clone());
                }
                (Quiesced { .. } | Gone, _) | (Applied { .. }, Goal::Served) => {
                    result.confirmed.push(lb.clone());
                }
                (other, _) => result.unconfirmed.push((lb.clone(), other.clone())),
            }
        }
        let (there, wanted) = (self.load_balancers.len(), self.bounds.min_lbs);
        if there < wanted {
            let text = format!("{there} of at least {wanted} load balancers are registered");
            result.unknown.push(("--min-lbs", text));
        }
        if let Some(why) = &self.unread {
            let text = format!("cannot list the load balancers: {why}");
            result.unknown.push(("etcd", text));
        }
        result
    }

    /// The load balancers that the wait is for.
    pub fn missing(&self) -> impl Iterator<Item = MissingLoadBalancer> {
        let open = self.load_balancers.iter().filter(|(_, state)| self.bound_of(state).is_some());
        open.map(|(lb, state)| MissingLoadBalancer { lb: lb.clone(), why: state.to_string() })
    }

    /// The latest instant at which this wait can end.
    pub fn deadline(&self) -> Instant {
        let most = self.bounds.applied + self.bounds.quiesced + self.bounds.lost;
        self.began + most.max(self.bounds.least)
    }

    /// The key that was written or removed.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether the snapshot has what the change had undone: a key from before its
    /// removal, back out of a backup. A key written after it is a successor's.
    pub fn is_undone(&self, snapshot: &Snapshot) -> bool {
        self.goal == Goal::Drained
            && snapshot.entries.get(self.key.as_str()).is_some_and(|e| e.created < self.change)
    }

    pub fn change(&self) -> Revision {
        self.change
    }
}

impl Default for WaitBounds {
    fn default() -> Self {
        Self {
            applied: Duration::from_secs(10),
            quiesced: Duration::from_secs(30),
            lost: Duration::from_secs(5),
            least: Duration::ZERO,
            min_lbs: 0,
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
