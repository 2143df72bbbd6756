//! Which files the child has read: those that were in place when it was started. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::install::Digest;

/// Whether the child has read the files of one reload group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesRead {
    /// It was started with exactly these files.
    These,
    /// It was started with other files.
    Others,
    /// It is not started: files of other reload groups are missing.
    NotStarted,
}

/// The files that are in place before the start.
#[derive(Debug, Default)]
pub(super) struct StartFiles {
    /// The reload groups whose files must be in place first.
    expected: BTreeSet<String>,
    /// Those that are in place, with the digest of their files.
    placed: BTreeMap<String, Option<Digest>>,
}

impl StartFiles {
    pub(super) fn expect(&mut self, groups: impl IntoIterator<Item = String>) {
        self.expected = groups.into_iter().collect();
    }

    pub(super) fn place(&mut self, group: &str, files: Option<Digest>) {
        self.placed.insert(group.to_owned(), files);
    }

    /// Whether the files of all expected groups are in place.
    pub(super) fn are_complete(&self) -> bool {
        self.expected.iter().all(|group| self.placed.contains_key(group))
    }

    /// It was running before: it may have read others.
    pub(super) fn forget(&mut self) {
        self.placed.clear();
    }

    /// What a child that was started has read of this group.
    pub(super) fn read(&self, group: &str, files: Option<Digest>) -> FilesRead {
        if self.placed.get(group) == Some(&files) { FilesRead::These } else { FilesRead::Others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{Candidate, Target};

    #[test]
    fn all_groups_are_awaited_and_each_has_read_what_was_placed() {
        let mut files = StartFiles::default();
        let of = |text: &str| {
            let target = Target::new("/etc/a");
            Some(Digest::of(&[Candidate { target, bytes: text.as_bytes().into() }]))
        };
        files.expect(["a".to_owned(), "b".to_owned()]);
        files.place("a", of("1"));
        assert!(!files.are_complete());
        files.place("a", of("2"));
        files.place("b", None);
        assert!(files.are_complete());
        let read = |files: &StartFiles| {
            [("a", of("2")), ("a", of("1")), ("b", None), ("c", None)]
                .map(|(group, digest)| files.read(group, digest))
        };
        use FilesRead::{Others, These};
        assert_eq!(read(&files), [These, Others, These, Others]);
        files.forget();
        assert_eq!(read(&files), [Others; 4]);
    }
}
