//! Killed between any two steps: every dest is whole, and the set can be made so.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::names::previous;
use super::super::{Candidate, Proof, Recovered, StagedFiles, Target, clean_stale, recover};
use super::*;

/// Some files of which each was there before, or not.
struct Files {
    _dir: TempDir,
    targets: Vec<Target>,
    there: Vec<bool>,
}

impl Files {
    fn new(there: &[bool]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = |i: usize| {
            // In two folders, so that both are synced and recovered.
            let folder = dir.path().join(format!("d{}", i % 2));
            fs::create_dir_all(&folder).unwrap();
            Target::new(folder.join(format!("f{i}.conf")))
        };
        let targets: Vec<_> = (0..there.len()).map(target).collect();
        for (i, target) in targets.iter().enumerate().filter(|(i, _)| there[*i]) {
            fs::write(&target.dest, format!("old {i}")).unwrap();
        }
        Self { _dir: dir, targets, there: there.to_vec() }
    }

    fn checked(&self) -> CheckedFiles {
        let candidate = |(i, target): (usize, &Target)| Candidate {
            target: target.clone(),
            bytes: format!("new {i}").into_bytes(),
        };
        let all: Vec<_> = self.targets.iter().enumerate().map(candidate).collect();
        let staged = StagedFiles::write(&all.into()).unwrap();
        let proof = Proof::nothing_to_ask(&staged);
        staged.accept(proof).unwrap()
    }

    /// For each file whether it is the new one; panics if it is neither, nor absent as
    /// it was.
    fn new_ones(&self) -> Vec<bool> {
        let state = |i: usize| match fs::read_to_string(&self.targets[i].dest) {
            Ok(text) if text == format!("new {i}") => true,
            Ok(text) if self.there[i] && text == format!("old {i}") => false,
            Err(e) if !self.there[i] && e.kind() == ErrorKind::NotFound => false,
            other => panic!("file {i} is neither old nor new: {other:?}"),
        };
        (0..self.targets.len()).map(state).collect()
    }

    fn all(&self, new: bool) -> bool {
        self.new_ones().iter().all(|n| *n == new)
    }

    fn nothing_left(&self) {
        for target in &self.targets {
            clean_stale(target).unwrap();
        }
        for target in &self.targets {
            let folder = target.dest.parent().unwrap();
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                assert!(!name.contains("confsync"), "{name} is left");
            }
        }
    }
}

/// Performs the first `n` steps and ends as a kill would: without any clean-up.
fn killed_after(mut swap: Swap, steps: &[SwapStep], n: usize) {
    for step in steps.iter().take(n) {
        swap.perform(step).unwrap();
    }
    for slot in &mut swap.slots {
        slot.abandon();
    }
}

fn set_of(files: &Files) -> InstalledFiles {
    files.checked().install().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn killed_on_the_way_in(there in proptest::collection::vec(any::<bool>(), 1..4), at in 0..16usize) {
        let files = Files::new(&there);
        let checked = files.checked();
        let steps = checked.swap.way_in();
        killed_after(checked.swap, &steps, at.min(steps.len()));
        files.new_ones();
        if let Recovered::Undecided(set) = recover(&files.targets).unwrap() {
            prop_assert!(files.all(true));
            set.rollback().unwrap();
        }
        prop_assert!(files.all(false));
        files.nothing_left();
    }

    #[test]
    fn killed_while_putting_back(there in proptest::collection::vec(any::<bool>(), 1..4), at in 0..16usize) {
        let files = Files::new(&there);
        let set = set_of(&files);
        let steps = set.swap.way_back();
        killed_after(set.swap, &steps, at.min(steps.len()));
        files.new_ones();
        if let Recovered::Undecided(set) = recover(&files.targets).unwrap() {
            prop_assert!(files.all(true));
            set.rollback().unwrap();
        }
        prop_assert!(files.all(false));
        files.nothing_left();
    }

    #[test]
    fn killed_while_committing(there in proptest::collection::vec(any::<bool>(), 1..4), at in 0..4usize) {
        let files = Files::new(&there);
        let set = set_of(&files);
        let steps: Vec<_> = set.swap.forget().collect();
        killed_after(set.swap, &steps, at.min(steps.len()));
        prop_assert!(files.all(true));
        if let Recovered::Undecided(set) = recover(&files.targets).unwrap() {
            set.commit().unwrap();
        }
        prop_assert!(files.all(true));
        files.nothing_left();
    }
}

#[test]
fn a_swap_that_fails_half_way_puts_the_others_back() {
    for failing in 0..3 {
        let files = Files::new(&[true, false, true]);
        let checked = files.checked();
        fs::remove_file(checked.swap.slots[failing].stage().unwrap()).unwrap();
        let error = checked.install().unwrap_err();
        assert!(matches!(&error, InstallError::Io { doing: "replace", .. }), "{error}");
        assert!(files.all(false));
        assert!(matches!(recover(&files.targets).unwrap(), Recovered::Nothing));
        files.nothing_left();
    }
}

#[test]
fn the_previous_file_is_the_very_file() {
    let files = Files::new(&[true]);
    let dest = &files.targets[0].dest;
    let before = fs::metadata(dest).unwrap().ino();
    let set = set_of(&files);
    assert_ne!(fs::metadata(dest).unwrap().ino(), before);
    set.rollback().unwrap();
    assert_eq!(fs::metadata(dest).unwrap().ino(), before);
    files.nothing_left();
}

#[test]
fn where_old_and_new_are_alike_the_others_tell() {
    let files = Files::new(&[true, true]);
    fs::write(&files.targets[0].dest, "new 0").unwrap();
    let set = set_of(&files);
    drop(set);
    let found = recover(&files.targets).unwrap();
    let Recovered::Undecided(set) = found else { panic!("{found:?}") };
    set.commit().unwrap();
    assert!(files.all(true));
    files.nothing_left();
}

#[test]
fn one_that_cannot_be_put_back_does_not_keep_the_others() {
    let files = Files::new(&[true, true]);
    let set = set_of(&files);
    let lost = previous(&fs::canonicalize(&files.targets[0].dest).unwrap());
    fs::remove_file(&lost).unwrap();
    set.rollback().unwrap_err();
    assert_eq!(files.new_ones(), [true, false]);
}
