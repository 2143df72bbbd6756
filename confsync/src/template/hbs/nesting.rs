//! How deep a template is nested, before anything reads it.

use crate::template::functions::Fault;

/// How many of these may be open inside each other.
const MAX_NESTING: usize = 64;

/// Refuses what is nested so deep that reading it could exhaust the stack.
///
/// # Errors
/// At the place where the bound is passed.
pub(super) fn check(source: &str) -> Result<(), (usize, Fault)> {
    let (mut blocks, mut brackets) = (0usize, 0usize);
    let mut rest = source;
    while let Some(at) = rest.find(['{', '(', '[', ')', ']', '}']) {
        let here = source.len() - rest.len() + at;
        let after = rest.get(at..).unwrap_or_default();
        if after.starts_with("{{#") || after.starts_with("{{~#") || after.starts_with("{{{{") {
            (blocks, brackets) = (blocks + 1, 0);
        } else if after.starts_with("{{/") || after.starts_with("{{~/") {
            (blocks, brackets) = (blocks.saturating_sub(1), 0);
        } else if after.starts_with("}}") {
            brackets = 0;
        } else if after.starts_with(['(', '[', '{']) {
            brackets += 1;
        } else {
            brackets = brackets.saturating_sub(1);
        }
        if blocks > MAX_NESTING || brackets > MAX_NESTING {
            return Err((here, format!("nested more than {MAX_NESTING} deep").into()));
        }
        rest = after.get(1..).unwrap_or_default();
    }
    Ok(())
}
