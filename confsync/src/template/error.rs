//! What is wrong with a template, where, and how its author can fix it.

use std::fmt;
use std::path::PathBuf;

use super::functions::Fault;
use super::runes::runes;

/// A template that cannot be used, or a render that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateError {
    /// The template's file.
    pub file: PathBuf,
    /// The line, from 1; 0 when no place can be named.
    pub line: usize,
    /// The column in characters, from 1; 0 when no place can be named.
    pub column: usize,
    /// What is wrong; names the function and the key if there is one.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// A render that failed. The position is where the render stopped.
pub type RenderError = TemplateError;

impl TemplateError {
    /// An error at a position in the file.
    pub(crate) fn at(
        file: impl Into<PathBuf>,
        (line, column): (usize, usize),
        fault: Fault,
    ) -> Self {
        Self { file: file.into(), line, column, what: fault.what, remedy: fault.remedy }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if self.column > 0 {
            write!(f, "{}:", self.column)?;
        }
        write!(f, " {}", self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TemplateError {}

/// Line and column, both from 1, of a byte in a text.
pub(crate) fn place(source: &[u8], offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    (line, runes(before.get(start..).unwrap_or_default()).count() + 1)
}
