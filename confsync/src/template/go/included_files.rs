//! The files that `include` may read: those in the folder of templates, and no file inside itself.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use crate::template::functions::Fault;
use crate::template::system::{IncludeError, IncludedFile, System};

/// How deep includes may be nested.
const MAX_INCLUDES: usize = 10;

/// The files being rendered, outermost first.
#[derive(Debug)]
pub(super) struct Includes<'a> {
    folder: Option<&'a Path>,
    open: RefCell<Vec<PathBuf>>,
}

impl<'a> Includes<'a> {
    pub(super) fn new(folder: Option<&'a Path>) -> Self {
        Self { folder, open: RefCell::new(Vec::new()) }
    }

    /// Reads the file with this name, if it is inside the folder.
    pub(super) fn read(&self, system: &dyn System, name: &str) -> Result<IncludedFile, Fault> {
        let folder = self.folder.ok_or("there is no folder of templates to include from")?;
        let path = Path::new(name.trim_start_matches('/'));
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        let found = match path.components().all(inside) {
            true => system.include(folder, path),
            false => Err(IncludeError::Outside),
        };
        found.map_err(|error| match error {
            IncludeError::Outside => {
                let what = format!("include path {name:?} is outside template directory");
                Fault::new(what, "name a file below the folder of templates")
            }
            IncludeError::TooLarge(_) => format!("include {name}: {error}").into(),
            IncludeError::Io(_) => {
                Fault::new(format!("include {name}: {error}"), "is the name right?")
            }
        })
    }

    pub(super) fn push(&self, file: &Path) -> Result<(), Fault> {
        let mut open = self.open.borrow_mut();
        if open.iter().any(|other| other == file) {
            let fault =
                format!("include cycle detected: {} is already being processed", file.display());
            return Err(fault.into());
        }
        if open.len() >= MAX_INCLUDES {
            return Err(format!("maximum include depth ({MAX_INCLUDES}) exceeded").into());
        }
        open.push(file.to_owned());
        Ok(())
    }

    pub(super) fn pop(&self) {
        self.open.borrow_mut().pop();
    }
}
