//! The later stages: a set is put in place as a whole, and can be rolled back.
//!
//! Each way is a list of small steps ([`SwapStep`]), each of which is one change of the file system
//! or leaves nothing half done. So tests can simulate a kill between any two of them.
//!
//! The order is what makes [`super::recover()`] certain: every file has its mark (the previous
//! content, or that there was none) before the first swap, and keeps it until the last is committed
//! or rolled back. Therefore, if only some files have marks, no file is between old and new.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::slot::FileSwap;
use super::{InstallError, Proof, StagedFiles, Target};

/// A set that passed its check and waits beside its dests.
#[derive(Debug)]
pub struct CheckedFiles {
    swap: Swap,
    edited: bool,
}

/// A set that is in place. Its previous files are kept until [`Self::commit`] or
/// [`Self::rollback`]; dropping it decides nothing, and [`super::recover()`] finds it.
#[derive(Debug)]
#[must_use]
pub struct InstalledFiles {
    swap: Swap,
    edited: bool,
}

#[derive(Debug)]
pub(super) struct Swap {
    slots: Vec<FileSwap>,
}

/// One step on the way, of the file with this index or of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SwapStep {
    Forget(usize),
    Keep(usize),
    Replace(usize),
    PutBack(usize),
    Sync(PathBuf),
}

impl StagedFiles {
    /// Accepts the set, given the proof that it was checked.
    ///
    /// # Errors
    /// When the proof is for other bytes, or the staged files were changed since.
    pub fn accept(self, proof: Proof) -> Result<CheckedFiles, InstallError> {
        let (files, edited) = self.proven(proof)?;
        let slots = files.into_iter().map(FileSwap::staged).collect();
        Ok(CheckedFiles { swap: Swap { slots }, edited })
    }
}

impl CheckedFiles {
    /// Puts every file in its place, keeping the previous ones.
    ///
    /// # Errors
    /// When one cannot be; those before it are then back as they were, unless the
    /// error is [`InstallError::Torn`].
    pub fn install(mut self) -> Result<InstalledFiles, InstallError> {
        for step in self.swap.way_in() {
            if let Err(cause) = self.swap.perform(&step) {
                return Err(match self.swap.go_back() {
                    Ok(()) => cause,
                    Err(restore) => {
                        InstallError::Torn { cause: cause.into(), restore: restore.into() }
                    }
                });
            }
        }
        Ok(InstalledFiles { swap: self.swap, edited: self.edited })
    }
}

impl InstalledFiles {
    pub(super) fn found(places: Vec<(Target, PathBuf)>) -> Self {
        let slot = |(target, real)| FileSwap::found(target, real);
        Self { swap: Swap { slots: places.into_iter().map(slot).collect() }, edited: false }
    }

    /// The dests that were written in place, not replaced: worth a warning.
    pub fn in_place(&self) -> Vec<&Path> {
        let slots = self.swap.slots.iter().filter(|s| s.in_place());
        slots.map(|s| s.dest()).collect()
    }

    /// Whether a check has edited one of them: what is in place is not what was rendered.
    pub fn is_edited(&self) -> bool {
        self.edited
    }

    /// The new files are proven: removes the previous ones.
    ///
    /// # Errors
    /// When one cannot be removed. The files in place are not affected.
    pub fn commit(mut self) -> Result<(), InstallError> {
        self.swap.walk(self.swap.forget().collect())
    }

    /// Puts the previous files back, all of them; where there was none, the new one
    /// is removed.
    ///
    /// # Errors
    /// When one cannot be put back; [`super::recover()`] finds the set again.
    pub fn rollback(mut self) -> Result<(), InstallError> {
        self.swap.go_back()
    }

    /// How far a set got that was found after a crash.
    pub(super) fn progress(&self) -> SwapProgress {
        let states: Vec<_> = self.swap.slots.iter().filter_map(FileSwap::is_replaced).collect();
        match (states.contains(&true), states.contains(&false)) {
            (true, true) => SwapProgress::Between,
            (false, true) => SwapProgress::Old,
            (_, false) => SwapProgress::New,
        }
    }
}

/// How far a set got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SwapProgress {
    Old,
    Between,
    New,
}

impl Swap {
    pub(super) fn way_in(&self) -> Vec<SwapStep> {
        let each = 0..self.slots.len();
        let keep = each.clone().map(SwapStep::Keep);
        self.forget().chain(keep).chain(each.map(SwapStep::Replace)).chain(self.sync()).collect()
    }

    pub(super) fn way_back(&self) -> Vec<SwapStep> {
        let marked = self.slots.iter().enumerate().filter(|(_, s)| s.is_marked());
        let back = marked.map(|(i, _)| SwapStep::PutBack(i));
        back.chain(self.sync()).chain(self.forget()).collect()
    }

    fn forget(&self) -> impl Iterator<Item = SwapStep> + use<> {
        (0..self.slots.len()).map(SwapStep::Forget)
    }

    fn sync(&self) -> impl Iterator<Item = SwapStep> + use<> {
        let folders: BTreeSet<_> = self.slots.iter().filter_map(|s| s.real().parent()).collect();
        folders.into_iter().map(|f| SwapStep::Sync(f.to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn walk(&mut self, steps: Vec<SwapStep>) -> Result<(), InstallError> {
        steps.iter().try_for_each(|step| self.perform(step))
    }

    /// Puts back as many as can be; unless that is all, every mark stays.
    fn go_back(&mut self) -> Result<(), InstallError> {
        let (back, rest): (Vec<_>, Vec<_>) =
            self.way_back().into_iter().partition(|step| matches!(step, SwapStep::PutBack(_)));
        let errors: Vec<_> = back.iter().filter_map(|step| self.perform(step).err()).collect();
        errors.into_iter().next().map_or(Ok(()), Err)?;
        self.walk(rest)
    }

    pub(super) fn perform(&mut self, step: &SwapStep) -> Result<(), InstallError> {
        match step {
            SwapStep::Forget(i) => self.slots.get_mut(*i).map_or(Ok(()), FileSwap::forget),
            SwapStep::Keep(i) => self.slots.get_mut(*i).map_or(Ok(()), FileSwap::keep),
            SwapStep::Replace(i) => self.slots.get_mut(*i).map_or(Ok(()), FileSwap::replace),
            SwapStep::PutBack(i) => self.slots.get_mut(*i).map_or(Ok(()), FileSwap::put_back),
            SwapStep::Sync(folder) => File::open(folder)
                .and_then(|f| f.sync_all())
                .map_err(InstallError::io("write to disk the folder", folder)),
        }
    }
}

#[cfg(test)]
mod tests;
