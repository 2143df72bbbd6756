//! The system that a template may query: clock, environment, files, names.
//!
//! Templates themselves are pure. Every result from here may differ from render to render.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::dns::ServiceRecord;

/// The system that a render may query.
pub trait System: fmt::Debug + Send + Sync {
    fn now(&self) -> SystemTime;

    /// A variable of the environment, if it is set.
    fn variable(&self, name: &str) -> Option<Vec<u8>>;

    /// The system's own name.
    fn hostname(&self) -> String;

    /// Whether a file exists; also true where that cannot be determined.
    fn file_exists(&self, path: &Path) -> bool;

    /// The addresses of a name; none when it does not exist.
    ///
    /// # Errors
    /// When no resolver answers. That must not count as "none", which would empty the rendered
    /// file.
    fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String>;

    /// The SRV records of a name; none when it does not exist.
    ///
    /// # Errors
    /// As for [`System::addresses`].
    fn services(&self, name: &str) -> Result<Vec<ServiceRecord>, String>;

    /// The addresses of a network interface.
    fn interface(&self, name: &str) -> Vec<IpAddr>;

    /// Finds and reads a file below a folder, by its path from there.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or a link leads out of the folder.
    fn include(&self, folder: &Path, path: &Path) -> Result<IncludedFile, IncludeError>;
}

/// A file to include.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncludedFile {
    /// Where it is, links followed: the same file is known by it.
    pub path: PathBuf,
    pub text: Vec<u8>,
}

/// Why a file is not included.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// It, or what a link leads to, is not below the folder.
    #[error("it is outside the folder")]
    Outside,
    /// It has more bytes than a template may have.
    #[error("{0} bytes are too many")]
    TooLarge(u64),
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A system that answers nothing: for templates that must depend on their keys alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSystem;

impl System for NoSystem {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn variable(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn hostname(&self) -> String {
        "localhost".to_owned()
    }

    fn file_exists(&self, _: &Path) -> bool {
        false
    }

    fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        Err("there is no resolver".to_owned())
    }

    fn services(&self, _: &str) -> Result<Vec<ServiceRecord>, String> {
        Err("there is no resolver".to_owned())
    }

    fn interface(&self, _: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    fn include(&self, _: &Path, _: &Path) -> Result<IncludedFile, IncludeError> {
        Err(std::io::Error::from(std::io::ErrorKind::NotFound).into())
    }
}
