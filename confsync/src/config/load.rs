//! The confdir, read and compiled: everything that can be wrong with it is told at
//! once, before anything acts on it.

use std::path::Path;

use crate::config::confdir::{self, Confdir, ConfdirError, Globals, Mistake, Note};
use crate::config::program::CompiledResource;
use crate::config::reload_group::{ReloadGroup, group};

/// A confdir ready for use.
#[derive(Debug)]
pub struct Loaded {
    /// Its sets.
    pub sets: Vec<ReloadGroup>,
    /// What an operator should know.
    pub notes: Vec<Note>,
}

/// Reads a confdir and compiles its templates.
///
/// # Errors
/// Every mistake in every file.
pub fn load(path: &Path, globals: &Globals) -> Result<Loaded, ConfdirError> {
    let (loaded, mistakes) = read(path, globals)?;
    if mistakes.is_empty() { Ok(loaded) } else { Err(ConfdirError(mistakes)) }
}

/// What is good in a confdir, and what is wrong with the rest.
///
/// # Errors
/// When the folder itself cannot be read.
pub(crate) fn read(path: &Path, globals: &Globals) -> Result<(Loaded, Vec<Mistake>), ConfdirError> {
    let (Confdir { resources, notes, .. }, mut mistakes) = confdir::read(path, globals)?;
    let mut programs = Vec::new();
    for resource in resources {
        match CompiledResource::compile(resource, path) {
            Ok(program) => programs.push(program),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Ok((Loaded { sets: group(programs), notes }, mistakes))
}

impl Loaded {
    /// Logs what an operator should know.
    pub fn say_notes(&self) {
        for note in &self.notes {
            tracing::warn!(file = %note.file.display(), "{}", note.text);
        }
    }
}
