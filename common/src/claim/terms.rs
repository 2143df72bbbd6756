//! The words of the claim: what is wanted, what is owed next, what is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{Key, Revision};
use crate::store::{Guard, Lease, Ownership};

/// What is wanted at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The value.
    pub value: Vec<u8>,
    /// What may be taken over from an earlier life of ours.
    pub takeover: Takeover,
    /// Whether the value shall stand there, or what is left of it be removed.
    pub aim: Aim,
}

/// What shall become of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// The value stands there.
    Hold,
    /// The value stands there no more, not even where an earlier life of ours left
    /// it. Another value is another's, and left alone.
    Clear,
}

/// Which key that is already there counts as ours from before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// One with the very value we want; another value is another instance.
    SameValue,
    /// Any: the key bears our own name (a load balancer's member key).
    Any,
}

/// Everything wanted, by key; what is not in it is wanted gone.
pub type Wants = Arc<BTreeMap<Key, Want>>;

/// What is owed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A lease, because something is wanted and there is none.
    Grant,
    /// A refresh of the lease and of these keys.
    Renew(Lease, Vec<(Key, Ownership)>),
    /// Guarded writes, independent of each other.
    Put(Lease, Vec<Put>),
    /// Guarded deletes, independent of each other.
    Withdraw(Vec<Delete>),
    /// Nothing before this instant.
    Wait(Instant),
    /// Nothing until something else is wanted.
    Idle,
}

/// One guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Where.
    pub key: Key,
    /// What.
    pub value: Vec<u8>,
    /// Only if.
    pub guard: Guard,
}

/// One guarded delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// Where.
    pub key: Key,
    /// Only if.
    pub guard: Guard,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStatus {
    /// Not there by our doing; removed at this revision if we removed it.
    Absent {
        /// The revision of our delete.
        removed: Option<Revision>,
    },
    /// Wanted, and not confirmed yet.
    Pending,
    /// The store confirmed it.
    Held {
        /// The revision of our write.
        at: Revision,
        /// What it confirmed; a newer value may be on its way.
        value: Vec<u8>,
    },
    /// Another live instance has it, for certain if it is not wanted any more.
    Rival {
        /// What the other wrote.
        value: Vec<u8>,
    },
}

/// Whether a value shall stand at `key`.
#[must_use]
pub fn to_hold(wants: &Wants, key: &Key) -> bool {
    wants.get(key).is_some_and(|want| want.aim == Aim::Hold)
}

pub(super) fn nothing_to_hold(wants: &Wants) -> bool {
    wants.values().all(|want| want.aim == Aim::Clear)
}
