//! The files that an `include` refers to: as glob(3) expands it for nginx, plus files that are
//! about to exist.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::conf::quote;

/// Like glob(3) without flags: a star stops at a slash and does not match a leading dot.
const AS_NGINX: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The files that `pattern` matches once `dests` exist, in nginx's order. A pattern without
/// wildcards is taken literally, existing or not.
pub(super) fn expand(pattern: &Path, dests: &[PathBuf]) -> Vec<PathBuf> {
    if !has_wildcards(pattern) {
        return vec![pattern.to_owned()];
    }
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Vec::new();
    };
    let Ok(name) = Pattern::new(&name.to_string_lossy()) else { return Vec::new() };
    // Sorted by bytes, as glob(3) does; a `Path` would compare component by component.
    let mut found = BTreeSet::new();
    for folder in folders(folder) {
        let there = fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.file_name());
        let real = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        let coming = dests.iter().filter(|dest| dest.parent() == Some(&real));
        let coming = coming.filter_map(|dest| dest.file_name()).map(ToOwned::to_owned);
        let meant = there.chain(coming);
        let meant = meant.filter(|entry| name.matches_with(&entry.to_string_lossy(), AS_NGINX));
        found.extend(meant.map(|entry| folder.join(entry).into_os_string()));
    }
    found.into_iter().map(PathBuf::from).collect()
}

fn folders(pattern: &Path) -> Vec<PathBuf> {
    if !has_wildcards(pattern) {
        return vec![pattern.to_owned()];
    }
    let found = glob::glob_with(&pattern.to_string_lossy(), AS_NGINX);
    found.into_iter().flatten().flatten().filter(|path| path.is_dir()).collect()
}

fn has_wildcards(path: &Path) -> bool {
    path.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte))
}

/// An `include` directive for exactly this file.
pub(super) fn directive(file: &Path) -> Vec<u8> {
    let mut word = Vec::new();
    for &byte in file.as_os_str().as_bytes() {
        // nginx takes a name with a wildcard for a pattern, in which `\` escapes.
        if has_wildcards(file) && b"*?[\\".contains(&byte) {
            word.push(b'\\');
        }
        word.push(byte);
    }
    [b"include ".as_slice(), &quote(&word), b";"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[PathBuf]) -> Vec<&str> {
        found.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect()
    }

    #[test]
    fn what_is_there_and_what_is_coming() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf", "other.txt"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        let dests = [root.join("ab.conf"), root.join("b.conf"), PathBuf::from("/else/c.conf")];
        assert_eq!(names(&expand(&root.join("*.conf"), &dests)), ["a.conf", "ab.conf", "b.conf"]);
        assert_eq!(names(&expand(&root.join("[ab].conf"), &[])), ["a.conf", "b.conf"]);
        assert_eq!(names(&expand(&root.join("none"), &[])), ["none"]);
        assert!(expand(&root.join("no/*.conf"), &dests).is_empty());
    }

    #[test]
    fn wildcards_in_folders_and_folders_behind_links() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/x")).unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        let dests = [root.join("real/x/new.conf")];
        let found = expand(&root.join("link/*/*.conf"), &dests);
        assert_eq!(found, [root.join("link/x/new.conf")]);
    }

    #[test]
    fn a_name_with_wildcards_is_escaped() {
        assert_eq!(directive(Path::new("/a b/c.conf")), b"include \"/a b/c.conf\";");
        assert_eq!(directive(Path::new("/a[1]/c")), b"include \"/a\\\\[1]/c\";");
    }
}
