//! The first stage: bytes written whole beside dest, with their owner and mode,
//! where no reader finds them.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use super::names::{RANDOM, stage_prefix};
use super::target::{Access, ResolvedDest, make_folder, resolve};
use super::{Candidate, Digest, InstallError, Target, Wanted};

/// One file of a set, written beside its dest and not checked. Dropping it removes
/// the staged file.
#[derive(Debug)]
pub struct Staged {
    pub(super) target: Target,
    pub(super) real: PathBuf,
    /// Closed, and not locked: a check may run, lock and edit it.
    pub(super) path: TempPath,
    stamp: EditStamp,
}

/// Files of one set, staged and not checked.
#[derive(Debug)]
pub struct StagedFiles {
    files: Vec<Staged>,
    digest: Digest,
}

/// Proof that a check has passed these very bytes. Only checks create one.
#[derive(Debug)]
#[must_use]
pub struct Proof {
    digest: Digest,
    /// What the staged files are after a check that may edit them; none after another.
    edits: Option<Vec<EditStamp>>,
}

impl Proof {
    /// For a check that has passed `set`.
    pub(crate) fn passed(set: &StagedFiles) -> Self {
        Self { digest: set.digest, edits: None }
    }

    /// For a resource without a check, as confd allows.
    pub fn nothing_to_ask(set: &StagedFiles) -> Self {
        Self { digest: set.digest, edits: None }
    }

    /// For commands that have passed `set`. What they made of the candidates is installed, as in
    /// confd.
    ///
    /// # Errors
    /// When a candidate is no file any more.
    pub(crate) fn passed_by_commands(set: &StagedFiles) -> Result<Self, InstallError> {
        let edits = set.files.iter().map(Staged::stamp_now).collect::<Result<_, _>>()?;
        Ok(Self { digest: set.digest, edits: Some(edits) })
    }
}

/// Shows whether a file was written to since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EditStamp(u64, u64, i64, i64);

impl EditStamp {
    fn of(meta: &Metadata) -> Self {
        Self(meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
    }
}

/// The paths of one candidate, for a check that reads it in the place of its dest.
#[derive(Debug, Clone)]
pub(crate) struct StagedPaths {
    /// As the operator wrote it: the name to use in messages.
    pub(crate) dest: PathBuf,
    /// The file that dest means, behind links; it may not exist yet.
    pub(crate) real: PathBuf,
    /// Where the candidate is.
    pub(crate) staged: PathBuf,
}

impl Staged {
    pub(super) fn paths(&self) -> StagedPaths {
        StagedPaths {
            dest: self.target.dest.clone(),
            real: self.real.clone(),
            staged: self.path.to_path_buf(),
        }
    }

    fn write(candidate: &Candidate) -> Result<Self, InstallError> {
        let target = candidate.target.clone();
        make_folder(&target)?;
        let ResolvedDest { real, now } = resolve(&target.dest)?;
        let mut temp = new_beside(&real)?;
        let path = temp.path().to_owned();
        temp.write_all(&candidate.bytes).map_err(InstallError::io("write beside", &real))?;
        give(temp.as_file(), &path, Access::wanted(&target, now.as_ref()))?;
        temp.as_file().sync_all().map_err(InstallError::io("write to disk beside", &real))?;
        let meta = temp.as_file().metadata().map_err(InstallError::io("look at", &path))?;
        Ok(Self { target, real, path: temp.into_temp_path(), stamp: EditStamp::of(&meta) })
    }

    /// The dest as the operator wrote it: the name to use in messages.
    pub fn dest(&self) -> &Path {
        &self.target.dest
    }

    /// Where the unchecked bytes are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn stamp_now(&self) -> Result<EditStamp, InstallError> {
        match fs::symlink_metadata(&self.path) {
            Ok(meta) if meta.is_file() => Ok(EditStamp::of(&meta)),
            Ok(_) => Err(InstallError::Altered(self.target.dest.clone())),
            Err(e) => Err(InstallError::io("look at", &self.path)(e)),
        }
    }

    fn unaltered(&self) -> Result<(), InstallError> {
        if self.stamp_now()? == self.stamp {
            Ok(())
        } else {
            Err(InstallError::Altered(self.target.dest.clone()))
        }
    }

    /// Accepts the candidate as its check has edited it, on disk, with the wanted owner and mode.
    fn take_edit(&mut self, stamp: EditStamp) -> Result<bool, InstallError> {
        if stamp == self.stamp {
            return Ok(false);
        }
        let path: &Path = &self.path;
        let file = File::open(path).map_err(InstallError::io("read", path))?;
        let ResolvedDest { now, .. } = resolve(&self.target.dest)?;
        give(&file, path, Access::wanted(&self.target, now.as_ref()))?;
        file.sync_all().map_err(InstallError::io("write to disk", path))?;
        self.stamp = stamp;
        Ok(true)
    }

    pub(super) fn into_parts(self) -> (Target, PathBuf, TempPath) {
        (self.target, self.real, self.path)
    }
}

impl StagedFiles {
    /// Writes every candidate beside its dest, whole and on disk, with owner and
    /// mode. Dest is not touched.
    ///
    /// # Errors
    /// When one cannot be written; nothing is left behind then.
    pub fn write(wanted: &Wanted) -> Result<Self, InstallError> {
        let mut places = BTreeSet::new();
        let mut files = Vec::with_capacity(wanted.files().len());
        for candidate in wanted.files() {
            let staged = Staged::write(candidate)?;
            if !places.insert(staged.real.clone()) {
                return Err(InstallError::Twice(staged.real));
            }
            files.push(staged);
        }
        Ok(Self { files, digest: wanted.digest() })
    }

    /// The files, in the order of the candidates.
    pub fn files(&self) -> &[Staged] {
        &self.files
    }

    /// The paths of each file.
    pub(crate) fn paths(&self) -> Vec<StagedPaths> {
        self.files.iter().map(Staged::paths).collect()
    }

    /// The digest of what is staged.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The files that `proof` is for, and whether the check has edited them.
    ///
    /// # Errors
    /// When the proof is for other bytes, or the staged files were changed since.
    pub(super) fn proven(mut self, proof: Proof) -> Result<(Vec<Staged>, bool), InstallError> {
        if proof.digest != self.digest {
            return Err(InstallError::OtherProof);
        }
        let mut edited = false;
        for (file, stamp) in self.files.iter_mut().zip(proof.edits.unwrap_or_default()) {
            edited |= file.take_edit(stamp)?;
        }
        self.files.iter().try_for_each(Staged::unaltered)?;
        Ok((self.files, edited))
    }
}

/// A new file of ours in the folder of `real`, readable by us alone, removed when
/// dropped, and locked, so that no clean-up takes it for a stale one.
pub(crate) fn new_beside(real: &Path) -> Result<NamedTempFile, InstallError> {
    let folder = real.parent().unwrap_or(Path::new("/"));
    let temp = tempfile::Builder::new()
        .prefix(&stage_prefix(real.file_name().unwrap_or_default()))
        .rand_bytes(RANDOM)
        .tempfile_in(folder)
        .map_err(InstallError::io("write beside", real))?;
    temp.as_file().lock().map_err(InstallError::io("lock", temp.path()))?;
    Ok(temp)
}

/// Owner first: a change of owner clears the set-user-id bit of the mode.
pub(super) fn give(file: &File, path: &Path, access: Access) -> Result<(), InstallError> {
    let meta = file.metadata().map_err(InstallError::io("look at", path))?;
    let uid = access.uid.filter(|uid| *uid != meta.uid());
    let gid = access.gid.filter(|gid| *gid != meta.gid());
    if uid.is_some() || gid.is_some() {
        fchown(file, uid, gid).map_err(InstallError::io("set the owner of", path))?;
    }
    file.set_permissions(Permissions::from_mode(access.mode))
        .map_err(InstallError::io("set the mode of", path))
}
