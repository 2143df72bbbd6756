//! Which files the child reads at its start, and whether those of now are the same. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::install::Digest;

/// The files that the child reads at its start, by reload group.
#[derive(Debug, Default)]
pub(super) struct StartFiles {
    /// The reload groups whose files are to be there first.
    expected: BTreeSet<String>,
    /// Those that are, and what was in place when the child was started.
    in_place: BTreeMap<String, Option<Digest>>,
}

/// What the child has read of the files of one reload group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesRead {
    /// It was started with exactly these.
    These,
    /// It is not started: files of other reload groups are missing.
    NotStarted,
    /// It was started with others.
    Others,
}

impl StartFiles {
    pub(super) fn expect(&mut self, groups: impl IntoIterator<Item = String>) {
        self.expected = groups.into_iter().collect();
    }

    pub(super) fn note(&mut self, group: &str, files: Option<Digest>) {
        self.in_place.insert(group.to_owned(), files);
    }

    pub(super) fn are_complete(&self) -> bool {
        self.expected.iter().all(|group| self.in_place.contains_key(group))
    }

    /// The child ran before: it may have read others.
    pub(super) fn forget(&mut self) {
        self.in_place.clear();
    }

    /// Of a child that was started.
    pub(super) fn read(&self, group: &str, files: Option<Digest>) -> FilesRead {
        match self.in_place.get(group) == Some(&files) {
            true => FilesRead::These,
            false => FilesRead::Others,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::{Candidate, Target};

    #[test]
    fn a_child_has_read_what_was_in_place_at_its_start() {
        let digest = |text: &str| {
            let target = Target::new("/app.conf");
            Some(Digest::of(&[Candidate { target, bytes: text.into() }]))
        };
        let mut files = StartFiles::default();
        assert!(files.are_complete(), "nothing is waited for");
        files.expect(["app".to_owned(), "web".to_owned()]);
        files.note("app", digest("one"));
        assert!(!files.are_complete());
        files.note("web", None);
        assert!(files.are_complete());
        assert_eq!(files.read("app", digest("one")), FilesRead::These);
        assert_eq!(files.read("app", digest("two")), FilesRead::Others);
        assert_eq!(files.read("web", None), FilesRead::These);
        files.forget();
        assert_eq!(files.read("app", digest("one")), FilesRead::Others);
    }
}
