//! Everything that is wrong with a command line or a file, all of it at once.

use std::fmt;

use crate::runtime::Usage;

/// One mistake: where it is, what is wrong, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// A flag, a variable, or a line of a file.
    pub place: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// `--host is required: …` is a sentence of which the place is the subject; else it is a label.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs = ["is ", "needs ", "cannot "];
        let label = if verbs.iter().any(|verb| self.problem.starts_with(verb)) { "" } else { ":" };
        write!(f, "{}{label} {}", self.place, self.problem)
    }
}

/// Every mistake, one on a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Remembers one. What is wrong in the defaults of a file is met once for each
    /// service, and remembered once.
    pub fn add(&mut self, place: impl fmt::Display, problem: impl fmt::Display) {
        let mistake = Mistake { place: place.to_string(), problem: problem.to_string() };
        if !self.0.contains(&mistake) {
            self.0.push(mistake);
        }
    }

    /// Where they are.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|mistake| mistake.place.as_str())
    }

    /// `value`, if nothing is wrong.
    pub fn none_or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }

    /// `value`, which is missing only where something is wrong.
    pub fn none_or_some<T>(self, value: Option<T>) -> Result<T, Self> {
        self.none_or(value)?.ok_or_else(Self::default)
    }
}

/// Both, or the mistakes of both.
///
/// # Errors
/// The mistakes of the first, then those of the second.
pub fn both<A, B>(
    one: Result<A, Mistakes>,
    other: Result<B, Mistakes>,
) -> Result<(A, B), Mistakes> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(mut mistakes), Err(more)) => {
            more.0.into_iter().for_each(|more| mistakes.add(more.place, more.problem));
            Err(mistakes)
        }
        (Err(mistakes), _) | (_, Err(mistakes)) => Err(mistakes),
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl From<Mistakes> for Usage {
    fn from(mistakes: Mistakes) -> Self {
        Self(mistakes.to_string())
    }
}
