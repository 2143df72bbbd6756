//! The user of etcd, with the password as it is now.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::StoreError;
use crate::tls::FromFiles;

/// A user of etcd.
#[derive(Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// Never printed.
    pub password: Password,
}

/// Where a password comes from.
#[derive(Clone)]
pub enum Password {
    /// The password itself.
    Given(String),
    /// A file whose first line it is.
    File(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A user whose password, if it is in a file, may be changed at any time.
pub(super) struct User {
    pub(super) name: String,
    password: PasswordSource,
}

enum PasswordSource {
    Given(Arc<String>),
    File(FromFiles<String>),
}

impl User {
    /// # Errors
    /// [`StoreError::Setup`] when there is no password in the file.
    pub(super) fn new(credentials: &Credentials) -> Result<Self, StoreError> {
        let password = match &credentials.password {
            Password::Given(password) => PasswordSource::Given(Arc::new(password.clone())),
            Password::File(file) => PasswordSource::File(FromFiles::new(
                vec![file.clone()],
                &["password file"],
                first_line,
            )),
        };
        let user = Self { name: credentials.user.clone(), password };
        user.password()?;
        Ok(user)
    }

    /// The password: the file is read again when it has changed.
    ///
    /// # Errors
    /// [`StoreError::Setup`] when there never was one.
    pub(super) fn password(&self) -> Result<Arc<String>, StoreError> {
        match &self.password {
            PasswordSource::Given(password) => Ok(Arc::clone(password)),
            PasswordSource::File(file) => file.current().map_err(StoreError::Setup),
        }
    }
}

fn first_line(paths: &[PathBuf], contents: &[Vec<u8>]) -> Result<String, String> {
    let file = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    let text = contents.first().map_or(&[][..], Vec::as_slice);
    let text = std::str::from_utf8(text).map_err(|_| format!("{file} is not UTF-8 text"))?;
    let line = text.lines().next().filter(|line| !line.is_empty());
    line.map(str::to_owned).ok_or_else(|| format!("{file} has no password in its first line"))
}
