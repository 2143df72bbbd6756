//! Words: case as Go maps it, and names in snake, kebab and camel form.

use super::{Call, Function, FunctionResult, Ty, text};
use crate::template::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("toUpper", &[Ty::Str], to_upper),
    Function::new("toLower", &[Ty::Str], to_lower),
    Function::new("nospace", &[Ty::Str], nospace),
    Function::new("snakecase", &[Ty::Str], |_, args| joined(args, "_")),
    Function::new("camelcase", &[Ty::Str], camelcase),
    Function::new("kebabcase", &[Ty::Str], |_, args| joined(args, "-")),
];

/// Upper case, one rune for one rune: `ß` has no single capital, so it stays.
pub(crate) fn upper(c: char) -> char {
    let mut mapped = c.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(one), None) => one,
        // Greek letters with iota subscript, whose one-rune capital is in title case.
        _ => match c {
            '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
                char::from_u32(u32::from(c) + 8).unwrap_or(c)
            }
            '\u{1fb3}' => '\u{1fbc}',
            '\u{1fc3}' => '\u{1fcc}',
            '\u{1ff3}' => '\u{1ffc}',
            _ => c,
        },
    }
}

/// Lower case, one rune for one rune.
pub(crate) fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

fn lower_all(text: &str) -> String {
    text.chars().map(lower).collect()
}

fn to_upper(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str(text(args, 0).chars().map(upper).collect::<String>()))
}

fn to_lower(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str(lower_all(&text(args, 0))))
}

fn nospace(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let kept: String = text(args, 0).chars().filter(|c| !c.is_whitespace()).collect();
    Ok(Value::str(kept))
}

/// Words end at `_`, `-`, a space, and before a capital: `HTTPServer` is two.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let breaks = matches!(c, '_' | '-' | ' ');
        let capital = c.is_uppercase()
            && (rest.peek().is_some_and(|next| next.is_lowercase())
                || before.is_some_and(|b: char| !b.is_uppercase()));
        if (breaks || capital) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if !breaks {
            word.push(c);
        }
        before = Some(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn joined(args: &[Value], separator: &str) -> FunctionResult {
    let words: Vec<String> = split(&text(args, 0)).iter().map(|w| lower_all(w)).collect();
    Ok(Value::str(words.join(separator)))
}

fn camelcase(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let mut out = String::new();
    for (i, word) in split(&text(args, 0)).iter().enumerate() {
        let mut letters = word.chars().map(lower);
        if i > 0 {
            out.extend(letters.next().map(upper));
        }
        out.extend(letters);
    }
    Ok(Value::str(out))
}
