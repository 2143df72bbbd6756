//! All keys of some trees at one revision, and how a change makes the next snapshot of one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};

use super::key::{KeyError, Prefix};
use super::stored_value::StoredValue;

/// etcd's store revision (v3), or its index (v2). Grows with every write by any client; falls
/// only when the store was wiped or restored.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// One key as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: StoredValue,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision that last wrote it (a v3 keep-alive does not count, a v2 refresh does).
    pub modified: Revision,
    /// The v3 lease that it is bound to; 0 for none and always with v2.
    pub lease: i64,
    /// What is left of its lifetime, where the store delivers that with the key (v2).
    pub ttl: Option<Duration>,
}

impl Entry {
    /// A key that was written once, at this revision, and bound to no lease.
    pub fn new(key: impl Into<Arc<str>>, value: impl Into<StoredValue>, at: Revision) -> Self {
        let (key, value) = (key.into(), value.into());
        Self { key, value, created: at, modified: at, lease: 0, ttl: None }
    }
}

/// A key and all that is below it, with `/` as the boundary: `/web` covers `/web`
/// and `/web/1`, never `/web2`. A key without a leading `/` is in no tree, not even in `/`:
/// others keep such keys beside ours, and rewrite them every few minutes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tree {
    top: Prefix,
    below_only: bool,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now.
    Put(Entry),
    /// The key was deleted, or has expired.
    Deleted {
        key: Arc<str>,
        /// The revision of the deletion.
        at: Revision,
    },
    /// The key and everything below it were deleted, or have expired (v2, a directory).
    TreeDeleted {
        tree: Tree,
        /// The revision of the deletion.
        at: Revision,
    },
}

/// Where and when something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadPoint {
    /// Every change up to this revision was seen.
    pub revision: Revision,
    /// The id of the cluster; a wiped v3 cluster may have another one, a restored one need not.
    pub cluster: u64,
}

/// All keys of some trees at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The snapshot has every change up to this revision.
    pub revision: Revision,
    /// The id of the cluster; a wiped v3 cluster may have another one, a restored one need not.
    pub cluster: u64,
    /// The entries, by key. A copy shares them: it costs nothing, and neither does a change of
    /// one of them in it.
    pub entries: OrdMap<Arc<str>, Entry>,
}

/// The keys whose values differ in two maps. What they share is not looked at: between a map and a
/// changed copy of it, this costs what has changed.
pub fn changed_keys<'m, K: Ord + Clone, V: Clone + PartialEq>(
    before: &'m OrdMap<K, V>,
    now: &'m OrdMap<K, V>,
) -> impl Iterator<Item = &'m K> {
    before.diff(now).map(|item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    })
}

impl Entry {
    /// The value as text; `None` if it is not UTF-8.
    pub fn text(&self) -> Option<&str> {
        self.value.text()
    }
}

impl Tree {
    /// What is below a folder, without a key of the folder's own name: to read it takes no
    /// more than the right to read what begins with `folder/`.
    pub fn below(folder: Prefix) -> Self {
        Self { top: folder, below_only: true }
    }

    /// The path at the top of the tree.
    pub fn path(&self) -> &str {
        self.top.as_str()
    }

    /// Whether the top itself is no part of it.
    pub fn is_below_only(&self) -> bool {
        self.below_only
    }

    /// Whether it has all of another tree and more.
    pub fn contains(&self, other: &Self) -> bool {
        self != other
            && if self.path() == other.path() {
                other.below_only
            } else {
                self.covers(other.path())
            }
    }

    /// Whether `key` is in it.
    pub fn covers(&self, key: &str) -> bool {
        let below = key.strip_prefix(self.path().trim_end_matches('/'));
        let top = !self.below_only;
        below.is_some_and(|below| below.is_empty() && top || below.starts_with('/'))
    }
}

impl From<Prefix> for Tree {
    fn from(prefix: Prefix) -> Self {
        Self { top: prefix, below_only: false }
    }
}

impl From<&super::key::Key> for Tree {
    fn from(key: &super::key::Key) -> Self {
        // A key is a clean path, which is all that a prefix asks.
        let path = key.as_str().parse::<Prefix>();
        Self::from(path.unwrap_or_else(|_| unreachable!("a key is a clean path")))
    }
}

impl FromStr for Tree {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.parse::<Prefix>().map(Self::from)
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.top.fmt(f)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Change {
    /// The key that changed, or the top of the tree that was deleted.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted { key, .. } => key,
            Self::TreeDeleted { tree, .. } => tree.path(),
        }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(entry) => entry.modified,
            Change::Deleted { at, .. } | Change::TreeDeleted { at, .. } => *at,
        }
    }
}

impl Snapshot {
    /// Where and when it was read.
    pub fn point(&self) -> ReadPoint {
        ReadPoint { revision: self.revision, cluster: self.cluster }
    }

    /// Whether keys and values are the same, whatever their revisions and leases.
    pub fn same_values(&self, other: &Self) -> bool {
        let value = |entries: &OrdMap<Arc<str>, Entry>, key| {
            entries.get(key).map(|entry: &Entry| entry.value.clone())
        };
        changed_keys(&self.entries, &other.entries)
            .all(|key| value(&self.entries, key) == value(&other.entries, key))
    }

    /// Whether `earlier` cannot have come before this: a key as old as `earlier` is not in it,
    /// or both are of one revision and differ. Then the store has another history, by a restore
    /// from a backup, although its revision has not fallen.
    ///
    /// `modified` alone proves nothing: a v2 refresh moves it without an event.
    pub fn contradicts(&self, earlier: &Self) -> bool {
        let old = |e: &&Entry| e.created.max(e.modified) <= earlier.revision;
        let is_new = |entry: &Entry| {
            let known = earlier.entries.get(&entry.key);
            known.is_none_or(|k| k.created != entry.created || k.value != entry.value)
        };
        let lost_one =
            self.revision == earlier.revision && self.entries.len() != earlier.entries.len();
        let changed = changed_keys(&earlier.entries, &self.entries);
        lost_one || changed.filter_map(|key| self.entries.get(key)).filter(old).any(is_new)
    }

    /// Applies one change. One that is older than the snapshot is skipped, so a watch may
    /// overlap with the read before it.
    pub fn apply(&mut self, change: Change) {
        let at = change.revision();
        if at < self.revision {
            return;
        }
        self.revision = at;
        match change {
            Change::Put(entry) => {
                self.entries.insert(Arc::clone(&entry.key), entry);
            }
            Change::Deleted { key, .. } => {
                self.entries.remove(&key);
            }
            Change::TreeDeleted { tree, .. } => self.remove_tree(&tree),
        }
    }

    /// Removes all keys of a tree.
    pub fn remove_tree(&mut self, tree: &Tree) {
        let gone: Vec<_> = self.entries.keys().filter(|key| tree.covers(key)).cloned().collect();
        for key in gone {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str, at: u64) -> Entry {
        Entry::new(key, value, Revision(at))
    }

    #[test]
    fn a_tree_ends_at_a_slash() {
        let tree: Tree = "/web".parse().unwrap();
        for (key, covered) in
            [("/web", true), ("/web/1", true), ("/web/", true), ("/web2", false), ("/we", false)]
        {
            assert_eq!(tree.covers(key), covered, "{key}");
        }
        let root: Tree = "/".parse().unwrap();
        for (key, covered) in [("/", true), ("/a", true), ("//", true), ("no-slash", false)] {
            assert_eq!(root.covers(key), covered, "{key}");
        }
    }

    #[test]
    fn another_history_contradicts_an_earlier_snapshot() {
        let snapshot = |revision: u64, entries: &[Entry]| Snapshot {
            revision: Revision(revision),
            entries: entries.iter().map(|e| (e.key.clone(), e.clone())).collect(),
            ..Snapshot::default()
        };
        let (one, two) = (entry("/a/1", "x", 3), entry("/a/2", "y", 5));
        let seen = snapshot(5, &[one.clone(), two.clone()]);
        let refreshed = Entry { modified: Revision(4), ..one.clone() };
        for later in [
            seen.clone(),
            snapshot(9, std::slice::from_ref(&one)),
            snapshot(9, &[refreshed, two.clone(), entry("/a/3", "z", 8)]),
            snapshot(9, &[entry("/a/1", "other", 7), two.clone()]),
        ] {
            assert!(!later.contradicts(&seen), "{later:?}");
        }
        for fork in [
            snapshot(5, std::slice::from_ref(&one)),
            snapshot(5, &[one.clone(), entry("/a/3", "z", 5)]),
            snapshot(9, &[one.clone(), entry("/a/3", "z", 4)]),
            snapshot(9, &[entry("/a/1", "x", 4), two.clone()]),
            snapshot(9, &[entry("/a/1", "other", 3), two]),
        ] {
            assert!(fork.contradicts(&seen), "{fork:?}");
        }
    }

    #[test]
    fn changes_add_up_and_old_ones_are_skipped() {
        let mut snapshot = Snapshot { revision: Revision(5), ..Snapshot::default() };
        snapshot.apply(Change::Put(entry("/a/1", "old", 4)));
        assert!(snapshot.entries.is_empty());
        snapshot.apply(Change::Put(entry("/a/1", "x", 6)));
        snapshot.apply(Change::Put(entry("/a/2", "y", 6)));
        snapshot.apply(Change::Put(entry("/ab", "z", 7)));
        snapshot.apply(Change::TreeDeleted { tree: "/a".parse().unwrap(), at: Revision(8) });
        assert_eq!(snapshot.entries.keys().map(|key| &**key).collect::<Vec<_>>(), ["/ab"]);
        snapshot.apply(Change::Deleted { key: "/ab".into(), at: Revision(9) });
        assert_eq!((snapshot.entries.len(), snapshot.revision), (0, Revision(9)));
    }
}
