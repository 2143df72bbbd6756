//! What a store said at one revision: whole, sorted, and how a change turns one
//! such picture into the next.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::{KeyError, Prefix};
use super::raw::Raw;

/// etcd's store revision (v3), or its index (v2). Grows with every write of
/// anybody; falls only when the store was wiped or restored.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// One key as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The raw key.
    pub key: Arc<str>,
    /// The raw value.
    pub value: Raw,
    /// When the key came into being.
    pub created: Revision,
    /// When its value was last written (a v3 keep-alive does not count, a v2
    /// refresh does).
    pub modified: Revision,
    /// The v3 lease that holds it; 0 for none and always with v2.
    pub lease: i64,
    /// Time left, where the store tells it with the key (v2).
    pub ttl: Option<Duration>,
}

/// A key and all that is below it, with `/` as the boundary: `/web` covers `/web`
/// and `/web/1`, never `/web2`. A key without a leading `/` is in no tree, not even in `/`:
/// others keep such keys beside ours, and rewrite them every few minutes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tree(Prefix);

/// One event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key now has this value.
    Put(Entry),
    /// The key is gone.
    Gone {
        /// Which.
        key: Arc<str>,
        /// Since when.
        at: Revision,
    },
    /// The key and all that was below it are gone (v2, a folder).
    TreeGone {
        /// Which.
        tree: Tree,
        /// Since when.
        at: Revision,
    },
}

/// All keys of some trees at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The revision that this picture is complete up to.
    pub revision: Revision,
    /// Which cluster said so; a wiped v3 cluster may have another, a restored one
    /// may not.
    pub cluster: u64,
    /// The entries, by key.
    pub entries: BTreeMap<Arc<str>, Entry>,
}

impl Entry {
    /// The value as text, if it is.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.value.text()
    }
}

impl Tree {
    /// The path at the top of the tree.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.as_str()
    }

    /// Whether `key` is the top or below it.
    #[must_use]
    pub fn covers(&self, key: &str) -> bool {
        let below = key.strip_prefix(self.path().trim_end_matches('/'));
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }
}

impl From<Prefix> for Tree {
    fn from(prefix: Prefix) -> Self {
        Self(prefix)
    }
}

impl From<&super::key::Key> for Tree {
    fn from(key: &super::key::Key) -> Self {
        // A key is a clean path, which is all that a prefix asks.
        Self(key.as_str().parse().unwrap_or_else(|_| unreachable!("a key is a clean path")))
    }
}

impl FromStr for Tree {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Change {
    /// The revision at which it happened.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(entry) => entry.modified,
            Change::Gone { at, .. } | Change::TreeGone { at, .. } => *at,
        }
    }
}

impl Snapshot {
    /// Whether the keys and values are the same, whenever and by whom they were written.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        let alike = |(a, b): (&Entry, &Entry)| a.key == b.key && a.value == b.value;
        self.entries.len() == other.entries.len()
            && self.entries.values().zip(other.entries.values()).all(alike)
    }

    /// Whether `earlier` cannot have come before this: a key as old as that picture is not
    /// in it, or both are of one revision and differ. Then the store has another history, by
    /// a restore from a backup, although its revision has not fallen.
    ///
    /// Not by `modified` alone: a v2 refresh moves it without an event.
    #[must_use]
    pub fn contradicts(&self, earlier: &Self) -> bool {
        let old = |e: &&Entry| e.created.max(e.modified) <= earlier.revision;
        let is_new = |entry: &Entry| {
            let known = earlier.entries.get(&entry.key);
            known.is_none_or(|k| k.created != entry.created || k.value != entry.value)
        };
        let lost_one =
            self.revision == earlier.revision && self.entries.len() != earlier.entries.len();
        lost_one || self.entries.values().filter(old).any(is_new)
    }

    /// Applies one change. An older one than the picture is skipped, so a watch
    /// may overlap with the list that it follows.
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
            Change::Gone { key, .. } => {
                self.entries.remove(&key);
            }
            Change::TreeGone { tree, .. } => self.entries.retain(|key, _| !tree.covers(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &str, at: u64) -> Entry {
        Entry {
            key: key.into(),
            value: value.into(),
            created: Revision(at),
            modified: Revision(at),
            lease: 0,
            ttl: None,
        }
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
    fn another_history_contradicts_what_was_seen() {
        let picture = |revision: u64, entries: &[Entry]| Snapshot {
            revision: Revision(revision),
            entries: entries.iter().map(|e| (e.key.clone(), e.clone())).collect(),
            ..Snapshot::default()
        };
        let (one, two) = (entry("/a/1", "x", 3), entry("/a/2", "y", 5));
        let seen = picture(5, &[one.clone(), two.clone()]);
        let refreshed = Entry { modified: Revision(4), ..one.clone() };
        for later in [
            seen.clone(),
            picture(9, std::slice::from_ref(&one)),
            picture(9, &[refreshed, two.clone(), entry("/a/3", "z", 8)]),
            picture(9, &[entry("/a/1", "other", 7), two.clone()]),
        ] {
            assert!(!later.contradicts(&seen), "{later:?}");
        }
        for fork in [
            picture(5, std::slice::from_ref(&one)),
            picture(5, &[one.clone(), entry("/a/3", "z", 5)]),
            picture(9, &[one.clone(), entry("/a/3", "z", 4)]),
            picture(9, &[entry("/a/1", "x", 4), two.clone()]),
            picture(9, &[entry("/a/1", "other", 3), two]),
        ] {
            assert!(fork.contradicts(&seen), "{fork:?}");
        }
    }

    #[test]
    fn changes_add_up_and_old_ones_are_skipped() {
        let mut picture = Snapshot { revision: Revision(5), ..Snapshot::default() };
        picture.apply(Change::Put(entry("/a/1", "old", 4)));
        assert!(picture.entries.is_empty());
        picture.apply(Change::Put(entry("/a/1", "x", 6)));
        picture.apply(Change::Put(entry("/a/2", "y", 6)));
        picture.apply(Change::Put(entry("/ab", "z", 7)));
        picture.apply(Change::TreeGone { tree: "/a".parse().unwrap(), at: Revision(8) });
        assert_eq!(picture.entries.keys().map(|key| &**key).collect::<Vec<_>>(), ["/ab"]);
        picture.apply(Change::Gone { key: "/ab".into(), at: Revision(9) });
        assert_eq!((picture.entries.len(), picture.revision), (0, Revision(9)));
    }
}
