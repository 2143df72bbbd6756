//! What an earlier run left beside a dest: previous files whose fate is undecided, and stage files
//! to remove.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::names::{absent, is_stage_name, previous};
use super::swap::SwapProgress;
use super::target::{ResolvedDest, resolve};
use super::{InstallError, InstalledFiles, Target};

/// What an earlier run left behind.
#[derive(Debug)]
pub enum Recovered {
    /// Nothing to decide.
    Nothing,
    /// It ended in the middle of a swap; the previous files are back in place.
    PutBack,
    /// All new files are in place, but it is not known whether nginx runs them.
    Undecided(InstalledFiles),
}

/// Completes or undoes a swap that an earlier run did not finish. Call it before a new install.
///
/// Where only some of the files have a previous one, all dests are of one kind (see
/// the order of the steps), and what is left is only removed.
///
/// # Errors
/// When the files cannot be looked at or put back.
pub fn recover(targets: &[Target]) -> Result<Recovered, InstallError> {
    let mut places = Vec::new();
    for target in targets {
        if let Some(real) = place(target)? {
            places.push((target.clone(), real));
        }
    }
    let known = places.len();
    places.retain(|(_, real)| previous(real).exists() || absent(real).exists());
    let whole = known == targets.len() && places.len() == known;
    if places.is_empty() {
        return Ok(Recovered::Nothing);
    }
    let set = InstalledFiles::found(places);
    match set.progress() {
        SwapProgress::New if whole => Ok(Recovered::Undecided(set)),
        SwapProgress::Between if whole => set.rollback().map(|()| Recovered::PutBack),
        _ => set.commit().map(|()| Recovered::Nothing),
    }
}

/// Removes stage files that an earlier run of ours left beside this dest, and returns them.
/// Requires the lock of the dest: no other process has candidates there then.
///
/// # Errors
/// When the folder cannot be read or a file not removed.
pub fn clean_stale(target: &Target) -> Result<Vec<PathBuf>, InstallError> {
    let Some(real) = place(target)? else { return Ok(Vec::new()) };
    clean_beside(&real)
}

/// Like [`clean_stale`], for any file beside which we make others.
pub(crate) fn clean_beside(real: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let (Some(folder), Some(name)) = (real.parent(), real.file_name()) else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for entry in fs::read_dir(folder).map_err(InstallError::io("read the folder", folder))? {
        let entry = entry.map_err(InstallError::io("read the folder", folder))?;
        let path = entry.path();
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if regular && is_stage_name(&entry.file_name(), name) && !held(&path) {
            fs::remove_file(&path).map_err(InstallError::io("remove", &path))?;
            removed.push(path);
        }
    }
    Ok(removed)
}

fn held(path: &Path) -> bool {
    // A file that cannot be opened may be in use: leave it.
    File::open(path).map_or(true, |file| file.try_lock().is_err())
}

/// The resolved path, or `None` where even the folder is missing.
pub(super) fn place(target: &Target) -> Result<Option<PathBuf>, InstallError> {
    match resolve(&target.dest) {
        Ok(ResolvedDest { real, .. }) => Ok(Some(real)),
        Err(InstallError::NoFolder { .. } | InstallError::Dangling { .. }) => Ok(None),
        Err(InstallError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
