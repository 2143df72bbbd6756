//! What is explored: whose wait, and which rule is broken.

use crate::balancer::{HARM, Name};

/// The leaver's key, and the joiner's.
pub(crate) const LEAVER: u8 = 1;
pub(crate) const JOINER: u8 = 2;

/// The backend whose wait is looked at. Waits read and never write, so the two have
/// nothing to do with each other: the other backend is its write to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Leaver,
    Joiner,
}

impl Whose {
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
    /// "Left" is said while old workers finish.
    LeftTooSoon,
    /// Only what changed the file is acknowledged.
    NoopsAreSilent,
    /// Who joins waits for the revision before its own.
    ReadyTooSoon,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) whose: Whose,
    /// The backends that the template uses; a change of another leaves the file as it was.
    pub(crate) used: u8,
    /// What may befall each load balancer, once.
    pub(crate) harm: &'static [Name],
    pub(crate) broken: Option<Rule>,
}

impl Scene {
    pub(crate) fn of(whose: Whose) -> Self {
        Self { whose, used: LEAVER | JOINER, harm: &HARM[..3], broken: None }
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
    pub(crate) fn write(self, whose: Whose) -> Option<Self> {
        let backends = match whose {
            Whose::Leaver => self.backends & !LEAVER,
            Whose::Joiner => self.backends | JOINER,
        };
        let revision = self.revision + 1;
        (backends != self.backends).then_some(Self { revision, backends })
    }

    /// Whether that write was made.
    pub(crate) fn has(self, whose: Whose) -> bool {
        self.write(whose).is_none()
    }
}
