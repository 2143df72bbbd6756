//! Whether the blocks of a Go template open and close as they should.
//!
//! Looks at the source alone, because the parser takes a missing `{{end}}` for the
//! end of the file and drops everything after one too many.

use crate::template::error::place;
use crate::template::functions::Fault;

/// A fault and the byte where it shows.
pub(super) type Found = (usize, Fault);

/// A block whose `{{end}}` has not come.
#[derive(Debug)]
pub(super) struct Open<'a> {
    word: &'a str,
    at: usize,
    otherwise: bool,
}

impl Open<'_> {
    /// What is wrong when the file ends here.
    pub(super) fn fault(&self, source: &str) -> Found {
        let (line, _) = place(source, self.at);
        let fault = format!("the {{{{{}}}}} of line {line} has no {{{{end}}}}", self.word);
        (self.at, Fault::new(fault, "add the missing {{end}}"))
    }
}

/// The blocks that are open at the end, outermost first.
///
/// # Errors
/// The first thing that does not fit.
pub(super) fn scan(source: &str) -> Result<Vec<Open<'_>>, Found> {
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut from = 0;
    while let Some(action) = next_action(source, from)? {
        from = action.end;
        let mut words = action.body.split_whitespace();
        let word = words.next().unwrap_or_default();
        let word = word.split(['(', '"', '`', '$', '.']).next().unwrap_or_default();
        match word {
            "if" | "range" | "with" | "block" => {
                open.push(Open { word, at: action.start, otherwise: false });
            }
            "define" if open.is_empty() => {
                open.push(Open { word, at: action.start, otherwise: false });
            }
            "define" => {
                let fault = "{{define}} inside another block";
                return Err((action.start, Fault::new(fault, "move it to the end of the file")));
            }
            "else" => otherwise(&mut open, &action, words.next().is_some())?,
            "end" if open.pop().is_none() => {
                let fault = "{{end}} without a block to end";
                let remedy = "remove it, or add the `if`, `range` or `with` it belongs to";
                return Err((action.start, Fault::new(fault, remedy)));
            }
            _ => {}
        }
    }
    Ok(open)
}

fn otherwise(open: &mut [Open<'_>], action: &Action<'_>, chained: bool) -> Result<(), Found> {
    let Some(block) = open.last_mut().filter(|b| !matches!(b.word, "block" | "define")) else {
        let fault = "{{else}} outside `if`, `range` or `with`";
        return Err((action.start, Fault::new(fault, "remove it")));
    };
    if block.otherwise {
        let fault = format!("a second {{{{else}}}} in one {{{{{}}}}}", block.word);
        return Err((action.start, Fault::new(fault, "is an {{end}} missing before it?")));
    }
    block.otherwise = !chained;
    Ok(())
}

struct Action<'a> {
    start: usize,
    end: usize,
    body: &'a str,
}

/// The next `{{…}}` that is not a comment.
fn next_action(source: &str, mut from: usize) -> Result<Option<Action<'_>>, Found> {
    loop {
        let Some(at) = source.get(from..).and_then(|rest| rest.find("{{")) else {
            return Ok(None);
        };
        let start = from + at;
        let inner = source.get(start + 2..).unwrap_or_default();
        let trimmed = trim_marker(inner);
        if trimmed.starts_with("/*") {
            let unclosed = || (start, Fault::new("unclosed comment", "end it with `*/}}`"));
            let text = trimmed.get(2..).unwrap_or_default();
            let close = text.find("*/").ok_or_else(unclosed)?;
            from = source.len() - text.len() + close + 2;
            continue;
        }
        let length = body_length(inner).ok_or_else(|| {
            (start, Fault::new("unclosed action", "the `{{` has no `}}`; is a quote left open?"))
        })?;
        let whole = inner.get(..length).unwrap_or_default();
        if let Some(at) = bad_escape(whole) {
            let fault = Fault::new(
                "invalid syntax in a string",
                "Go knows \\n \\t \\\\ \\\" \\xHH \\uHHHH; for the rest use `raw strings`",
            );
            return Err((start + 2 + at, fault));
        }
        let body = trim_marker(whole);
        return Ok(Some(Action { start, end: start + 2 + length + 2, body }));
    }
}

/// Without the `-` of `{{- `.
fn trim_marker(inner: &str) -> &str {
    match inner.strip_prefix('-') {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => inner,
    }
}

/// Bytes up to the closing braces, which do not count inside quotes.
pub(super) fn body_length(inner: &str) -> Option<usize> {
    let mut quote = None;
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, '"' | '`' | '\'') => quote = Some(c),
            (None, '}') if inner.get(at..)?.starts_with("}}") => return Some(at),
            (Some('"' | '\''), '\\') => {
                chars.next();
            }
            (Some(q), c) if q == c => quote = None,
            (Some('"' | '\''), '\n') => return None,
            _ => {}
        }
    }
    None
}

/// Where a quoted string has an escape that Go does not know.
fn bad_escape(body: &str) -> Option<usize> {
    let mut quote = None;
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, '"' | '`' | '\'') => quote = Some(c),
            (Some(around @ ('"' | '\'')), '\\') => {
                let (_, escape) = chars.next()?;
                let (digits, base) = match escape {
                    'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => (0, 16),
                    c if c == around => (0, 16),
                    'x' => (2, 16),
                    'u' => (4, 16),
                    'U' => (8, 16),
                    '0'..='7' => (2, 8),
                    _ => return Some(at),
                };
                if !chars.by_ref().take(digits).all(|(_, c)| c.is_digit(base)) {
                    return Some(at);
                }
            }
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str) -> Result<(), Found> {
        let open = scan(source)?;
        open.last().map_or(Ok(()), |last| Err(last.fault(source)))
    }

    #[test]
    fn what_is_balanced_passes() {
        for source in [
            "plain",
            "{{if .}}a{{else if .b}}b{{else}}c{{end}}",
            "{{range .}}{{with .}}{{end}}{{else}}{{end}}",
            "{{/* {{if}} */}}{{- /* x */ -}}{{define \"a\"}}{{end}}{{block \"b\" .}}{{end}}",
            "{{\"{{end}}\"}}{{`}}`}}{{'}'}}",
            "{{ endpoint }}{{if(eq 1 1)}}{{end}}",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_is_not_is_found_at_its_place() {
        for (source, at, part) in [
            ("a{{end}}", 1, "without"),
            ("{{if .}}{{end}}{{else}}", 15, "outside"),
            ("x{{range .}}", 1, "no {{end}}"),
            ("{{if 1}}{{else}}{{else}}{{end}}", 16, "second"),
            ("{{if 1}}{{define \"x\"}}{{end}}{{end}}", 8, "inside"),
            ("{{ \"a }}", 0, "unclosed action"),
            ("{{/* a", 0, "unclosed comment"),
        ] {
            let (found, fault) = check(source).unwrap_err();
            assert_eq!(found, at, "{source}");
            assert!(fault.what.contains(part), "{source}: {}", fault.what);
        }
    }
}
