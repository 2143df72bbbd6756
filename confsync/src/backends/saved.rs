//! The backends that a resource routed to when its file was last proven active, saved beside the
//! file.
//!
//! It is read only after a restart, and counts only if the store has regressed meanwhile: a store
//! whose history continues is right about what was deleted, while one that was wiped or restored is
//! not. Without it, a restart after a wipe would take the half of the fleet that has registered
//! again for all of it.
//!
//! Losing the file costs this protection once, and nothing else.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use common::model::{Entry, ReadPoint, Revision, Snapshot, StoredValue, changed_keys};
use serde::{Deserialize, Serialize};

use crate::backends::known::KnownBackends;
use crate::backends::{Backends, KeySelection};
use crate::install::{InstallError, beside, new_beside, note};
use crate::template::Texts;

/// The part of the file's name that identifies it.
const WORD: &str = "believed";

/// Thousands of backends in few writes.
const BUFFER: usize = 64 * 1024;

/// The saved backends, and the store that they are from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedBackends {
    /// The id of the etcd cluster.
    pub cluster: u64,
    /// The revision of the snapshot.
    pub revision: Revision,
    /// The keys and stored values of the backends.
    pub backends: Texts,
}

/// The stored values of the backends that one resource routes to, for the next save: brought up to
/// date by what has changed since the last one.
#[derive(Debug, Default)]
pub struct BackendValues {
    known: Backends,
    values: Texts,
}

impl BackendValues {
    /// What is to be saved at the revision of `snapshot`. Backends that etcd does not have are left
    /// out.
    #[must_use]
    pub fn at(&mut self, snapshot: &Snapshot, known: &KnownBackends) -> SavedBackends {
        let known = known.backends();
        // One that was absent may have come back as it was, which is no change of `known`.
        if self.values.len() != self.known.len() {
            *self = Self::default();
        }
        for key in changed_keys(&self.known, known) {
            match snapshot.entries.get(key).filter(|_| known.contains_key(key)) {
                Some(entry) => drop(self.values.insert(Arc::clone(key), entry.value.clone())),
                None => drop(self.values.remove(key)),
            }
        }
        self.known.clone_from(known);
        let backends = self.values.clone();
        SavedBackends { cluster: snapshot.cluster, revision: snapshot.revision, backends }
    }
}

/// The first line of the file identifies the store; the second has the backends.
#[derive(Serialize, Deserialize)]
struct SavedHeader {
    cluster: u64,
    revision: Revision,
}

impl SavedHeader {
    fn is_ahead_of(&self, now: ReadPoint) -> bool {
        self.cluster != now.cluster || self.revision > now.revision
    }
}

impl SavedBackends {
    /// Reads the file beside `dest`, if it is ahead of the store: otherwise only the header is
    /// read, since the rest may be large. A file that is missing or not ours counts as none.
    pub fn load_if_ahead(dest: &Path, now: ReadPoint) -> Option<Self> {
        let mut file = BufReader::new(File::open(note(dest, WORD)).ok()?);
        let mut line = String::new();
        file.read_line(&mut line).ok()?;
        let head: SavedHeader = serde_json::from_str(&line).ok()?;
        if !head.is_ahead_of(now) {
            return None;
        }
        let backends = serde_json::from_reader(file).ok()?;
        Some(Self { cluster: head.cluster, revision: head.revision, backends })
    }

    /// Writes it beside `dest`, atomically. Without any backend there is nothing to lose, so no
    /// file is kept.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, dest: &Path) -> Result<(), InstallError> {
        let real = dest.canonicalize().unwrap_or_else(|_| dest.to_owned());
        let path = beside(&real, WORD);
        let io = |error: io::Error| InstallError::io("write", &path)(error);
        if self.backends.is_empty() {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(error)),
                _ => Ok(()),
            };
        }
        let mut temp = new_beside(&real)?;
        let head = SavedHeader { cluster: self.cluster, revision: self.revision };
        let mut file = BufWriter::with_capacity(BUFFER, &mut temp);
        serde_json::to_writer(&mut file, &head).map_err(|error| io(error.into()))?;
        file.write_all(b"\n").map_err(io)?;
        serde_json::to_writer(&mut file, &self.backends).map_err(|error| io(error.into()))?;
        file.flush().map_err(io)?;
        drop(file);
        temp.persist(&path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// The saved backends that a resource would still route to.
    pub fn known(&self, reading: &KeySelection) -> KnownBackends {
        let entry = |(key, value): (&Arc<str>, &StoredValue)| {
            Entry::new(Arc::clone(key), value.clone(), self.revision)
        };
        let mut known = KnownBackends::default();
        let seen = reading.see(self.backends.iter().map(entry));
        known.adopt(&seen, std::collections::BTreeSet::new());
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Values;

    fn reading(tree: &str) -> KeySelection {
        KeySelection {
            prefix: "/".parse().unwrap(),
            services: "/services".parse().unwrap(),
            trees: vec![tree.parse().unwrap()],
            values: Values::Typed,
            declared: false,
            bookkeeping: "/confsync".parse().unwrap(),
            names: false,
        }
    }

    fn snapshot(cluster: u64, revision: u64) -> Snapshot {
        let entry = Entry::new("/services/apache/a", "10.0.0.1:80", Revision(1));
        let entries = [(Arc::clone(&entry.key), entry)].into_iter().collect();
        Snapshot { revision: Revision(revision), cluster, entries }
    }

    #[test]
    fn saved_backends_are_restored_and_count_only_against_a_store_that_regressed() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("app.conf");
        let wiped = snapshot(2, 1);
        assert_eq!(SavedBackends::load_if_ahead(&dest, wiped.point()), None);

        let before = snapshot(1, 7);
        let mut known = KnownBackends::default();
        known.adopt(&reading("/services").see(before.entries.values()), Default::default());
        let memory = BackendValues::default().at(&before, &known);
        memory.save(&dest).unwrap();
        let found = SavedBackends::load_if_ahead(&dest, wiped.point()).unwrap();
        assert_eq!(found, memory);

        assert_eq!(found.known(&reading("/services")).backends().len(), 1);
        assert_eq!(found.known(&reading("/other")).backends().len(), 0);
        for (cluster, revision, ahead) in [(1, 7, false), (1, 8, false), (1, 6, true), (2, 9, true)]
        {
            let now = snapshot(cluster, revision);
            assert_eq!(SavedBackends::load_if_ahead(&dest, now.point()).is_some(), ahead);
        }
    }

    #[test]
    fn what_is_saved_next_follows_what_has_changed() {
        let at = |revision, keys: &[&str]| {
            let entries = keys.iter().map(|key| Entry::new(*key, "10.0.0.1:80", Revision(1)));
            let entries = entries.map(|entry| (Arc::clone(&entry.key), entry)).collect();
            Snapshot { revision: Revision(revision), cluster: 1, entries }
        };
        let (a, b) = ("/services/apache/a", "/services/apache/b");
        let mut known = KnownBackends::default();
        let mut values = BackendValues::default();
        let mut saved = |snapshot: &Snapshot, retained: &[&str]| {
            let absent = retained.iter().map(|key| Entry::new(*key, "10.0.0.1:80", Revision(1)));
            let all: Vec<_> = snapshot.entries.values().cloned().chain(absent).collect();
            known.adopt(&reading("/services").see(all.iter()), Default::default());
            let saved = values.at(snapshot, &known);
            assert_eq!(saved.revision, snapshot.revision);
            saved.backends.keys().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(saved(&at(1, &[a]), &[]), [a]);
        assert_eq!(saved(&at(2, &[a, b]), &[]), [a, b]);
        assert_eq!(saved(&at(3, &[b]), &[]), [b]);
        assert_eq!(saved(&at(4, &[b]), &[a]), [b], "etcd does not have it");
        assert_eq!(saved(&at(5, &[a, b]), &[]), [a, b], "and has it again");
    }

    #[test]
    fn nothing_routed_to_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("app.conf");
        std::fs::write(note(&dest, WORD), "{}").unwrap();
        let memory = BackendValues::default().at(&snapshot(1, 7), &KnownBackends::default());
        memory.save(&dest).unwrap();
        memory.save(&dest).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_torn_is_no_memory() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("app.conf");
        for torn in ["{\"cluster\":1,", "{\"cluster\":1,\"revision\":7}\n{\"/a\":\"10.0"] {
            std::fs::write(note(&dest, WORD), torn).unwrap();
            assert_eq!(SavedBackends::load_if_ahead(&dest, snapshot(2, 1).point()), None, "{torn}");
        }
    }
}
