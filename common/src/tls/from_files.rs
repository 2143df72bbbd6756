//! Something that is made from files, and made again when one of them has changed.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Makes something of the files' contents; the error is for an operator, and names the file.
type Parse<T> = fn(&[PathBuf], &[Vec<u8>]) -> Result<T, String>;

/// A value parsed from some files. Each use costs a `stat` per file; the files are read again only
/// when one of them has changed.
pub struct FromFiles<T> {
    paths: Vec<PathBuf>,
    /// What each file is, for an operator.
    kinds: &'static [&'static str],
    parse: Parse<T>,
    state: Mutex<FilesState<T>>,
}

struct FilesState<T> {
    /// The files as they were last read.
    seen: Option<Vec<Option<FileVersion>>>,
    /// The last content that could be used.
    good: Option<Arc<T>>,
    /// Why the present content cannot be used.
    wrong: String,
}

/// What distinguishes one version of a file from the next.
#[derive(Debug, PartialEq, Eq)]
struct FileVersion {
    device_and_inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    /// `None` if there is no such file, or none that may be looked at.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device_and_inode: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

impl<T> FromFiles<T> {
    /// Nothing is read before the first use. `kinds` is what each of the files is, such as
    /// `client key`.
    pub fn new(paths: Vec<PathBuf>, kinds: &'static [&'static str], parse: Parse<T>) -> Self {
        let state = FilesState { seen: None, good: None, wrong: String::new() };
        Self { paths, kinds, parse, state: Mutex::new(state) }
    }

    /// The value of the files as they are now, or else the last one that could be parsed.
    ///
    /// # Errors
    /// When nothing could ever be used: why not, for an operator.
    pub fn current(&self) -> Result<Arc<T>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at before they are read: a change in between is seen the next time.
        let now: Vec<_> = self.paths.iter().map(|path| FileVersion::of(path)).collect();
        if state.seen.as_ref() != Some(&now) {
            state.seen = Some(now);
            self.renew(&mut state);
        }
        state.good.clone().ok_or_else(|| state.wrong.clone())
    }

    fn renew(&self, state: &mut FilesState<T>) {
        let again = state.good.is_some();
        match self.read() {
            Ok(new) => {
                if again {
                    tracing::info!(files = %self.names(), "the files have changed; read again");
                }
                state.good = Some(Arc::new(new));
            }
            Err(why) => {
                if again {
                    tracing::warn!("{why}; the previous content stays in use");
                }
                state.wrong = why;
            }
        }
    }

    fn read(&self) -> Result<T, String> {
        let read = |(path, kind): (&PathBuf, &&str)| {
            fs::read(path).map_err(|e| format!("cannot read the {kind} {}: {e}", path.display()))
        };
        let files = self.paths.iter().zip(self.kinds);
        let contents = files.map(read).collect::<Result<Vec<_>, _>>()?;
        (self.parse)(&self.paths, &contents)
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        names.join(", ")
    }
}

impl<T> fmt::Debug for FromFiles<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFiles").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(_: &[PathBuf], contents: &[Vec<u8>]) -> Result<u32, String> {
        let text = String::from_utf8_lossy(contents.first().map_or(&[], Vec::as_slice));
        text.trim().parse().map_err(|_| "not a number".to_owned())
    }

    #[test]
    fn a_change_is_read_and_what_cannot_be_used_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let source = FromFiles::new(vec![path.clone()], &["number"], number);
        let now = || source.current().map(|number| *number);
        assert!(now().unwrap_err().starts_with("cannot read "));
        fs::write(&path, "x").unwrap();
        assert_eq!(now(), Err("not a number".to_owned()));
        fs::write(&path, "1").unwrap();
        assert_eq!(now(), Ok(1));
        // Renamed over it, with the same size and the times of before.
        let next = folder.path().join("next");
        fs::write(&next, "2").unwrap();
        let times = fs::metadata(&path).unwrap().modified().unwrap();
        fs::File::options().append(true).open(&next).unwrap().set_modified(times).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(now(), Ok(2));
        fs::write(&path, "half").unwrap();
        assert_eq!(now(), Ok(2));
        fs::remove_file(&path).unwrap();
        assert_eq!(now(), Ok(2));
        fs::write(&path, "3").unwrap();
        assert_eq!(now(), Ok(3));
    }
}
