//! Regular expressions: Go's syntax, in the words of the crate `regex`.
//!
//! Both are of one family, with leftmost-first matches in linear time. Where they differ a
//! pattern is rewritten: the classes `\d \s \w` and `\b` are of ASCII in Go, a `{` that begins
//! no repetition and a `[` or `&` in a class are themselves, and `\Q…\E` quotes.

use regex::bytes::{Regex, RegexBuilder};

use super::{Call, Fault, Function, FunctionResult, MAX_TEXT, Ty, bytes, text, too_large};
use crate::template::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("regexMatch", &[Ty::Str, Ty::Str], regex_match),
    Function::new("regexFind", &[Ty::Str, Ty::Str], regex_find),
    Function::new("regexReplaceAll", &[Ty::Str, Ty::Str, Ty::Str], regex_replace),
];

/// The longest program that a pattern may become, in bytes.
const MAX_PROGRAM: usize = 1 << 20;

fn compile(args: &[Value]) -> Result<Regex, Fault> {
    let wrong = |what: String| {
        Fault::new(
            format!("error parsing regexp: {what}"),
            "the pattern comes first: `regexMatch PATTERN TEXT`",
        )
    };
    let Ok(pattern) = std::str::from_utf8(bytes(args, 0)) else {
        return Err(wrong(format!("invalid UTF-8: `{}`", text(args, 0))));
    };
    RegexBuilder::new(&in_rust(pattern).map_err(wrong)?)
        .octal(true)
        .size_limit(MAX_PROGRAM)
        .build()
        .map_err(|e| wrong(e.to_string().lines().last().unwrap_or_default().to_owned()))
}

/// Charges a search through a text.
fn pay(call: &Call<'_>, text: &[u8]) -> Result<(), Fault> {
    call.budget.steps(100 + text.len() / 16)
}

fn regex_match(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    pay(call, bytes(args, 1))?;
    Ok(Value::Bool(compile(args)?.is_match(bytes(args, 1))))
}

fn regex_find(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    pay(call, bytes(args, 1))?;
    let found = compile(args)?.find(bytes(args, 1)).map(|found| found.as_bytes());
    Ok(Value::str(found.unwrap_or_default()))
}

fn regex_replace(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let (regex, whole, with) = (compile(args)?, bytes(args, 1), bytes(args, 2));
    pay(call, whole)?;
    let mut out = Vec::new();
    let mut from = 0;
    for found in regex.captures_iter(whole) {
        let Some(all) = found.get(0) else { continue };
        out.extend_from_slice(whole.get(from..all.start()).unwrap_or_default());
        found.expand(with, &mut out);
        from = all.end();
        if out.len() > MAX_TEXT {
            return Err(too_large());
        }
    }
    out.extend_from_slice(whole.get(from..).unwrap_or_default());
    Ok(Value::str(out))
}

/// A pattern of Go as the crate reads it.
///
/// # Errors
/// For an escape that only the crate knows.
fn in_rust(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        rest = match c {
            '\\' => escape(&mut out, after, false)?,
            '[' => class(&mut out, after)?,
            '{' if !begins_repetition(after) => {
                out.push_str("\\{");
                after
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    Ok(out)
}

/// Whether this, behind a `{`, is `3}`, `3,}` or `3,5}`.
fn begins_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match inside.split_once(',') {
        Some((least, most)) => is_number(least) && (most.is_empty() || is_number(most)),
        None => is_number(inside),
    }
}

/// What follows a backslash; gives back what follows that.
fn escape<'p>(out: &mut String, after: &'p str, in_class: bool) -> Result<&'p str, String> {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return Ok(after);
    };
    let rest = after.get(c.len_utf8()..).unwrap_or_default();
    let of_ascii = match c {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        'b' if !in_class => "(?-u:\\b)",
        'B' if !in_class => "(?-u:\\B)",
        'Q' if !in_class => {
            let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            return Ok(rest);
        }
        c if c.is_ascii_alphabetic() && !"afnrtvxpPAzC".contains(c) => {
            return Err(format!("invalid escape sequence: `\\{c}`"));
        }
        'x' | 'p' | 'P' if rest.starts_with('{') => {
            let end = rest.find('}').map_or(rest.len(), |at| at + 1);
            let (braced, rest) = rest.split_at(end);
            out.extend(['\\', c]);
            out.push_str(braced);
            return Ok(rest);
        }
        c => {
            out.extend(['\\', c]);
            return Ok(rest);
        }
    };
    out.push_str(of_ascii);
    Ok(rest)
}

/// A class behind its `[`; gives back what follows it.
fn class<'p>(out: &mut String, after: &'p str) -> Result<&'p str, String> {
    out.push('[');
    let mut rest = after;
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    if let Some(after) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = after;
    }
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        rest = match c {
            ']' => {
                out.push(']');
                return Ok(after);
            }
            '\\' => escape(out, after, true)?,
            '[' if after.starts_with(':') && after.contains(":]") => {
                let (name, after) = after.split_once(":]").unwrap_or((after, ""));
                out.push_str(&format!("[{name}:]"));
                after
            }
            '[' | '&' | '~' => {
                out.extend(['\\', c]);
                after
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_go() {
        for (pattern, text, want) in [
            (r"\d+", "٣4", "4"),
            (r"\w+", "éab", "ab"),
            (r"\W", "é", "é"),
            (r"\bx", "éx", "x"),
            (r"[\d.]+", "a1.2", "1.2"),
            (r"[^\w]+", "ab-é", "-é"),
            (r"[\W]", "aé", "é"),
            ("{", "a{", "{"),
            ("a{,2}", "a{,2}", "a{,2}"),
            ("a{2}", "aaa", "aa"),
            ("[[a&&b]+", "[&ab", "[&ab"),
            ("[]a]+", "]a", "]a"),
            ("[[:alpha:]]+", "1ab", "ab"),
            (r"\Qa.b\E+", "axb a.bb", "a.bb"),
            (r"\x{e9}|\pL", "é", "é"),
            ("(?i)É", "é", "é"),
        ] {
            let regex = compile(&[Value::str(pattern)]).unwrap();
            let found = regex.find(text.as_bytes()).map(|found| found.as_bytes());
            assert_eq!(found, Some(want.as_bytes()), "{pattern}");
        }
        for pattern in ["(", "*", "[", r"\8", "(?=a)", r"\u00e9", r"\h"] {
            assert!(compile(&[Value::str(pattern)]).is_err(), "{pattern}");
        }
    }
}
