//! The confdir: `conf.d/*.toml` and `templates/`, as confd has it, read whole and
//! validated before anything acts on it.
//!
//! Everything that confd accepts is accepted (keys in any case, unknown keys, `keys` empty or
//! missing); what is ignored or looks misspelt gives a [`Note`]. Reading and validating never
//! touches what runs.

mod raw;
mod reader;
mod resource;
mod schema;
mod users;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub(crate) use raw::{explain, mistyped};
pub use resource::{
    Balancing, HaproxyOptions, LiveMembership, NginxOptions, Resource, ShellCommand,
};
pub use schema::SCHEMA;

use common::model::{Prefix, parse_span};

use crate::install::real_path;

/// A confdir, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Confdir {
    pub path: PathBuf,
    /// Its resources, by file name.
    pub resources: Vec<Resource>,
    /// Notes for the operator that do not prevent anything.
    pub notes: Vec<Note>,
}

/// Something that may not be what the author meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub file: PathBuf,
    /// The note, for an operator.
    pub text: String,
    /// Part of the file is ignored, so `confsync check` reports a mistake; otherwise it is advice.
    pub ignored: bool,
}

/// What applies to all resources, from the command line or `confd.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Globals {
    /// Replaces the resources' own prefix, as confd does it; `None` leaves theirs.
    pub prefix: Option<Prefix>,
    /// The folder of the services, below the prefix.
    pub services: Prefix,
    /// The prefix of our own keys, which no template sees.
    pub bookkeeping: Prefix,
    /// The least time between two reloads of one reload group.
    pub min_reload_interval: std::time::Duration,
    /// nginx runs as our child: a resource that names neither `[nginx]` nor a command is loaded by
    /// it.
    pub nginx_is_our_child: bool,
    /// Files only: no command of a resource is run, nginx is not asked.
    pub sync_only: bool,
}

/// The defaults of [`Globals`], as an operator would write them.
pub const SERVICES: &str = "/services";
pub const BOOKKEEPING: &str = "/confsync";
pub const MIN_RELOAD_INTERVAL: &str = "500ms";

impl Default for Globals {
    #[expect(clippy::unwrap_used, reason = "literals that tests parse")]
    fn default() -> Self {
        Self {
            prefix: None,
            services: SERVICES.parse().unwrap(),
            bookkeeping: BOOKKEEPING.parse().unwrap(),
            min_reload_interval: parse_span(MIN_RELOAD_INTERVAL).unwrap(),
            nginx_is_our_child: false,
            sync_only: false,
        }
    }
}

/// Why a confdir cannot be used: every mistake in every file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfdirError(pub Vec<ConfdirMistake>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfdirMistake {
    /// The file or folder.
    pub file: PathBuf,
    /// What is wrong and what to do, with the line where there is one.
    pub text: String,
}

impl std::fmt::Display for ConfdirMistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A text that begins with line and column goes on as in `file:3:7: …`.
        let gap = if self.text.starts_with(|c: char| c.is_ascii_digit()) { "" } else { " " };
        write!(f, "{}:{gap}{}", self.file.display(), self.text)
    }
}

/// The valid resources, and the mistakes in the others: one bad file does not hide another.
///
/// # Errors
/// When the folder itself cannot be read.
pub(crate) fn read(
    path: &Path,
    globals: &Globals,
) -> Result<(Confdir, Vec<ConfdirMistake>), ConfdirError> {
    let folder = path.join("conf.d");
    let files = toml_files(&folder).map_err(|error| {
        let text = match error.kind() {
            ErrorKind::PermissionDenied => format!("{error}; run as a user that may read it"),
            _ => format!(
                "{error}; `confsync init --confdir {}` writes a working start",
                path.display()
            ),
        };
        ConfdirError(vec![ConfdirMistake { file: folder.clone(), text }])
    })?;
    let (mut resources, mut notes, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
    for (file, name) in files.iter().zip(names(&folder, &files)) {
        let (resource, new, wrong) = reader::read(path, file, name, globals);
        resources.extend(resource);
        notes.extend(new);
        mistakes.extend(wrong.into_iter().map(|text| ConfdirMistake { file: file.clone(), text }));
    }
    mistakes.extend(same_dest(&resources));
    if files.is_empty() {
        let text = format!(
            "no *.toml here, so there is nothing to do; `confsync init --confdir {}` writes a \
             working start",
            path.display()
        );
        mistakes.push(ConfdirMistake { file: path.join("conf.d"), text });
    }
    Ok((Confdir { path: path.to_owned(), resources, notes }, mistakes))
}

/// Any text is a resource or has mistakes; for `fuzz`.
pub(crate) fn read_any(text: &str) -> (Option<Resource>, Vec<String>) {
    let (folder, file) = (Path::new("/"), Path::new("/conf.d/any.toml"));
    let globals = Globals::default();
    let (resource, _, mistakes) =
        reader::read_text(folder, file, "any".to_owned(), &globals, Ok(text.to_owned()));
    (resource, mistakes)
}

/// Whether `conf.d` is missing or empty.
pub(crate) fn has_no_files(path: &Path) -> bool {
    match toml_files(&path.join("conf.d")) {
        Ok(files) => files.is_empty(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// There may be thousands of resources: each is looked at once.
fn same_dest(resources: &[Resource]) -> Vec<ConfdirMistake> {
    let mut mistakes = Vec::new();
    let (mut by_dest, mut by_name) = (HashMap::new(), HashMap::new());
    for resource in resources {
        let mut mistake = |text| {
            mistakes.push(ConfdirMistake { file: resource.file.clone(), text });
        };
        let first: &Resource = by_dest.entry(real_path(&resource.target.dest)).or_insert(resource);
        if !std::ptr::eq(first, resource) {
            mistake(format!(
                "dest {} is written by {} as well",
                resource.target.dest.display(),
                first.file.display()
            ));
        }
        let first: &Resource = by_name.entry(&resource.name).or_insert(resource);
        if !std::ptr::eq(first, resource) {
            let (name, other) = (&resource.name, first.file.display());
            mistake(format!("its name `{name}` is that of {other} as well"));
        }
    }
    mistakes
}

/// The files that match confd's pattern, `*toml`, in all folders below. A file with several names
/// (the links of a mounted ConfigMap, a link back) counts once; a name with a leading dot belongs
/// to an editor, to git, or to the mount.
fn toml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let mut seen = BTreeSet::from([real_path(folder)]);
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(b".") {
                continue;
            }
            let real = real_path(&path);
            if path.is_dir() {
                if depth < MAX_DEPTH && seen.insert(real) {
                    folders.push((path, depth + 1));
                }
            } else if name.ends_with(b"toml") {
                // A real name is preferred to a link.
                let kept = found.entry(real.clone()).or_insert_with(|| path.clone());
                if path == real || (*kept != real && path < *kept) {
                    *kept = path;
                }
            }
        }
    }
    let mut files: Vec<PathBuf> = found.into_values().collect();
    files.sort();
    Ok(files)
}

/// The stems of the files; where several are equal, files in subfolders are named by their path, and
/// never as another file's stem.
fn names(folder: &Path, files: &[PathBuf]) -> Vec<String> {
    let stem = |file: &Path| {
        file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    };
    let stems: Vec<String> = files.iter().map(|file| stem(file)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    stems.iter().for_each(|stem| *counts.entry(stem).or_default() += 1);
    let name = |(file, own): (&PathBuf, &String)| {
        let meets = counts.get(own.as_str()).is_some_and(|count| *count > 1);
        let below = file.parent().and_then(|parent| parent.strip_prefix(folder).ok());
        let folders = below.filter(|_| meets).into_iter().flat_map(Path::iter);
        let parts = folders.map(|part| part.to_string_lossy().into_owned());
        let parts: Vec<String> = parts.chain([own.clone()]).collect();
        let joined = (1..=MAX_DEPTH).map(|dashes| parts.join(&"-".repeat(dashes)));
        let is_free = |name: &String| name == own || !counts.contains_key(name.as_str());
        joined.into_iter().find(is_free).unwrap_or_default()
    };
    files.iter().zip(&stems).map(name).collect()
}

/// Folders below `conf.d` are followed this deep: a symlink to a parent ends.
const MAX_DEPTH: usize = 8;

#[cfg(test)]
mod tests;
