//! One writer for each dest: a lock on a file beside it, taken for as long as it is written.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::names::lock;
use super::recover::place;
use super::{InstallError, Target};

/// The right to write one dest. The lock ends with the process at the latest.
#[derive(Debug)]
pub struct DestLock {
    dest: PathBuf,
    path: PathBuf,
    _file: File,
}

impl DestLock {
    /// Takes the locks of all targets that are not `held` yet.
    ///
    /// # Errors
    /// [`InstallError::Held`] when another process writes one of them.
    pub fn take_all(targets: &[Target], held: &mut Vec<Self>) -> Result<(), InstallError> {
        for target in targets {
            if !held.iter().any(|lock| lock.dest == target.dest) {
                held.extend(Self::take(target)?);
            }
        }
        Ok(())
    }

    /// `None` where there is no folder yet, or none that we may write: nothing can be staged there
    /// either, which is reported when it is tried.
    fn take(target: &Target) -> Result<Option<Self>, InstallError> {
        let Some(real) = place(target)? else { return Ok(None) };
        let path = lock(&real);
        loop {
            let Ok(mut file) = open(&path) else { return Ok(None) };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // A holder that cannot be read is not named.
                    let _ = file.take(64).read_to_string(&mut holder);
                    let (dest, holder) = (target.dest.clone(), holder.trim().to_owned());
                    return Err(InstallError::Held { dest, holder, path });
                }
                // A file system without locks.
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            if !is(&file, &path) {
                // Its last holder has removed it in between.
                continue;
            }
            let _ = file.set_len(0);
            let _ = write!(file, "process {}", std::process::id());
            return Ok(Some(Self { dest: target.dest.clone(), path, _file: file }));
        }
    }
}

impl Drop for DestLock {
    /// Removed while it is locked: a process that has it open checks whether it still exists.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// In a folder that others may write, the name may be a link to a file that is not ours to write.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    let meta = file.metadata()?;
    match meta.is_file() && meta.nlink() <= 1 {
        true => Ok(file),
        false => Err(ErrorKind::InvalidInput.into()),
    }
}

fn is(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(file), Ok(path)) => (file.dev(), file.ino()) == (path.dev(), path.ino()),
        (_, Err(error)) => error.kind() != ErrorKind::NotFound,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_by_any_name_of_the_file_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (dest, link) = (folder.path().join("app.conf"), folder.path().join("link"));
        std::os::unix::fs::symlink("app.conf", &link).unwrap();
        let (dest, link) = (Target::new(dest), Target::new(link));
        let mut mine = Vec::new();
        DestLock::take_all(std::slice::from_ref(&dest), &mut mine).unwrap();
        DestLock::take_all(std::slice::from_ref(&dest), &mut mine).unwrap();
        assert_eq!(mine.len(), 1);
        for target in [dest, link.clone()] {
            let error = DestLock::take_all(&[target], &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        }
        drop(mine);
        let mut other = Vec::new();
        DestLock::take_all(&[link], &mut other).unwrap();
        drop(other);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the link");
        // Another user who may write there cannot make us write elsewhere.
        let treasure = folder.path().join("treasure");
        fs::write(&treasure, "kept").unwrap();
        std::os::unix::fs::symlink(&treasure, folder.path().join(".x.confsync-lock")).unwrap();
        let mut none = Vec::new();
        DestLock::take_all(&[Target::new(folder.path().join("x"))], &mut none).unwrap();
        assert!(none.is_empty());
        assert_eq!(fs::read(&treasure).unwrap(), b"kept");
        let gone = Target::new(folder.path().join("none/app.conf"));
        DestLock::take_all(&[gone], &mut Vec::new()).unwrap();
    }
}
