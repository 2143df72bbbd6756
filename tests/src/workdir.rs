//! A private folder that goes away at the end, unless somebody will want to look.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// One scenario's folder.
pub struct Workdir {
    path: PathBuf,
    dir: Option<TempDir>,
}

impl Workdir {
    /// A new, empty folder that only this user can enter.
    #[must_use]
    #[track_caller]
    pub fn create() -> Self {
        let dir = tempfile::Builder::new().prefix("lab-").tempdir().expect("a temporary folder");
        // /proc shows resolved paths; the sweep at the end compares with them.
        let path = dir.path().canonicalize().expect("the folder just made");
        Self { path, dir: Some(dir) }
    }

    /// Where it is, with symlinks resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder inside, made if it is not there.
    #[track_caller]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).expect("a folder in the work folder");
        path
    }

    /// Leaves the folder where it is when the scenario ends.
    pub fn keep(&mut self) -> &Path {
        if let Some(dir) = self.dir.take() {
            let _ = dir.keep();
        }
        &self.path
    }
}
