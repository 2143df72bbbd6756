//! Where a file goes and with which mode and owner, and the real place behind a
//! symbolic link.

use std::ffi::OsStr;
use std::fs::{self, FileType, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::InstallError;

/// The kernel gives up after as many links.
const MAX_LINKS: usize = 40;

/// Where a file goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The absolute path, as the operator wrote it. A symbolic link is followed.
    pub dest: PathBuf,
    /// Permission bits; without them those of dest, else 0644.
    pub mode: Option<u32>,
    /// Owner; without one that of dest, else the effective user.
    pub uid: Option<u32>,
    /// Group; without one that of dest, else what the system gives a new file.
    pub gid: Option<u32>,
    /// Make the folders of dest if they are missing.
    pub make_directories: bool,
    /// Where dest is mounted as a single file, write into it rather than refuse.
    /// Readers can then see it half written, and a crash can leave it so.
    pub allow_in_place: bool,
}

impl Target {
    /// A target with defaults for everything but its path.
    pub fn new(dest: impl Into<PathBuf>) -> Self {
        Self {
            dest: dest.into(),
            mode: None,
            uid: None,
            gid: None,
            make_directories: false,
            allow_in_place: false,
        }
    }
}

/// Bytes and where they are to go, not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where they go.
    pub target: Target,
    /// What was rendered.
    pub bytes: Vec<u8>,
}

/// The path behind the links, and what is there now.
#[derive(Debug)]
pub(super) struct ResolvedDest {
    pub(super) real: PathBuf,
    pub(super) now: Option<Metadata>,
}

/// Resolves dest to the file that it refers to; a rename would replace the link.
///
/// A link to a file that is not there yet is followed too, as writing through it
/// would, if the folder it leads to exists.
pub(super) fn resolve(dest: &Path) -> Result<ResolvedDest, InstallError> {
    let mut path = dest.to_owned();
    for hop in 0..MAX_LINKS {
        let (folder, name) = split(&path)?;
        let folder = match fs::canonicalize(folder) {
            Ok(folder) => folder,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(if hop == 0 {
                    InstallError::NoFolder { dest: dest.into(), folder: folder.into() }
                } else {
                    InstallError::Dangling { dest: dest.into(), to: path.clone() }
                });
            }
            Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(InstallError::LinkLoop(dest.into()));
            }
            Err(e) => return Err(InstallError::io("reach the folder", folder)(e)),
        };
        let real = folder.join(name);
        match fs::symlink_metadata(&real) {
            Ok(meta) if meta.file_type().is_symlink() => {
                let to = fs::read_link(&real).map_err(InstallError::io("read the link", &real))?;
                path = folder.join(to);
            }
            Ok(meta) if meta.is_file() => return Ok(ResolvedDest { real, now: Some(meta) }),
            Ok(meta) => {
                let what = name_of(meta.file_type());
                return Err(InstallError::NotAFile { dest: dest.into(), what });
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Ok(ResolvedDest { real, now: None });
            }
            Err(e) => return Err(InstallError::io("look at", &real)(e)),
        }
    }
    Err(InstallError::LinkLoop(dest.into()))
}

/// The file behind the links of any path, existing or not; the path itself where it cannot be
/// resolved.
pub fn real_path(path: &Path) -> PathBuf {
    let found = fs::canonicalize(path);
    let found = found.or_else(|_| resolve(path).map(|place| place.real));
    found.unwrap_or_else(|_| path.to_owned())
}

/// Makes the missing folders of dest if the target asks for it.
pub(super) fn make_folder(target: &Target) -> Result<(), InstallError> {
    let (folder, _) = split(&target.dest)?;
    if target.make_directories {
        fs::create_dir_all(folder).map_err(InstallError::io("make the folder", folder))?;
    }
    Ok(())
}

fn split(path: &Path) -> Result<(&Path, &OsStr), InstallError> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if path.is_absolute() => Ok((folder, name)),
        _ => Err(InstallError::NotAPath(path.into())),
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// The mode and owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) mode: u32,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

impl Access {
    /// What the target asks for, else what dest has, else what a new file gets.
    pub(super) fn wanted(target: &Target, now: Option<&Metadata>) -> Self {
        Self {
            mode: target.mode.or_else(|| now.map(|m| m.mode() & 0o7777)).unwrap_or(0o644),
            uid: target.uid.or_else(|| now.map(MetadataExt::uid)),
            gid: target.gid.or_else(|| now.map(MetadataExt::gid)),
        }
    }
}
