//! The source as the parser must be given it to read what Go reads.
//!
//! The parser trims white space of every language where Go trims four characters,
//! trims behind `{{- /* … */}}`, takes comments and numbers that Go refuses, and has
//! no bytes that are half a character. So the white space that a marker trims is moved
//! into its action here, and the rest is checked. Length and lines stay: every place in
//! the outcome is the same place in the source. The braces become two control characters
//! that the source does not have, because moved white space would glue the brace of
//! `location / {` to them.

use super::balance::{Found, body_length};
use super::literal;
use crate::template::functions::Fault;

/// The four characters that Go's markers trim.
pub(super) const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// A source without markers, and what stands for its braces.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) text: String,
    pub(super) left: String,
    pub(super) right: String,
}

/// Rewrites a source whose actions are all closed.
///
/// # Errors
/// What Go refuses and the parser takes.
pub(super) fn plain(source: &str) -> Result<Plain, Found> {
    let [left, right] = unused(source).ok_or_else(|| {
        (0, Fault::new("control characters of nearly every kind", "is this a text file?"))
    })?;
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{{") {
        let at = source.len() - rest.len() + start;
        let (before, action) = rest.split_at(start);
        let action = Action::read(at, action.get(2..).unwrap_or_default())?;
        let (kept, moved) = match action.trims_before {
            true => before.split_at(before.trim_end_matches(SPACE).len()),
            false => (before, ""),
        };
        let after = match action.trims_after {
            true => action.after.trim_start_matches(SPACE),
            false => action.after,
        };
        let behind = action.after.strip_suffix(after).unwrap_or_default();
        text.extend([kept, &left]);
        action.write(&mut text, at, moved, behind)?;
        text.push_str(&right);
        rest = after;
    }
    text.push_str(rest);
    Ok(Plain { text, left, right })
}

/// Two pairs of characters that the source does not have.
fn unused(source: &str) -> Option<[String; 2]> {
    let mut free = ('\u{1}'..'\u{20}').filter(|c| !SPACE.contains(c) && !source.contains(*c));
    Some([free.next()?.to_string().repeat(2), free.next()?.to_string().repeat(2)])
}

/// One action or comment, taken apart.
struct Action<'a> {
    comment: bool,
    trims_before: bool,
    trims_after: bool,
    /// What is between braces and markers; of a comment, between its stars.
    body: &'a str,
    /// The rest of the source.
    after: &'a str,
}

impl<'a> Action<'a> {
    fn read(at: usize, inner: &'a str) -> Result<Self, Found> {
        let marked = inner.strip_prefix('-').and_then(|rest| rest.strip_prefix(SPACE));
        let (trims_before, inner) = (marked.is_some(), marked.unwrap_or(inner));
        if let Some(body) = inner.strip_prefix("/*") {
            return Self::comment(at, trims_before, body);
        }
        if inner.trim_start().starts_with("/*") {
            let remedy =
                "a comment begins right behind the braces: `{{/* … */}}`, `{{- /* … */ -}}`";
            return Err((at, Fault::new("unexpected \"/\" in command", remedy)));
        }
        let open = || (at, Fault::new("unclosed action", "the `{{` has no `}}`"));
        let length = body_length(inner).ok_or_else(open)?;
        let (body, after) = inner.split_at(length);
        let marked = body.strip_suffix('-').and_then(|body| body.strip_suffix(SPACE));
        let (trims_after, body) = (marked.is_some(), marked.unwrap_or(body));
        let after = after.get(2..).unwrap_or_default();
        Ok(Self { comment: false, trims_before, trims_after, body, after })
    }

    fn comment(at: usize, trims_before: bool, text: &'a str) -> Result<Self, Found> {
        let open = || (at, Fault::new("unclosed comment", "end it with `*/}}`"));
        let (body, rest) = text.split_once("*/").ok_or_else(open)?;
        let marked = rest.strip_prefix(SPACE).and_then(|rest| rest.strip_prefix("-}}"));
        let after = marked.or_else(|| rest.strip_prefix("}}")).ok_or_else(|| {
            let remedy = "end it with `*/}}`, or `*/ -}}` to trim what follows";
            (at, Fault::new("comment ends before closing delimiter", remedy))
        })?;
        Ok(Self { comment: true, trims_before, trims_after: marked.is_some(), body, after })
    }

    /// Writes it without markers, as long as it was with the white space they trim.
    fn write(&self, text: &mut String, at: usize, moved: &str, behind: &str) -> Result<(), Found> {
        let marker = |there: bool| if there { "  " } else { "" };
        if self.comment {
            text.push_str("/*");
        }
        text.extend([moved, marker(self.trims_before)]);
        if self.comment {
            text.push_str(self.body);
        } else {
            let start = at + 2 + marker(self.trims_before).len();
            literal::write(text, self.body).map_err(|(at, fault)| (start + at, fault))?;
        }
        text.extend([marker(self.trims_after), behind]);
        if self.comment {
            text.push_str("*/");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str) -> String {
        let plain = plain(source).unwrap();
        assert_eq!(plain.text.len(), source.len(), "{source}");
        plain.text.replace(&plain.left, "{{").replace(&plain.right, "}}")
    }

    #[test]
    fn what_a_marker_trims_moves_into_its_action() {
        for (source, text) in [
            ("a {{ 1 }} b", "a {{ 1 }} b"),
            ("{ \n{{- 1 -}} }", "{{{ \n  1   }}}"),
            ("a {{- /* x */}} b", "a{{/*    x */}} b"),
            ("a {{/* x */ -}} b", "a {{/* x    */}}b"),
            ("\u{a0}{{- 1 -}}\u{a0}", "\u{a0}{{  1  }}\u{a0}"),
            ("{{-1}} {{- -1}}", "{{-1}}{{   -1}}"),
            ("{{/*/ */}}{{\"}}{{- \"}}", "{{/*/ */}}{{\"}}{{- \"}}"),
        ] {
            assert_eq!(shown(source), text, "{source}");
        }
    }

    #[test]
    fn a_comment_begins_and_ends_at_the_braces() {
        for (source, part) in [
            ("{{ /* x */}}", "unexpected \"/\""),
            ("{{-  /* x */}}", "unexpected \"/\""),
            ("{{/* x */ }}", "comment ends"),
            ("{{/* x */  -}}", "comment ends"),
            ("{{/* x }}", "unclosed comment"),
        ] {
            let (_, fault) = plain(source).unwrap_err();
            assert!(fault.what.contains(part), "{source}: {}", fault.what);
        }
    }

    #[test]
    fn the_braces_become_what_the_source_does_not_have() {
        let plain = plain("\u{1}\u{2}{{1}}\u{4}").unwrap();
        assert_eq!(plain.text, "\u{1}\u{2}\u{3}\u{3}1\u{5}\u{5}\u{4}");
    }
}
