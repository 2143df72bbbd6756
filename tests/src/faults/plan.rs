//! Which faults come together, and how long each lasts: by the seed alone, so that a run can be
//! repeated. Knows nothing of processes.
//!
//! In a round there is at most one fault of etcd and one of the load balancers, and at least
//! three of the five backends stay up: with more, a request could fail and nobody be to blame.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Members of the etcd cluster.
pub const MEMBERS: usize = 3;
/// Load balancers.
pub const BALANCERS: usize = 2;
/// Backends.
pub const BACKENDS: usize = 5;

/// What goes wrong, and whose it is, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With etcd.
    Etcd(OfEtcd),
    /// With a load balancer.
    Balancer(usize, OfBalancer),
    /// With a backend.
    Backend(usize, OfBackend),
    /// Values that nobody may use appear, and go.
    Poisoned,
}

/// What goes wrong with etcd; the number is a member's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfEtcd {
    /// A member is killed, and started again.
    Killed(usize),
    /// A member stands still: connections stay open and nothing is answered.
    Frozen(usize),
    /// All but this member stand still: there is no quorum.
    QuorumLost(usize),
    /// The line to a member is cut, for everybody.
    LineCut(usize),
    /// All lines are cut: etcd is away.
    AllLinesCut,
    /// The history is compacted and the file made small.
    Compacted,
}

/// What goes wrong with a load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfBalancer {
    /// confsync is killed, and started again at the end.
    Killed,
    /// confsync stands still.
    Frozen,
    /// confsync is asked to read its files again.
    Reloaded,
    /// Somebody else reloads nginx.
    ForeignReload,
}

/// What goes wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfBackend {
    /// Its sidekick is killed, and started again at the end.
    SidekickKilled,
    /// It dies, and comes back at the end.
    Died,
    /// It is stopped in order, its sidekick first, and comes back at the end.
    Stopped,
}

/// One fault of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// From the beginning of the round until the fault.
    pub after: Duration,
    /// How long it lasts.
    pub lasts: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.1?} for {:.1?}", self.kind, self.after, self.lasts)
    }
}

/// Rounds without end.
pub struct Plan(Rng);

impl Plan {
    /// The rounds of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    fn fault(&mut self, kind: Kind) -> Fault {
        let longest = match kind {
            Kind::Etcd(OfEtcd::AllLinesCut | OfEtcd::QuorumLost(_)) => 9_000,
            _ => 5_000,
        };
        let after = Duration::from_millis(self.0.u64(0..1_500));
        Fault { kind, after, lasts: Duration::from_millis(self.0.u64(50..=longest)) }
    }

    fn of_etcd(&mut self) -> OfEtcd {
        let member = self.0.usize(..MEMBERS);
        match self.0.u8(..6) {
            0 => OfEtcd::Killed(member),
            1 => OfEtcd::Frozen(member),
            2 => OfEtcd::QuorumLost(member),
            3 => OfEtcd::LineCut(member),
            4 => OfEtcd::AllLinesCut,
            _ => OfEtcd::Compacted,
        }
    }

    fn of_a_balancer(&mut self) -> OfBalancer {
        match self.0.u8(..4) {
            0 => OfBalancer::Killed,
            1 => OfBalancer::Frozen,
            2 => OfBalancer::Reloaded,
            _ => OfBalancer::ForeignReload,
        }
    }

    fn of_a_backend(&mut self) -> OfBackend {
        match self.0.u8(..3) {
            0 => OfBackend::SidekickKilled,
            1 => OfBackend::Died,
            _ => OfBackend::Stopped,
        }
    }
}

impl Iterator for Plan {
    type Item = Vec<Fault>;

    fn next(&mut self) -> Option<Vec<Fault>> {
        let mut kinds = Vec::new();
        if self.0.u8(..10) < 7 {
            kinds.push(Kind::Etcd(self.of_etcd()));
        }
        if self.0.u8(..10) < 5 {
            let balancer = self.0.usize(..BALANCERS);
            kinds.push(Kind::Balancer(balancer, self.of_a_balancer()));
        }
        if self.0.u8(..10) < 2 {
            kinds.push(Kind::Poisoned);
        }
        let mut backends: Vec<usize> = (0..BACKENDS).collect();
        self.0.shuffle(&mut backends);
        // One at least: a round in which nothing changes shows little.
        let hit = self.0.usize(1..=2);
        for backend in backends.into_iter().take(hit) {
            kinds.push(Kind::Backend(backend, self.of_a_backend()));
        }
        Some(kinds.into_iter().map(|kind| self.fault(kind)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_leads_to_the_same_rounds_again() {
        let rounds = |seed| Plan::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn three_backends_stay_and_etcd_has_one_fault_at_a_time() {
        for round in Plan::new(1).take(500) {
            let count = |test: fn(&Kind) -> bool| round.iter().filter(|f| test(&f.kind)).count();
            let backends = count(|kind| matches!(kind, Kind::Backend(..)));
            assert!((1..=2).contains(&backends), "{round:?}");
            let etcd = count(|kind| matches!(kind, Kind::Etcd(_)));
            assert!(etcd <= 1, "{round:?}");
        }
    }

    #[test]
    fn every_kind_is_drawn() {
        let mut seen: Vec<_> = Plan::new(3).take(500).flatten().map(|f| f.kind).collect();
        seen.sort_by_key(|kind| format!("{kind:?}"));
        seen.dedup();
        let of_all = 4 * MEMBERS + 2 + 1 + 4 * BALANCERS + 3 * BACKENDS;
        assert_eq!(seen.len(), of_all);
    }
}
