//! Numbers and strings in an action, where the parser reads them otherwise than Go.
//!
//! Go's strings hold bytes: `"\xc3\xa9"` is one letter. The parser knows characters
//! only, so such a byte travels through it as a private character, which is as long as
//! what it stands for.

use std::borrow::Cow;

use super::balance::Found;
use super::plain::SPACE;
use crate::template::functions::Fault;

/// The private character of byte 0.
const BYTES: u32 = 0x10_FF00;

/// Copies the body of an action, its bytes made private characters.
///
/// # Errors
/// A number that Go does not know, a string that is not UTF-8, white space of other
/// languages; with its place in the body.
pub(super) fn write(out: &mut String, body: &str) -> Result<(), Found> {
    let mut rest = body;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let at = body.len() - rest.len();
        let length = match c {
            '"' | '\'' | '`' => quoted(rest, c),
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '+' | '-') => word(rest),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match c {
            '"' => bytes(out, token).map_err(|fault| (at, fault))?,
            _ => out.push_str(token),
        }
        let signed = token.trim_start_matches(['+', '-', '.']);
        if signed.starts_with(|c: char| c.is_ascii_digit()) && !before.is_alphanumeric() {
            number(token).map_err(|fault| (at, fault))?;
        }
        if c.is_whitespace() && !SPACE.contains(&c) {
            let fault = format!("unexpected U+{:04X} in command", u32::from(c));
            return Err((at, Fault::new(fault, "write a plain space")));
        }
        before = c;
        rest = after;
    }
    Ok(())
}

/// The bytes of a string or a rune with its quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote != '`' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The bytes of a number, a name or a field. A sign belongs to it in front and behind
/// the `e` of a number.
fn word(text: &str) -> usize {
    let mut last = None;
    let hex = text.trim_start_matches(['+', '-']).get(..2).unwrap_or_default();
    let power = if hex.eq_ignore_ascii_case("0x") { ['p', 'P'] } else { ['e', 'E'] };
    let number = hex.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    for (at, c) in text.char_indices() {
        let sign = matches!(c, '+' | '-');
        let fits = sign && (last.is_none() || (number && last.is_some_and(|l| power.contains(&l))));
        if !(fits || c.is_alphanumeric() || matches!(c, '_' | '.' | '$')) {
            return at;
        }
        last = Some(c);
    }
    text.len()
}

/// Whether Go reads it; what is wrong otherwise is left to the parser.
fn number(token: &str) -> Result<(), Fault> {
    let bad = |why: &str| Err(Fault::new(format!("illegal number syntax: \"{token}\""), why));
    let digits = token.trim_start_matches(['+', '-']);
    if digits.ends_with('i') {
        return bad("imaginary numbers are not known here");
    }
    let prefix = digits.get(..2).is_some_and(|p| p.starts_with('0') && !p.ends_with('_'));
    let alone = |i: usize, c: char| {
        let next = digits.get(i + 1..).and_then(|rest| rest.chars().next());
        c == '_' && !next.is_some_and(|next| next.is_ascii_hexdigit())
    };
    if digits.char_indices().any(|(i, c)| alone(i, c)) {
        return bad("`_` stands between two digits");
    }
    if prefix && digits.bytes().all(|b| b.is_ascii_digit()) && digits.contains(['8', '9']) {
        return bad("a leading 0 makes it octal");
    }
    match digits.replace('_', "").parse::<f64>() {
        Ok(f) if f.is_infinite() => bad("it is too large"),
        _ => Ok(()),
    }
}

/// A string with each of its bytes above ASCII as a private character.
fn bytes(out: &mut String, token: &str) -> Result<(), Fault> {
    let mut run = Vec::new();
    let mut rest = token;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '\\' => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            c => c.len_utf8(),
        };
        match byte(rest) {
            Some(byte) => {
                run.push(byte);
                out.extend(char::from_u32(BYTES + u32::from(byte)));
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                whole(&mut run)?;
                let (plain, after) = rest.split_at(length);
                out.push_str(plain);
                rest = after;
            }
        }
    }
    whole(&mut run)
}

/// `\xff` or `\377` in front, if it is above ASCII.
fn byte(text: &str) -> Option<u8> {
    let digits = text.strip_prefix('\\')?;
    let byte = match digits.strip_prefix('x') {
        Some(hex) => u8::from_str_radix(hex.get(..2)?, 16),
        None => u8::from_str_radix(digits.get(..3)?, 8),
    };
    byte.ok().filter(|byte| !byte.is_ascii())
}

/// Bytes side by side must be whole characters.
fn whole(run: &mut Vec<u8>) -> Result<(), Fault> {
    let good = std::str::from_utf8(run).is_ok();
    run.clear();
    if good {
        return Ok(());
    }
    let remedy = "what is rendered is text; for a character write `\\u` and four digits";
    Err(Fault::new("a string with bytes that are not UTF-8", remedy))
}

/// A string as the parser gives it, its bytes put back.
pub(in crate::template) fn text(parsed: &str) -> Cow<'_, str> {
    let byte = |c: char| u32::from(c).checked_sub(BYTES).and_then(|b| u8::try_from(b).ok());
    // The first byte of every private character.
    if !parsed.as_bytes().contains(&0xF4) || !parsed.contains(|c| byte(c).is_some()) {
        return Cow::Borrowed(parsed);
    }
    let mut bytes = Vec::with_capacity(parsed.len());
    for c in parsed.chars() {
        match byte(c) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(body: &str) -> Result<String, String> {
        let mut out = String::new();
        write(&mut out, body).map_err(|(at, fault)| format!("{at} {}", fault.what))?;
        assert_eq!(out.len(), body.len(), "{body}");
        Ok(out)
    }

    #[test]
    fn bytes_make_characters_as_in_go() {
        let out = written(r#" "a\xc3\xa9\303\251\x41" "#).unwrap();
        assert_eq!(text(&out), r#" "aéé\x41" "#);
        assert_eq!(written("`\\xff` '\\xff'").unwrap(), "`\\xff` '\\xff'");
        assert_eq!(written(r#"1 "\xff""#).unwrap_err(), "2 a string with bytes that are not UTF-8");
        assert!(written(r#""\xc3(\xa9""#).is_err());
    }

    #[test]
    fn numbers_are_those_of_go() {
        for body in ["1_000", "0x_1F", "017", "-1e+5", ".5", "0x1p-2", "$x1 é9 .a.b1 (add 1 -2)"] {
            assert_eq!(written(body).as_deref(), Ok(body));
        }
        for body in ["1__0", "1_", "1e400", "08", "1i", "-2.5i"] {
            assert!(written(body).is_err_and(|e| e.contains("illegal number")), "{body}");
        }
        assert!(written("1\u{a0}2").is_err_and(|e| e.contains("U+00A0")));
    }
}
