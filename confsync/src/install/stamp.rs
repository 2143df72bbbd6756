//! Whether files may have changed since they were looked at, without reading them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::Target;

/// The file system's view of a set: equal stamps mean that no file was written, replaced or
/// removed, or had its mode or owner changed (which moves its change time).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<FileStamp>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The present stamp. A file that does not exist, or cannot be examined, is `None`.
    pub fn of(targets: &[Target]) -> Self {
        let file = |target: &Target| {
            let meta = fs::metadata(&target.dest).ok()?;
            let changed = (meta.ctime(), meta.ctime_nsec());
            Some(FileStamp { place: (meta.dev(), meta.ino()), size: meta.size(), changed })
        };
        Self(targets.iter().map(file).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_with_bytes_place_and_absence() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("a");
        let stamp = || Stamp::of(&[Target::new(&dest)]);
        let absent = stamp();
        fs::write(&dest, "one").unwrap();
        let one = stamp();
        assert_ne!(absent, one);
        assert_eq!(one, stamp());
        let other = folder.path().join("b");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &dest).unwrap();
        assert_ne!(one, stamp());
        fs::remove_file(&dest).unwrap();
        assert_eq!(stamp(), absent);
    }
}
