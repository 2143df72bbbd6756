//! The names of our files beside dest. All begin with a dot, which no glob of nginx matches, and
//! carry our name, so that only our own files are ever cleaned up.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How many letters and digits a stage file has at its end. No word below has as
/// many, so that none is taken for a stage file.
pub(crate) const RANDOM: usize = 6;
const PREVIOUS: &str = "previous";
const ABSENT: &str = "no-previous";
const REPLACING: &str = "replacing";
const LOCK: &str = "lock";

/// `.NAME.confsync-`, with which all names of ours for this file begin.
pub(crate) fn stage_prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".confsync-");
    prefix
}

/// Whether `entry` is a stage file of ours for the file called `name`.
pub(crate) fn is_stage_name(entry: &OsStr, name: &OsStr) -> bool {
    let prefix = stage_prefix(name).into_vec();
    entry.as_bytes().strip_prefix(prefix.as_slice()).is_some_and(|rest| {
        rest == REPLACING.as_bytes()
            || (rest.len() == RANDOM && rest.iter().all(u8::is_ascii_alphanumeric))
    })
}

/// The previous content of `real`.
pub(super) fn previous(real: &Path) -> PathBuf {
    beside(real, PREVIOUS)
}

/// Records that there was no file before.
pub(super) fn absent(real: &Path) -> PathBuf {
    beside(real, ABSENT)
}

/// The lock of the process that writes `real`.
pub(super) fn lock(real: &Path) -> PathBuf {
    beside(real, LOCK)
}

/// The name under which a link to the previous file is made before it takes dest's
/// place: a link cannot be made over a name that is taken.
pub(super) fn replacing(real: &Path) -> PathBuf {
    beside(real, REPLACING)
}

/// A file that another module keeps beside the file that `dest` resolves to.
pub(crate) fn note(dest: &Path, word: &str) -> PathBuf {
    let real = dest.canonicalize().unwrap_or_else(|_| dest.to_owned());
    beside(&real, word)
}

/// The same for who knows already what `dest` resolves to.
pub(crate) fn beside(real: &Path, word: &str) -> PathBuf {
    let mut name = stage_prefix(real.file_name().unwrap_or_default());
    name.push(word);
    real.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_and_only_ours() {
        let ours = |entry: &str| is_stage_name(OsStr::new(entry), OsStr::new("up.conf"));
        assert!(ours(".up.conf.confsync-a1B2c3"));
        for other in [
            "up.conf",
            ".up.conf",
            ".up.conf.confsync-previous",
            ".up.conf.confsync-no-previous",
            ".up.conf.confsync-a1B2c",
            ".up.conf.confsync-a1B2c3.bak",
            ".up2.conf.confsync-a1B2c3",
            "up.conf.confsync-a1B2c3",
            ".up.conf1234567",
        ] {
            assert!(!ours(other), "{other}");
        }
    }
}
