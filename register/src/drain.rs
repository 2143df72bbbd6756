//! Have all load balancers let go of (or taken up) this backend?
//!
//! Pure: pictures of the member and acknowledgement keys come in, an answer comes
//! out. Every wait is bounded, and whoever did not confirm is named. The protocol
//! and its reasons are in `docs/handshake.md`.
//!
//! Nobody is waited for because of when they joined: a load balancer that lost its
//! lease for a while joins late and still routes as before.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use common::handshake::{Ack, Bookkeeping, Member};
use common::model::{Key, Revision, Snapshot, format_span};
use tokio::time::Instant;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Goal {
    /// The key is in what new requests are routed by.
    Joined,
    /// The key is out of it, and no worker is left that still has it.
    Left,
}

/// How long each wait may last, and how many load balancers must be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// For `applied` from every member, from the change on.
    pub applied: Duration,
    /// For `quiesced` from every member, after `applied` from all.
    pub quiesced: Duration,
    /// How much longer to wait for a member that vanished without a word: its nginx
    /// may still route.
    pub lost: Duration,
    /// At least this long in any case, for readers who do not acknowledge.
    pub least: Duration,
    /// With fewer members the result is unconfirmed.
    pub min_lbs: usize,
}

/// What a member has said about our change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Nothing yet.
    Silent,
    /// New requests are routed by the change.
    Applied,
    /// And no older worker is left.
    Quiesced,
    /// It routes on to this backend, because it doubts the loss; it looks again.
    Holding,
    /// A definite no.
    Refused(String),
    /// It left in order, or renders this key no more: it routes nothing by it.
    Gone,
    /// Its lease ran out at this instant; its nginx may still route.
    Lost(Instant),
}

/// One wait for all load balancers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wait {
    key: Key,
    change: Revision,
    goal: Goal,
    bounds: Bounds,
    began: Instant,
    all_applied: Option<Instant>,
    looked: bool,
    peers: BTreeMap<String, Peer>,
}

/// Where a wait stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Not there; look again at a new picture, or at this instant.
    Waiting {
        /// When a bound is next reached.
        until: Instant,
    },
    /// Over.
    Over(Verdict),
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Every load balancer confirmed.
    pub confirmed: bool,
    /// Who confirmed.
    pub by: Vec<String>,
    /// Who did not, and what is known of them.
    pub not_by: Vec<(String, String)>,
}

impl Wait {
    /// Begins to wait for what happened to `key` at revision `change`.
    #[must_use]
    pub fn new(key: Key, change: Revision, goal: Goal, bounds: Bounds, now: Instant) -> Self {
        Self {
            key,
            change,
            goal,
            bounds,
            began: now,
            all_applied: None,
            looked: false,
            peers: BTreeMap::new(),
        }
    }

    /// Takes in a picture of members and acknowledgements.
    pub fn observe(&mut self, picture: &Snapshot, bookkeeping: &Bookkeeping, now: Instant) {
        self.looked = true;
        let mut here = BTreeMap::new();
        for entry in picture.entries.values() {
            let Some(lb) = bookkeeping.member_name(&entry.key) else { continue };
            let Ok(member) = serde_json::from_slice::<Member>(&entry.value) else { continue };
            let resources: Vec<&str> = member.consumers_of(&self.key).collect();
            // Who had left before, or never rendered this key, is nobody to wait for.
            // Who stops rendering it does so when nothing routes by it any more.
            if resources.is_empty() || member.left {
                if self.peers.contains_key(lb) {
                    here.insert(lb.to_owned(), Peer::Gone);
                }
                continue;
            }
            let acks = resources.iter().map(|resource| {
                let key = bookkeeping.ack(resource, lb).ok()?;
                let ack = picture.entries.get(key.as_str())?;
                serde_json::from_slice::<Ack>(&ack.value).ok()
            });
            let heard = acks.map(|ack| self.hear(&member, ack)).min_by_key(rank);
            here.insert(lb.to_owned(), heard.unwrap_or(Peer::Silent));
        }
        for (lb, peer) in &mut self.peers {
            match (here.remove(lb), &peer) {
                (Some(heard), _) => *peer = heard,
                (None, Peer::Gone | Peer::Lost(_)) => {}
                (None, _) => *peer = Peer::Lost(now),
            }
        }
        self.peers.extend(here);
        if self.all_applied.is_none()
            && self.peers.values().all(|p| !matches!(p, Peer::Silent | Peer::Holding))
        {
            self.all_applied = Some(now);
        }
    }

    fn hear(&self, member: &Member, ack: Option<Ack>) -> Peer {
        let Some(ack) = ack.filter(|ack| ack.instance_id == member.instance_id) else {
            return Peer::Silent;
        };
        if ack.applied >= self.change {
            return if ack.retained.iter().any(|key| key == self.key.as_str())
                && self.goal == Goal::Left
            {
                Peer::Holding
            } else if ack.quiesced >= self.change {
                Peer::Quiesced
            } else {
                Peer::Applied
            };
        }
        match ack.rejected {
            Some(refusal) if refusal.revision >= self.change => Peer::Refused(refusal.reason),
            _ => Peer::Silent,
        }
    }

    /// Where the wait stands. Never `Waiting` past its bounds.
    #[must_use]
    pub fn progress(&self, now: Instant) -> Progress {
        let open = self.peers.values().filter_map(|peer| self.bound_of(peer)).filter(|b| *b > now);
        let least = Some(self.began + self.bounds.least).filter(|l| *l > now);
        // No member yet may mean that they are just coming back, or that etcd could
        // not be asked.
        let few = (self.peers.len() < self.bounds.min_lbs || !self.looked)
            .then(|| self.began + self.bounds.applied)
            .filter(|b| *b > now);
        match open.chain(least).chain(few).min() {
            Some(until) => Progress::Waiting { until },
            None => Progress::Over(self.verdict()),
        }
    }

    /// Until when this peer is worth waiting for; `None` when it has said its last.
    /// No bound lies past the deadline of the whole, however late members appear.
    fn bound_of(&self, peer: &Peer) -> Option<Instant> {
        let bound = match (peer, self.goal) {
            (Peer::Silent | Peer::Holding, _) => self.began + self.bounds.applied,
            (Peer::Applied, Goal::Left) => {
                let applied = self.all_applied.unwrap_or(self.began + self.bounds.applied);
                applied + self.bounds.quiesced
            }
            (Peer::Lost(at), _) => *at + self.bounds.lost,
            (Peer::Applied | Peer::Quiesced | Peer::Refused(_) | Peer::Gone, _) => return None,
        };
        Some(bound.min(self.deadline()))
    }

    fn verdict(&self) -> Verdict {
        let (mut by, mut not_by) = (Vec::new(), Vec::new());
        for (lb, peer) in &self.peers {
            match (peer, self.goal) {
                (Peer::Quiesced | Peer::Gone, _) | (Peer::Applied, Goal::Joined) => {
                    by.push(lb.clone())
                }
                (other, _) => not_by.push((lb.clone(), other.to_string())),
            }
        }
        let enough = self.peers.len() >= self.bounds.min_lbs;
        if !enough {
            let text =
                format!("{} of at least {} are there", self.peers.len(), self.bounds.min_lbs);
            not_by.push(("--min-lbs".into(), text));
        }
        if !self.looked {
            not_by.push(("etcd".into(), "could not be asked who is there".into()));
        }
        Verdict { confirmed: not_by.is_empty(), by, not_by }
    }

    /// Whom the wait is for, and why.
    pub fn missing(&self) -> impl Iterator<Item = String> {
        let open = self.peers.iter().filter(|(_, peer)| self.bound_of(peer).is_some());
        open.map(|(lb, peer)| format!("{lb} ({peer})"))
    }

    /// The latest instant at which this wait can end.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let most = self.bounds.applied + self.bounds.quiesced + self.bounds.lost;
        self.began + most.max(self.bounds.least)
    }

    /// The key that was written or removed.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Whether the picture shows what the change had undone: a key from before its
    /// removal, back out of a backup. A key written after it is a successor's.
    #[must_use]
    pub fn is_undone(&self, picture: &Snapshot) -> bool {
        self.goal == Goal::Left
            && picture.entries.get(self.key.as_str()).is_some_and(|e| e.created < self.change)
    }

    /// The revision waited for.
    #[must_use]
    pub fn change(&self) -> Revision {
        self.change
    }

    /// The load balancers seen.
    #[must_use]
    pub fn peers(&self) -> &BTreeMap<String, Peer> {
        &self.peers
    }
}

/// The resource of a member that is furthest behind speaks for it.
fn rank(peer: &Peer) -> u8 {
    match peer {
        Peer::Silent => 0,
        Peer::Holding => 1,
        Peer::Refused(_) => 2,
        Peer::Lost(_) => 3,
        Peer::Applied => 4,
        Peer::Quiesced => 5,
        Peer::Gone => 6,
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Silent => f.write_str("has not applied it"),
            Peer::Applied => f.write_str("still has workers with open requests"),
            Peer::Quiesced => f.write_str("confirmed"),
            Peer::Holding => f.write_str("holds this backend, because it doubts the loss"),
            Peer::Refused(why) => write!(f, "refused: {why}"),
            Peer::Gone => f.write_str("left"),
            Peer::Lost(_) => f.write_str("lost: its lease ran out"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.confirmed, self.by.is_empty()) {
            (true, true) => f.write_str("no load balancer is registered"),
            (true, false) => write!(f, "confirmed by {}", self.by.join(", ")),
            (false, _) => {
                let not: Vec<String> =
                    self.not_by.iter().map(|(lb, why)| format!("{lb}: {why}")).collect();
                write!(f, "unconfirmed ({})", not.join("; "))
            }
        }
    }
}

impl Default for Bounds {
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

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "applied {}, quiesced {}", format_span(self.applied), format_span(self.quiesced))
    }
}

#[cfg(test)]
mod tests;
