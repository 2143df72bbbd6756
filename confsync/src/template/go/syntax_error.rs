//! Why a text is no template, and where.

use crate::template::functions::Fault;

/// What is wrong with a template, and where: bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) at: usize,
    pub(super) fault: Fault,
}

pub(super) type Parsed<T> = Result<T, SyntaxError>;

pub(super) fn fault<T>(at: usize, what: impl Into<String>, remedy: impl Into<String>) -> Parsed<T> {
    Err(SyntaxError { at, fault: Fault::new(what, remedy) })
}
