//! What is wanted of each key, the next step that leads there, and what is known of a key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use tokio::time::Instant;

use crate::model::{Key, Revision, Tree};
use crate::store::{Guard, Lease, Ownership};

/// What is wanted of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The value that the key is to have, or is not to have any more.
    pub value: Vec<u8>,
    /// Which existing key may be taken over.
    pub takeover: Takeover,
    /// Whether the key is to exist.
    pub aim: Aim,
}

/// Whether a key is to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aim {
    /// It has the value.
    Present,
    /// It does not have the value any more, not even where an earlier instance left it. A key
    /// with another value is another process's and stays.
    Absent,
    /// The same, and this is written when it goes.
    Left(Marker),
}

/// A key that is written in the transaction that removes another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its name.
    pub key: Key,
    pub value: Vec<u8>,
    /// Trees that are read in that transaction: a drain goes on from there.
    pub reads: Vec<Tree>,
}

/// Which existing key counts as that of an earlier instance of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takeover {
    /// One with exactly the wanted value; another value is another instance.
    SameValue,
    /// Any: the key bears our own name.
    Any,
    /// One whose `boot` field names one of these instances: this process, or instances that are
    /// known to have ended.
    Instances(Arc<[String]>),
}

impl Takeover {
    /// Whether a key with the value `found` may be taken over for one that is to be `wanted`.
    pub(super) fn allows(&self, found: &[u8], wanted: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::SameValue => found == wanted,
            Self::Instances(instances) => {
                instance_of(found).is_some_and(|id| instances.contains(&id))
            }
        }
    }
}

/// The instance that a member key or an acknowledgement names.
pub fn instance_of(value: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Written {
        boot: String,
    }
    Some(serde_json::from_slice::<Written>(value).ok()?.boot)
}

/// Everything wanted, by key. A key that is not in it is to be removed if it is ours. Clones
/// share the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wants {
    version: u64,
    keys: Arc<BTreeMap<Key, Want>>,
}

impl Wants {
    /// These keys, as the first version.
    pub fn new(keys: BTreeMap<Key, Want>) -> Self {
        Self { version: 0, keys: Arc::new(keys) }
    }

    /// Wants these keys from now on, as the next version. `false`: they are the same, and so
    /// is the version.
    pub fn replace(&mut self, keys: BTreeMap<Key, Want>) -> bool {
        let changed = *self.keys != keys;
        if changed {
            self.version += 1;
            self.keys = Arc::new(keys);
        }
        changed
    }

    /// Some of these keys, as a part of this version.
    pub(crate) fn part(&self, keys: BTreeMap<Key, Want>) -> Self {
        Self { version: self.version, keys: Arc::new(keys) }
    }

    /// Grows with each change: a report about a later version is about this one as well.
    pub fn version(&self) -> u64 {
        self.version
    }
}

impl From<Wants> for BTreeMap<Key, Want> {
    fn from(wants: Wants) -> Self {
        Arc::unwrap_or_clone(wants.keys)
    }
}

impl Deref for Wants {
    type Target = BTreeMap<Key, Want>;
    fn deref(&self) -> &Self::Target {
        &self.keys
    }
}

/// The next step towards what is wanted. Its `Display` is the reason for it, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask for a lease: something is wanted and there is none.
    Grant,
    /// Refresh the lease and these keys.
    Refresh(Lease, Vec<(Key, Ownership)>),
    /// Guarded writes, independent of each other.
    Put(Lease, Vec<Put>),
    /// Guarded deletes, independent of each other.
    Delete(Vec<Delete>),
    /// Nothing before this instant.
    Wait(Instant),
    /// Nothing until something else is wanted.
    Idle,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant => f.write_str("keys are wanted, and there is no lease"),
            Self::Refresh(_, keys) => write!(f, "the lease of {} keys is due", keys.len()),
            Self::Put(_, puts) => write!(f, "{} keys do not have their value", puts.len()),
            Self::Delete(deletes) => write!(f, "{} keys are not wanted", deletes.len()),
            Self::Wait(_) => f.write_str("nothing to do until the next refresh"),
            Self::Idle => f.write_str("nothing is wanted"),
        }
    }
}

/// One guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key to write.
    pub key: Key,
    /// Its new value.
    pub value: Vec<u8>,
    /// The condition under which it is written.
    pub guard: Guard,
}

/// One guarded delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The key to delete.
    pub key: Key,
    /// The condition under which it is deleted.
    pub guard: Guard,
    /// What is written with it.
    pub marker: Option<Marker>,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStatus {
    /// We have no such key.
    Absent {
        /// The revision of our delete, if it was deleted by us.
        removed: Option<Revision>,
    },
    /// Wanted and not confirmed yet; or a write was not answered, so that it may exist.
    Pending,
    /// The store confirmed it.
    Owned {
        /// The revision of our write.
        at: Revision,
        /// The value that was confirmed; a newer one may be on its way.
        value: Vec<u8>,
    },
    /// Another process has it; for certain only if the key is not wanted any more.
    Rival {
        /// The value that the other wrote.
        value: Vec<u8>,
    },
}

/// Whether `key` is to exist.
pub fn is_wanted(wants: &Wants, key: &Key) -> bool {
    wants.get(key).is_some_and(|want| want.aim == Aim::Present)
}

pub(super) fn nothing_is_wanted(wants: &Wants) -> bool {
    wants.values().all(|want| want.aim != Aim::Present)
}
