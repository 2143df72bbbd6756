//! What a follower publishes, and how it is to follow.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::model::{Change, Snapshot, Tree};
use crate::runtime::Gate;
use crate::store::StoreError;

/// What is known of the watched trees.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The last complete snapshot; `None` until the first read succeeded.
    pub snapshot: Option<Arc<Snapshot>>,
    /// How often the store has regressed (it was wiped or restored).
    pub regressions: u32,
    /// When the store last regressed.
    pub regressed_at: Option<Instant>,
    /// Why the snapshot may be out of date; `None` while it is followed.
    pub stale: Option<Stale>,
}

/// A view is not fresh.
#[derive(Debug, Clone)]
pub struct Stale {
    pub since: Instant,
    /// The cause.
    pub reason: StaleReason,
}

/// Why a view is not fresh; `Display` is for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaleReason {
    /// The first read has not been answered yet.
    NotReadYet,
    /// The first read waits for something else; see [`Start`].
    NotStarted(&'static str),
    /// A read or a watch failed and is repeated.
    Failed(StoreError),
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReadYet => f.write_str("etcd has not answered yet"),
            Self::NotStarted(reason) => f.write_str(reason),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// How a watch behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything is read again this often (with a jitter of a tenth), whatever the watch
    /// delivers: a second means against a store that loses an event.
    pub resync: Duration,
    /// The schedule of attempts after an error.
    pub backoff: Backoff,
    /// What the first read waits for; `None`: nothing.
    pub start: Option<Start>,
    /// What the trees were a moment ago: taken for the first read.
    pub known: Option<Arc<Snapshot>>,
    /// These keys are in no view, and their changes wake no reader: what a reader writes because
    /// of a view must not make the next view.
    pub ignored: Option<Ignored>,
    /// What of it an operator needs to read.
    pub log: WatchLog,
}

/// What of a watch is for an operator; the rest is for debugging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchLog {
    /// That it has begun, that it failed, and that it works again.
    All,
    /// The same without its beginning: it is short, and what it finds is logged.
    Trouble,
    /// Nothing: another watch of the same process logs the same.
    Nothing,
}

/// Keys that are in no view.
#[derive(Debug, Clone)]
pub struct Ignored {
    /// Those in this tree.
    pub tree: Tree,
    /// Those of this key and value, elsewhere.
    pub entry: fn(&str, &[u8]) -> bool,
    /// Keys that may have such a value: when one of them is deleted that is in no view, it was
    /// one of these.
    pub may_be: fn(&str) -> bool,
}

impl Ignored {
    /// Takes them out of what was read.
    pub(super) fn remove_from(&self, snapshot: &mut Snapshot) {
        snapshot.remove_tree(&self.tree);
        let others =
            snapshot.entries.values().filter(|entry| (self.entry)(&entry.key, &entry.value));
        for key in others.map(|entry| Arc::clone(&entry.key)).collect::<Vec<_>>() {
            snapshot.entries.remove(&key);
        }
    }

    /// Takes out the changes that are about them. `known` is what was published.
    pub(super) fn retain(&self, changes: &mut Vec<Change>, known: Option<&Snapshot>) {
        changes.retain(|change| match change {
            Change::Put(entry) => {
                !self.tree.covers(&entry.key) && !(self.entry)(&entry.key, &entry.value)
            }
            _ => !self.tree.covers(change.key()),
        });
        let put: BTreeSet<Arc<str>> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(entry) if (self.may_be)(&entry.key) => Some(Arc::clone(&entry.key)),
                _ => None,
            })
            .collect();
        changes.retain(|change| match change {
            Change::Deleted { key, .. } if (self.may_be)(key) => {
                put.contains(key) || known.is_some_and(|known| known.entries.contains_key(key))
            }
            _ => true,
        });
    }
}

/// What the first read waits for.
#[derive(Debug, Clone)]
pub struct Start {
    /// Nothing is read before this is open.
    pub gate: Gate,
    /// Why nothing is read yet, for operators.
    pub reason: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            resync: Duration::from_secs(300),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            start: None,
            known: None,
            ignored: None,
            log: WatchLog::All,
        }
    }
}
