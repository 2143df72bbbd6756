//! What can go wrong with a file, with what to do about it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why a file was not staged, not swapped, or not put back.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The system refused one step.
    #[error("cannot {doing} {}: {source}{}", .path.display(), hint(.source))]
    Io {
        /// The step, as the verb of "cannot … PATH".
        doing: &'static str,
        /// The file or folder of the step.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The folder of dest does not exist, and `make_directories` is not set.
    #[error(
        "the folder {} of {} does not exist; create it, or set `make_directories = true`",
        .folder.display(), .dest.display()
    )]
    NoFolder {
        /// The file to be written.
        dest: PathBuf,
        /// The folder that is missing.
        folder: PathBuf,
    },
    /// Dest is a symbolic link that leads nowhere.
    #[error(
        "{} is a symbolic link to {}, whose folder does not exist; correct or remove the link",
        .dest.display(), .to.display()
    )]
    Dangling {
        /// The link.
        dest: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// Dest is a symbolic link that leads back to itself.
    #[error("{} is a symbolic link that leads back to itself; remove it", .0.display())]
    LinkLoop(PathBuf),
    /// Dest is there and is no regular file.
    #[error("{} is {what}, not a file; give another dest", .dest.display())]
    NotAFile { dest: PathBuf, what: &'static str },
    /// Dest names no file, or is not an absolute path.
    #[error("`{}` is not an absolute path of a file", .0.display())]
    NotAPath(PathBuf),
    /// Two candidates of one set would be written to the same file.
    #[error("two templates have the same dest, {}", .0.display())]
    Twice(PathBuf),
    /// Dest is mounted as a single file, so it cannot be replaced in one step.
    #[error(
        "{} is mounted as a single file (docker -v FILE:FILE) and cannot be replaced in one step; \
         mount its folder instead, or set `allow_in_place = true`: readers can then see it half written",
        .0.display()
    )]
    Mounted(PathBuf),
    /// Another process writes dest.
    #[error(
        "{} is written by another confsync ({holder}, by the lock {}); a file has one writer: stop \
         one of the two, or give it another dest", .dest.display(), .path.display()
    )]
    Held {
        dest: PathBuf,
        /// Who holds the lock.
        holder: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The proof is for other bytes than those staged.
    #[error("the check was made of another set of files; nothing was installed")]
    OtherProof,
    /// A staged file changed after it was written, perhaps by the check itself.
    #[error(
        "the staged copy of {} was changed by something other than its check_cmd; \
         nothing was installed",
        .0.display()
    )]
    Altered(PathBuf),
    /// The swap failed, and so did putting the earlier files back.
    #[error("{cause}; and the previous files could not all be put back: {restore}")]
    Torn {
        /// Why the swap failed.
        cause: Box<InstallError>,
        /// Why putting back failed.
        restore: Box<InstallError>,
    },
}

impl InstallError {
    /// For `map_err` of one step.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source: bare(source) }
    }
}

/// The system's error without the name of the temporary file that tempfile adds to it: that name is
/// another one at each attempt, and the message has the path anyway.
/// tempfile does not expose the system's error, so the number is read from its text.
fn bare(error: io::Error) -> io::Error {
    let text = error.to_string();
    let number = || {
        let (words, _) = text.split_once(" at path \"")?;
        let (_, number) = words.rsplit_once("(os error ")?;
        number.strip_suffix(')')?.parse().ok()
    };
    number().map_or(error, io::Error::from_raw_os_error)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull => "; free some space, the file in place is unharmed",
        ErrorKind::QuotaExceeded => "; raise the quota, the file in place is unharmed",
        ErrorKind::ReadOnlyFilesystem => {
            "; under systemd's ProtectSystem= add the folder to ReadWritePaths="
        }
        ErrorKind::PermissionDenied => "; the user confsync runs as needs the right to do this",
        ErrorKind::InvalidFilename => "; the name leaves no room for `.NAME.confsync-previous`",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who logs a failure once knows it again by its text.
    #[test]
    fn each_attempt_fails_with_the_same_words() {
        let attempt = || {
            let folder = Path::new("/nowhere/at/all");
            let error = tempfile::NamedTempFile::new_in(folder).unwrap_err();
            InstallError::io("write in the folder", folder)(error).to_string()
        };
        let text =
            "cannot write in the folder /nowhere/at/all: No such file or directory (os error 2)";
        assert_eq!((attempt().as_str(), attempt().as_str()), (text, text));
    }
}
