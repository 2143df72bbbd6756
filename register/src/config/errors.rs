//! What is wrong with a command line or a file, all of it at once.

use std::fmt;

/// One complaint: where, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct UsageError {
    /// A flag, a variable, or a line of a file.
    pub place: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Every complaint, one on a line. Exit code 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageErrors(pub Vec<UsageError>);

impl fmt::Display for UsageErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UsageErrors {}

/// Collects complaints while reading goes on.
#[derive(Default)]
pub(super) struct Complaints(Vec<UsageError>);

impl Complaints {
    pub(super) fn add(&mut self, place: impl fmt::Display, problem: impl fmt::Display) {
        self.0.push(UsageError { place: place.to_string(), problem: problem.to_string() });
    }

    /// `value`, if there is nothing to complain about.
    pub(super) fn end<T>(mut self, value: T) -> Result<T, UsageErrors> {
        if self.0.is_empty() {
            return Ok(value);
        }
        // What is wrong in `[defaults]` was met once for each service.
        let mut seen = Vec::new();
        self.0.retain(|error| {
            let new = !seen.contains(error);
            if new {
                seen.push(error.clone());
            }
            new
        });
        Err(UsageErrors(self.0))
    }
}
