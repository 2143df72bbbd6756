//! How deeply a template is nested, checked before it is parsed; and which block is left open, when
//! it cannot be parsed.

use crate::template::functions::Fault;

/// How many of these may be open inside each other.
const MAX_NESTING: usize = 64;

/// Rejects a template whose nesting could exhaust the stack of the parser.
///
/// # Errors
/// At the position where the limit is exceeded.
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

/// The block that is left open, or closed without an opening, in a template that cannot be parsed.
pub(super) fn unclosed(source: &str) -> Option<(usize, Fault)> {
    let mut open: Vec<(&str, usize)> = Vec::new();
    let mut rest = source;
    while let Some(found) = rest.find("{{") {
        let at = source.len() - rest.len() + found;
        let tag = rest.get(found + 2..)?.trim_start_matches(['{', '~']);
        rest = tag;
        if tag.starts_with("!--") {
            rest = tag.split_once("--}}").map_or("", |(_, after)| after);
        } else if let Some(inner) = tag.strip_prefix('#') {
            let inner = inner.trim_start_matches(['*', '>', ' ']);
            open.push((name(inner), at));
        } else if let Some(inner) = tag.strip_prefix('/') {
            let closed = name(inner);
            match open.pop() {
                Some((opened, _)) if opened == closed => {}
                Some((opened, place)) => return Some((place, never_closed(opened))),
                None => {
                    let what = format!("{{{{/{closed}}}}} closes nothing");
                    let remedy = format!("remove it, or open it with `{{{{#{closed} …}}}}`");
                    return Some((at, Fault::new(what, remedy)));
                }
            }
        }
    }
    open.pop().map(|(opened, at)| (at, never_closed(opened)))
}

fn never_closed(block: &str) -> Fault {
    let what = format!("{{{{#{block}}}}} has no {{{{/{block}}}}}");
    Fault::new(what, format!("add `{{{{/{block}}}}}` where the block ends"))
}

/// The name that a tag begins with.
fn name(tag: &str) -> &str {
    let tag = tag.trim_start();
    tag.split(|c: char| c.is_whitespace() || matches!(c, '}' | '~' | '('))
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_that_is_left_open_is_named() {
        for (source, at, what) in [
            ("a\n{{#each backends}}\nb", 2, "{{#each}} has no {{/each}}"),
            ("{{#if x}}{{#each y}}{{/if}}", 9, "{{#each}} has no {{/each}}"),
            ("{{~#if x~}}{{else}}", 0, "{{#if}} has no {{/if}}"),
            ("x{{/with}}", 1, "{{/with}} closes nothing"),
            ("{{!-- {{#if}} --}}{{#*inline \"i\"}}", 18, "{{#inline}} has no {{/inline}}"),
        ] {
            let (found, fault) = unclosed(source).unwrap();
            assert_eq!((found, fault.what.as_str()), (at, what), "{source}");
        }
        for source in ["{{#if a}}{{#each b}}{{/each}}{{/if}}", "{{! x }}{{a}}", "{{"] {
            assert!(unclosed(source).is_none(), "{source}");
        }
    }
}
