//! One file in a swap: the staged bytes, the path they replace, and the mark that records what was
//! there before.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use super::names::{absent, previous, replacing};
use super::stage::{give, new_beside};
use super::target::Access;
use super::{InstallError, Staged, Target};

#[derive(Debug)]
pub(super) struct FileSwap {
    target: Target,
    real: PathBuf,
    stage: Option<TempPath>,
    marked: bool,
    in_place: bool,
}

impl FileSwap {
    pub(super) fn staged(staged: Staged) -> Self {
        let (target, real, path) = staged.into_parts();
        Self { target, real, stage: Some(path), marked: false, in_place: false }
    }

    /// One that was found marked after a crash.
    pub(super) fn found(target: Target, real: PathBuf) -> Self {
        Self { target, real, stage: None, marked: true, in_place: false }
    }

    pub(super) fn dest(&self) -> &Path {
        &self.target.dest
    }

    pub(super) fn real(&self) -> &Path {
        &self.real
    }

    pub(super) fn is_marked(&self) -> bool {
        self.marked
    }

    pub(super) fn in_place(&self) -> bool {
        self.in_place
    }

    #[cfg(test)]
    pub(super) fn stage(&self) -> Option<&Path> {
        self.stage.as_deref()
    }

    /// Leaves the stage file behind, as a kill would.
    #[cfg(test)]
    pub(super) fn abandon(&mut self) {
        if let Some(mut path) = self.stage.take() {
            path.disable_cleanup(true);
        }
    }

    pub(super) fn forget(&mut self) -> Result<(), InstallError> {
        for mark in [absent(&self.real), previous(&self.real)] {
            if_there(fs::remove_file(&mark)).map_err(InstallError::io("remove", &mark))?;
        }
        self.marked = false;
        Ok(())
    }

    /// A hard link costs nothing and keeps the very file; a copy serves where links are refused.
    /// The link needs no fsync of its own: it is in the same journal, before the rename.
    pub(super) fn keep(&mut self) -> Result<(), InstallError> {
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

    pub(super) fn replace(&mut self) -> Result<(), InstallError> {
        let Some(stage) = self.stage.take() else { return Ok(()) };
        match stage.persist(&self.real) {
            Ok(()) => {}
            Err(e) if e.error.kind() == ErrorKind::ResourceBusy => {
                self.write_in_place(&e.path)?;
            }
            Err(e) => return Err(InstallError::io("replace", &self.real)(e.error)),
        }
        Ok(())
    }

    /// `None` where old and new have the same content. A mark may be a copy, so that a different
    /// file at dest proves nothing yet.
    pub(super) fn is_replaced(&self) -> Option<bool> {
        if absent(&self.real).exists() {
            return Some(self.real.exists());
        }
        let mark = previous(&self.real);
        if same_file(&mark, &self.real) {
            return Some(false);
        }
        let alike = matches!((fs::read(&mark), fs::read(&self.real)), (Ok(a), Ok(b)) if a == b);
        if alike { None } else { Some(true) }
    }

    pub(super) fn put_back(&mut self) -> Result<(), InstallError> {
        if absent(&self.real).exists() {
            return if_there(fs::remove_file(&self.real))
                .map_err(InstallError::io("remove", &self.real));
        }
        let mark = previous(&self.real);
        if same_file(&mark, &self.real) {
            return Ok(());
        }
        let next = replacing(&self.real);
        if_there(fs::remove_file(&next)).map_err(InstallError::io("remove", &next))?;
        if fs::hard_link(&mark, &next).is_err() {
            copy(&mark, &next, &self.real)?;
        }
        match fs::rename(&next, &self.real) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::ResourceBusy => {
                if_there(fs::remove_file(&next)).map_err(InstallError::io("remove", &next))?;
                self.write_in_place(&mark)
            }
            Err(e) => Err(InstallError::io("put back", &self.real)(e)),
        }
    }

    fn write_in_place(&mut self, from: &Path) -> Result<(), InstallError> {
        let bytes = fs::read(from).map_err(InstallError::io("read", from))?;
        let meta = fs::metadata(from).map_err(InstallError::io("look at", from))?;
        let same_access = fs::metadata(&self.real).is_ok_and(|now| access(&now) == access(&meta));
        if same_access && fs::read(&self.real).is_ok_and(|now| now == bytes) {
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

/// A file that does not exist need not be removed.
fn if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
