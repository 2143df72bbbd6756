//! What was written, as etcd itself reports it, and what that makes of the keys at a revision.
//! Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Keys and their values.
pub type Keys = BTreeMap<String, String>;

/// One write. Without a value the key was deleted, or has expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Its revision; all writes of one transaction have the same.
    pub revision: u64,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Option<String>,
}

/// All writes after a revision, and the keys at that revision.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// The keys at `since`.
    base: Keys,
    since: u64,
    writes: Vec<Write>,
}

impl Truth {
    /// Begins with the keys at a revision.
    #[must_use]
    pub fn new(base: Keys, since: u64) -> Self {
        Self { base, since, writes: Vec::new() }
    }

    /// Adds a write where it belongs, once: several may report it, one later than the other.
    pub fn add(&mut self, write: Write) {
        let at = self.writes.partition_point(|known| known.revision <= write.revision);
        let same = self.writes.iter().take(at).rev();
        let mut same = same.take_while(|known| known.revision == write.revision);
        if write.revision > self.since && !same.any(|known| *known == write) {
            self.writes.insert(at, write);
        }
    }

    /// The keys of some trees at a revision; `None` if that is before the beginning.
    #[must_use]
    pub fn at(&self, revision: u64, trees: &[String]) -> Option<Keys> {
        if revision < self.since {
            return None;
        }
        let mut keys = self.base.clone();
        self.until(revision).for_each(|write| apply(&mut keys, write));
        keys.retain(|key, _| is_in(key, trees));
        Some(keys)
    }

    /// The writes to some trees after a revision, in order.
    pub fn after<'t>(
        &'t self,
        revision: u64,
        trees: &'t [String],
    ) -> impl Iterator<Item = &'t Write> {
        self.writes.iter().filter(move |w| w.revision > revision && is_in(&w.key, trees))
    }

    /// The revision of the last write.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.writes.last().map_or(self.since, |last| last.revision)
    }

    /// Forgets the writes up to a revision, of which nobody will ask again.
    pub fn forget(&mut self, revision: u64) {
        let old = self.writes.partition_point(|write| write.revision <= revision);
        for write in self.writes.drain(..old) {
            apply(&mut self.base, &write);
        }
        self.since = self.since.max(revision);
    }

    fn until(&self, revision: u64) -> impl Iterator<Item = &Write> {
        self.writes.iter().take_while(move |write| write.revision <= revision)
    }
}

fn apply(keys: &mut Keys, write: &Write) {
    match &write.value {
        Some(value) => keys.insert(write.key.clone(), value.clone()),
        None => keys.remove(&write.key),
    };
}

/// Whether a key is in one of these trees.
#[must_use]
pub fn is_in(key: &str, trees: &[String]) -> bool {
    let below = |tree: &String| key.strip_prefix(tree.as_str());
    trees.iter().filter_map(below).any(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(revision: u64, key: &str, value: Option<&str>) -> Write {
        Write { revision, key: key.to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn the_keys_at_each_revision_before_and_after_some_are_forgotten() {
        let mut truth = Truth::new(Keys::from([("/a/1".into(), "x".into())]), 3);
        for one in [
            write(5, "/a/2", Some("y")),
            write(5, "/b/1", Some("z")),
            write(5, "/b/1", Some("z")),
            write(7, "/a/1", None),
            write(6, "/a/3", Some("late")),
            write(2, "/a/9", Some("of the past")),
        ] {
            truth.add(one);
        }
        let names = |truth: &Truth, at| -> Option<Vec<String>> {
            Some(truth.at(at, &["/a".into(), "/b".into()])?.into_keys().collect())
        };
        let is = |keys: &[&str]| Some(keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&truth, 4), is(&["/a/1"]));
        assert_eq!(names(&truth, 5), is(&["/a/1", "/a/2", "/b/1"]));
        assert_eq!(names(&truth, 9), is(&["/a/2", "/a/3", "/b/1"]));
        assert_eq!(truth.after(3, &["/b".into()]).count(), 1, "each once");
        truth.forget(5);
        assert_eq!(names(&truth, 4), None);
        assert_eq!(names(&truth, 9), is(&["/a/2", "/a/3", "/b/1"]));
    }
}
