//! What is explored: the wait of which backend, and which rule is broken.

use crate::balancer::{FAULTS, Name};

/// The leaver's key, and the joiner's.
pub(crate) const LEAVER: u8 = 1;
pub(crate) const JOINER: u8 = 2;

/// The backend whose wait is looked at. Waits read and never write, so the two have
/// nothing to do with each other: the other backend is its write to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Leaver,
    Joiner,
}

impl Role {
    pub(crate) const BOTH: [Self; 2] = [Self::Leaver, Self::Joiner];
}

/// A rule of the protocol, to be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The member key is written after the first load.
    ReadBeforeJoin,
    /// Acknowledged when the signal is sent, while old workers accept.
    AckAtSignal,
    /// The backend stops when all have applied.
    StopAtApplied,
    /// A lease that ran out counts as a clean leave.
    LostIsGone,
    /// After a load everything but its own revision counts as quiesced.
    QuiescedButOne,
    /// A restarted confsync acknowledges what is on disk, without a load of its own.
    AckBeforeProof,
    /// The member key says "left" while old workers finish.
    LeftTooSoon,
    /// Only what changed the file is acknowledged.
    NoopsAreSilent,
    /// Who joins waits for the revision before its own.
    ReadyTooSoon,
    /// Acknowledgements without proof do not say so.
    AssumedIsConfirmed,
    /// A load balancer that keeps its last file acknowledges the change all the same.
    KeptIsApplied,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) role: Role,
    /// The backends that the template uses; a change of another leaves the file as it was.
    pub(crate) used: u8,
    /// A set without a backend is not loaded: the file before stays.
    pub(crate) keeps_last: bool,
    /// Load balancers know their proxy by commands alone, and take success for proof.
    pub(crate) by_commands: bool,
    /// What may befall each load balancer, once.
    pub(crate) faults: &'static [Name],
    pub(crate) broken: Option<Rule>,
}

impl Setup {
    pub(crate) fn of(role: Role) -> Self {
        Self {
            role,
            used: LEAVER | JOINER,
            keeps_last: false,
            by_commands: false,
            faults: &FAULTS[..3],
            broken: None,
        }
    }

    pub(crate) fn breaks(&self, rule: Rule) -> bool {
        self.broken == Some(rule)
    }
}

/// What the two backends have written so far. Only that moves the revision: other
/// writes make it larger, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Etcd {
    pub(crate) revision: u64,
    pub(crate) backends: u8,
}

impl Etcd {
    pub(crate) const FIRST: Self = Self { revision: 5, backends: LEAVER };

    /// The write of one of them; `None` if it was made.
    pub(crate) fn write(self, role: Role) -> Option<Self> {
        let backends = match role {
            Role::Leaver => self.backends & !LEAVER,
            Role::Joiner => self.backends | JOINER,
        };
        let revision = self.revision + 1;
        (backends != self.backends).then_some(Self { revision, backends })
    }

    /// Whether that write was made.
    pub(crate) fn has(self, role: Role) -> bool {
        self.write(role).is_none()
    }
}
