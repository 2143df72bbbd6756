//! A copy of nginx's configuration in which the staged files replace their dests. `nginx -t` gets
//! this copy, so that a candidate is checked in the full tree before anything that runs is
//! affected.
//!
//! Only the files on the way from the main file to a dest are copied, each with its `include`
//! expanded file by file on the same line, so that line numbers are kept. The copy of the main file
//! is a dot-file beside it, because relative names are resolved against the folder of the main
//! file. Where that folder cannot be written, a private folder with links to all its entries is
//! used instead. (There, an `include ../x` is still found; other directives with `../` are not.)
//!
//! `pid` is redirected to a scratch file, since `nginx -t` creates the file it names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memchr::memmem;
use tempfile::{NamedTempFile, TempDir};

use super::conf::{Directive, Edit, parse, quote, replace};
use super::include;
use crate::install::{InstallError, StagedPaths, new_beside, real_path};

/// Deeper includes are left as they are; in a circle, nginx itself would run out of open files.
const MAX_DEPTH: usize = 16;

/// The copy; dropping it removes it.
#[derive(Debug)]
pub(super) struct Shadow {
    /// The argument for `nginx -c`.
    pub(super) main: PathBuf,
    /// The dests that no include reaches.
    pub(super) unreached: Vec<PathBuf>,
    /// Names of the copies in nginx's messages, and the names to show for them; longest first.
    names: Vec<(String, String)>,
    _files: Vec<NamedTempFile>,
    _room: Option<TempDir>,
}

impl Shadow {
    /// Builds the copy of the tree under `conf`.
    ///
    /// # Errors
    /// When the main file cannot be read, or the copy not written.
    pub(super) fn build(conf: &Path, staged: &[StagedPaths]) -> Result<Self, InstallError> {
        let room = Room::find(conf)?;
        let mut walk = IncludeWalk {
            base: conf.parent().unwrap_or(Path::new("/")).to_owned(),
            reals: staged.iter().map(|s| s.real.clone()).collect(),
            staged,
            reached: BTreeSet::new(),
            pid: quote(room.pid.path().as_os_str().as_bytes()),
            has_pid: false,
            beside: room.beside.clone(),
            copies: Vec::new(),
            names: Vec::new(),
        };
        let main = walk.copy_main(conf)?;
        let mut names = walk.names;
        names.extend(staged.iter().map(|s| (s.staged.clone(), s.dest.clone())));
        if let (Some(folder), Some(base)) = (&room.folder, conf.parent()) {
            names.push((folder.path().into(), base.into()));
        }
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut names: Vec<_> = names.into_iter().map(|(a, b)| (text(a), text(b))).collect();
        names.sort_by_key(|(ours, _)| std::cmp::Reverse(ours.len()));
        let reached = walk.reached;
        let unreached = staged.iter().filter(|s| !reached.contains(&s.real));
        let unreached = unreached.map(|s| s.dest.clone()).collect();
        let mut files = walk.copies;
        files.push(room.pid);
        Ok(Self { main, unreached, names, _files: files, _room: room.folder })
    }

    /// nginx's message with the file names that the operator knows.
    pub(super) fn translate(&self, message: &str) -> String {
        self.names.iter().fold(message.to_owned(), |m, (ours, theirs)| m.replace(ours, theirs))
    }
}

/// Whether an include of the configuration under `conf` reaches this file, which need not exist.
///
/// # Errors
/// When the main file cannot be read, or no copy of it written.
pub fn is_included(conf: &Path, dest: &Path) -> Result<bool, InstallError> {
    let staged = if dest.is_file() { dest } else { Path::new("/dev/null") };
    let one =
        StagedPaths { dest: dest.to_owned(), real: real_path(dest), staged: staged.to_owned() };
    Ok(Shadow::build(conf, &[one])?.unreached.is_empty())
}

/// The folder for the copies.
struct Room {
    /// Copies are created beside this path.
    beside: PathBuf,
    pid: NamedTempFile,
    folder: Option<TempDir>,
}

impl Room {
    fn find(conf: &Path) -> Result<Self, InstallError> {
        match new_beside(conf) {
            Ok(pid) => return Ok(Self { beside: conf.into(), pid, folder: None }),
            Err(InstallError::Io { source, .. })
                if matches!(
                    source.kind(),
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                ) => {}
            Err(e) => return Err(e),
        }
        let tmp = std::env::temp_dir();
        let folder = tempfile::Builder::new()
            .prefix("confsync-check-")
            .tempdir()
            .map_err(InstallError::io("write in the folder", &tmp))?;
        let base = conf.parent().unwrap_or(Path::new("/"));
        let entries = fs::read_dir(base).map_err(InstallError::io("read the folder", base))?;
        for entry in entries.flatten() {
            let link = folder.path().join(entry.file_name());
            std::os::unix::fs::symlink(entry.path(), &link)
                .map_err(InstallError::io("make the link", &link))?;
        }
        let beside = folder.path().join(conf.file_name().unwrap_or_default());
        let pid = new_beside(&beside)?;
        Ok(Self { beside, pid, folder: Some(folder) })
    }
}

struct IncludeWalk<'a> {
    /// Relative names are resolved against it: the folder of the main file.
    base: PathBuf,
    staged: &'a [StagedPaths],
    reals: Vec<PathBuf>,
    reached: BTreeSet<PathBuf>,
    pid: Vec<u8>,
    has_pid: bool,
    beside: PathBuf,
    copies: Vec<NamedTempFile>,
    names: Vec<(PathBuf, PathBuf)>,
}

impl IncludeWalk<'_> {
    fn copy_main(&mut self, conf: &Path) -> Result<PathBuf, InstallError> {
        let (content, shown) = self.stand_in(conf);
        let text = fs::read(&content).map_err(InstallError::io("read", &content))?;
        // A file that nginx cannot parse is left unchanged, so that nginx reports the error itself.
        let new = match parse(&text) {
            Ok(directives) => {
                let edits = self.edits(&directives, 0, true)?;
                let mut new = replace(&text, &edits);
                if !self.has_pid {
                    new.extend_from_slice(&[b"\npid ".as_slice(), &self.pid, b";\n"].concat());
                }
                new
            }
            Err(_) => text,
        };
        self.write(&new, shown)
    }

    /// The file to read instead of `file`; `None` if it needs no change.
    fn visit(
        &mut self,
        file: &Path,
        depth: usize,
        top: bool,
    ) -> Result<Option<PathBuf>, InstallError> {
        let (content, shown) = self.stand_in(file);
        let as_it_is = (content != file).then(|| content.clone());
        // nginx reports a missing or unreadable file better than we can.
        let Ok(text) = fs::read(&content) else { return Ok(as_it_is) };
        let says = |word: &[u8]| memmem::find(&text, word).is_some();
        if depth >= MAX_DEPTH || !(says(b"include") || (top && says(b"pid"))) {
            return Ok(as_it_is);
        }
        let Ok(directives) = parse(&text) else { return Ok(as_it_is) };
        let edits = self.edits(&directives, depth, top)?;
        if edits.is_empty() {
            return Ok(as_it_is);
        }
        self.write(&replace(&text, &edits), shown).map(Some)
    }

    fn edits(
        &mut self,
        directives: &[Directive<'_>],
        depth: usize,
        top: bool,
    ) -> Result<Vec<Edit>, InstallError> {
        let mut edits = Vec::new();
        for directive in directives {
            let [word] = directive.args.as_slice() else { continue };
            let top = top && directive.depth == 0;
            match (directive.name.as_ref(), directive.block) {
                (b"include", false) => {
                    let pattern = self.base.join(std::ffi::OsStr::from_bytes(word));
                    if let Some(new) = self.written_out(&pattern, depth, top)? {
                        edits.push((directive.span.clone(), new));
                    }
                }
                (b"pid", false) if top => {
                    self.has_pid = true;
                    let new = [b"pid ".as_slice(), &self.pid, b";"].concat();
                    edits.push((directive.span.clone(), new));
                }
                _ => {}
            }
        }
        Ok(edits)
    }

    /// The include, expanded file by file, if one of the files is replaced.
    fn written_out(
        &mut self,
        pattern: &Path,
        depth: usize,
        top: bool,
    ) -> Result<Option<Vec<u8>>, InstallError> {
        let mut changed = false;
        let mut lines = Vec::new();
        for file in include::expand(pattern, &self.reals) {
            let instead = self.visit(&file, depth + 1, top)?;
            changed |= instead.is_some();
            lines.push(include::directive(&instead.unwrap_or(file)));
        }
        Ok(changed.then(|| lines.join(b" ".as_slice())))
    }

    /// The path to read instead of `file`, and the name to show for it.
    fn stand_in(&mut self, file: &Path) -> (PathBuf, PathBuf) {
        let real = real_path(file);
        match self.staged.iter().find(|file| file.real == real) {
            Some(paths) => {
                self.reached.insert(real);
                (paths.staged.clone(), paths.dest.clone())
            }
            None => (file.into(), file.into()),
        }
    }

    fn write(&mut self, text: &[u8], shown: PathBuf) -> Result<PathBuf, InstallError> {
        let mut copy = new_beside(&self.beside)?;
        let path = copy.path().to_owned();
        copy.write_all(text).map_err(InstallError::io("write", &path))?;
        self.names.push((path.clone(), shown));
        self.copies.push(copy);
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_included_or_not_whether_it_exists_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sites")).unwrap();
        fs::write(at("nginx.conf"), "http { include sites/*.conf; }\n").unwrap();
        fs::write(at("sites/there.conf"), "").unwrap();
        let included = |name| is_included(&at("nginx.conf"), &at(name)).unwrap();
        assert!(included("sites/there.conf") && included("sites/new.conf"));
        assert!(!included("other.conf") && !included("sites/new.txt"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
        assert!(is_included(&at("none"), &at("x")).is_err());
    }
}
