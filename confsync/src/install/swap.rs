//! The later stages: a set takes its place as a whole, and can be put back.
//!
//! Each way through is a list of small steps ([`Step`]), each of which is one change
//! of the file system or leaves nothing half done. So a kill between any two of them
//! can be played in a test.
//!
//! The order makes [`super::recover`] certain: every file has its mark (the previous
//! content, or that there was none) before the first swap, and keeps it until the last
//! is committed or put back. Marks for some files only therefore mean that no file is
//! between old and new.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::names::{absent, previous, replacing};
use super::stage::{give, new_beside};
use super::target::Access;
use super::{Digest, InstallError, Staged, Target};

/// A set that passed its check and waits beside its dests.
#[derive(Debug)]
pub struct CheckedSet {
    swap: Swap,
    digest: Digest,
}

/// A set that is in place. Its previous files are kept until [`Self::commit`] or
/// [`Self::rollback`]; dropping it decides nothing, and [`super::recover`] finds it.
#[derive(Debug)]
#[must_use]
pub struct InstalledSet {
    swap: Swap,
}

#[derive(Debug)]
pub(super) struct Slot {
    target: Target,
    real: PathBuf,
    /// The lock of the stage file lives as long as the file is staged.
    stage: Option<(TempPath, File)>,
    marked: bool,
    in_place: bool,
}

#[derive(Debug)]
pub(super) struct Swap {
    slots: Vec<Slot>,
}

/// One step on the way, of the file with this index or of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Forget(usize),
    Keep(usize),
    Replace(usize),
    PutBack(usize),
    Sync(PathBuf),
}

impl CheckedSet {
    pub(super) fn new(files: Vec<Staged>, digest: Digest) -> Self {
        let slot = |staged: Staged| {
            let (target, real, path, file) = staged.into_parts();
            Slot { target, real, stage: Some((path, file)), marked: false, in_place: false }
        };
        Self { swap: Swap { slots: files.into_iter().map(slot).collect() }, digest }
    }

    /// The digest of what waits.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Puts every file in its place, keeping the previous ones.
    ///
    /// # Errors
    /// When one cannot be; those before it are then back as they were, unless the
    /// error is [`InstallError::Torn`].
    pub fn install(mut self) -> Result<InstalledSet, InstallError> {
        for step in self.swap.way_in() {
            if let Err(cause) = self.swap.perform(&step) {
                return Err(match self.swap.walk(self.swap.way_back()) {
                    Ok(()) => cause,
                    Err(restore) => {
                        InstallError::Torn { cause: cause.into(), restore: restore.into() }
                    }
                });
            }
        }
        Ok(InstalledSet { swap: self.swap })
    }
}

impl InstalledSet {
    pub(super) fn found(places: Vec<(Target, PathBuf)>) -> Self {
        let slot =
            |(target, real)| Slot { target, real, stage: None, marked: true, in_place: false };
        Self { swap: Swap { slots: places.into_iter().map(slot).collect() } }
    }

    /// The dests that were written in place, not replaced: worth a warning.
    #[must_use]
    pub fn in_place(&self) -> Vec<&Path> {
        let slots = self.swap.slots.iter().filter(|s| s.in_place);
        slots.map(|s| s.target.dest.as_path()).collect()
    }

    /// The new files are proven: the previous ones go.
    ///
    /// # Errors
    /// When one cannot be removed. The files in place are not concerned.
    pub fn commit(mut self) -> Result<(), InstallError> {
        self.swap.walk(self.swap.forget().collect())
    }

    /// Puts the previous files back, all of them; where there was none, the new one
    /// is removed.
    ///
    /// # Errors
    /// When one cannot be put back; [`super::recover`] finds the set again.
    pub fn rollback(mut self) -> Result<(), InstallError> {
        self.swap.walk(self.swap.way_back())
    }
}

impl Swap {
    pub(super) fn way_in(&self) -> Vec<Step> {
        let each = 0..self.slots.len();
        let keep = each.clone().map(Step::Keep);
        self.forget().chain(keep).chain(each.map(Step::Replace)).chain(self.sync()).collect()
    }

    pub(super) fn way_back(&self) -> Vec<Step> {
        let marked = self.slots.iter().enumerate().filter(|(_, s)| s.marked);
        let back = marked.map(|(i, _)| Step::PutBack(i));
        back.chain(self.sync()).chain(self.forget()).collect()
    }

    fn forget(&self) -> impl Iterator<Item = Step> + use<> {
        (0..self.slots.len()).map(Step::Forget)
    }

    fn sync(&self) -> impl Iterator<Item = Step> + use<> {
        let folders: BTreeSet<_> = self.slots.iter().filter_map(|s| s.real.parent()).collect();
        folders.into_iter().map(|f| Step::Sync(f.to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn walk(&mut self, steps: Vec<Step>) -> Result<(), InstallError> {
        steps.iter().try_for_each(|step| self.perform(step))
    }

    pub(super) fn perform(&mut self, step: &Step) -> Result<(), InstallError> {
        match step {
            Step::Forget(i) => self.slots.get_mut(*i).map_or(Ok(()), Slot::forget),
            Step::Keep(i) => self.slots.get_mut(*i).map_or(Ok(()), Slot::keep),
            Step::Replace(i) => self.slots.get_mut(*i).map_or(Ok(()), Slot::replace),
            Step::PutBack(i) => self.slots.get_mut(*i).map_or(Ok(()), Slot::put_back),
            Step::Sync(folder) => File::open(folder)
                .and_then(|f| f.sync_all())
                .map_err(InstallError::io("write to disk the folder", folder)),
        }
    }
}

impl Slot {
    fn forget(&mut self) -> Result<(), InstallError> {
        for mark in [absent(&self.real), previous(&self.real)] {
            gone(fs::remove_file(&mark)).map_err(InstallError::io("remove", &mark))?;
        }
        self.marked = false;
        Ok(())
    }

    /// A link costs nothing and keeps the very file; a copy serves where links are
    /// refused. The link needs no fsync of its own: it is in the same journal, before
    /// the rename.
    fn keep(&mut self) -> Result<(), InstallError> {
        let mark = previous(&self.real);
        match fs::hard_link(&self.real, &mark) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let mark = absent(&self.real);
                File::create(&mark).map_err(InstallError::io("write", &mark))?;
            }
            Err(_) => copy(&self.real, &mark, &self.real)?,
        }
        self.marked = true;
        Ok(())
    }

    fn replace(&mut self) -> Result<(), InstallError> {
        let Some((stage, lock)) = self.stage.take() else { return Ok(()) };
        match stage.persist(&self.real) {
            Ok(()) => drop(lock),
            Err(e) if e.error.kind() == ErrorKind::ResourceBusy => {
                self.write_in_place(&e.path)?;
            }
            Err(e) => return Err(InstallError::io("replace", &self.real)(e.error)),
        }
        Ok(())
    }

    fn put_back(&mut self) -> Result<(), InstallError> {
        if absent(&self.real).exists() {
            return gone(fs::remove_file(&self.real))
                .map_err(InstallError::io("remove", &self.real));
        }
        let mark = previous(&self.real);
        if same_file(&mark, &self.real) {
            return Ok(());
        }
        let next = replacing(&self.real);
        gone(fs::remove_file(&next)).map_err(InstallError::io("remove", &next))?;
        if fs::hard_link(&mark, &next).is_err() {
            copy(&mark, &next, &self.real)?;
        }
        match fs::rename(&next, &self.real) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::ResourceBusy => {
                gone(fs::remove_file(&next)).map_err(InstallError::io("remove", &next))?;
                self.write_in_place(&mark)
            }
            Err(e) => Err(InstallError::io("put back", &self.real)(e)),
        }
    }

    fn write_in_place(&mut self, from: &Path) -> Result<(), InstallError> {
        let bytes = fs::read(from).map_err(InstallError::io("read", from))?;
        if fs::read(&self.real).is_ok_and(|now| now == bytes) {
            // Put back before it was ever replaced.
            return Ok(());
        }
        if !self.target.allow_in_place {
            return Err(InstallError::Mounted(self.target.dest.clone()));
        }
        let mark = previous(&self.real);
        if from != mark && same_file(&mark, &self.real) {
            // The link would be written through.
            copy(&self.real, &mark, &self.real)?;
        }
        self.in_place = true;
        let meta = fs::metadata(from).map_err(InstallError::io("look at", from))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&self.real)
            .map_err(InstallError::io("write in place", &self.real))?;
        file.write_all(&bytes).map_err(InstallError::io("write in place", &self.real))?;
        give(&file, &self.real, access(&meta))?;
        file.sync_all().map_err(InstallError::io("write to disk", &self.real))
    }
}

/// Copies with owner and mode; `to` is there whole or not at all.
fn copy(from: &Path, to: &Path, real: &Path) -> Result<(), InstallError> {
    let mut source = File::open(from).map_err(InstallError::io("read", from))?;
    let meta = source.metadata().map_err(InstallError::io("look at", from))?;
    let mut temp = new_beside(real)?;
    io::copy(&mut source, &mut temp).map_err(InstallError::io("copy", from))?;
    give(temp.as_file(), to, access(&meta))?;
    temp.as_file().sync_all().map_err(InstallError::io("write to disk", to))?;
    temp.persist(to).map_err(|e| InstallError::io("write", to)(e.error))?;
    Ok(())
}

fn access(meta: &fs::Metadata) -> Access {
    Access { mode: meta.mode() & 0o7777, uid: Some(meta.uid()), gid: Some(meta.gid()) }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::symlink_metadata(a), fs::symlink_metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// What is gone need not be removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
