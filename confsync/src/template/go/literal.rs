//! Literals of Go: numbers, characters, strings.
//!
//! Source: the Go language's specification and the documentation of `strconv`, whose `ParseInt`,
//! `ParseFloat` and `Unquote` the template language is defined by. Not had: imaginary numbers.

use std::fmt;

use crate::template::functions::Fault;
use crate::template::runes::decode;

/// A number, in each form that it has exactly.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NumberLiteral {
    /// As it was written.
    text: Box<str>,
    int: Option<i64>,
    /// Larger than any int.
    uint: Option<u64>,
    float: Option<f64>,
}

/// What a number is where any type fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum IdealNumber {
    Int(i64),
    Float(f64),
    /// It fits no int, and is not written as a float.
    Overflows,
}

impl fmt::Display for NumberLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl NumberLiteral {
    /// Reads a number.
    ///
    /// # Errors
    /// When Go does not read it.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        if text.ends_with('i') {
            let what = format!("illegal number syntax: {text:?}");
            return Err(Fault::new(what, "imaginary numbers are not known here"));
        }
        let uint = integer(text.strip_prefix('+').unwrap_or(text));
        let signed = |digits: &str, negative: bool| {
            let size = i128::from(integer(digits)?);
            i64::try_from(if negative { -size } else { size }).ok()
        };
        let int = match text.strip_prefix('-') {
            Some(digits) => signed(digits, true),
            None => signed(text.strip_prefix('+').unwrap_or(text), false),
        };
        // `ParseUint` knows no sign.
        let uint = uint.filter(|_| !text.starts_with(['+', '-']));
        if int.is_some() || uint.is_some() {
            #[expect(clippy::cast_precision_loss, reason = "as Go converts it")]
            let float = int.map(|n| n as f64).or(uint.map(|n| n as f64));
            let uint = uint.filter(|_| int.is_none());
            return Ok(Self { text: text.into(), int, uint, float });
        }
        let illegal = || {
            let what = format!("illegal number syntax: {text:?}");
            Fault::new(what, "a leading 0 makes it octal, and `_` must be between two digits")
        };
        let float = float(text).ok_or_else(illegal)?;
        if float.is_infinite() {
            return Err(Fault::new(format!("illegal number syntax: {text:?}"), "it is too large"));
        }
        if !is_written_as_float(text) {
            let what = format!("integer overflow: {text:?}");
            return Err(Fault::new(what, "an int has 64 bits; for a float write it with a point"));
        }
        Ok(Self { text: text.into(), int: whole(float), uint: None, float: Some(float) })
    }

    /// Reads a character with its quotes.
    ///
    /// # Errors
    /// When it is none, or more than one.
    pub(super) fn read_character(quoted: &[u8]) -> Result<Self, Fault> {
        let text = String::from_utf8_lossy(quoted).into_owned();
        let malformed = || {
            let what = format!("malformed character constant: {text}");
            Fault::new(what, "single quotes are for one character; text needs double quotes")
        };
        let inner = quoted.get(1..).unwrap_or_default();
        let (value, rest) = unquote_one(inner, b'\'').ok_or_else(malformed)?;
        if rest != b"'" {
            return Err(malformed());
        }
        let code = match value {
            Unquoted::Rune(rune) => u32::from(rune),
            Unquoted::Byte(byte) => byte.into(),
        };
        Ok(Self { int: Some(code.into()), uint: None, float: Some(code.into()), text: text.into() })
    }

    /// Its value for a parameter that is an int: `1e3` is one as well.
    pub(super) fn int(&self) -> Option<i64> {
        self.int
    }

    /// What it is where nothing says which type it is.
    pub(super) fn ideal(&self) -> IdealNumber {
        match (self.float, self.int, self.uint) {
            (Some(float), ..) if is_written_as_float(&self.text) => IdealNumber::Float(float),
            (_, Some(int), _) => IdealNumber::Int(int),
            _ => IdealNumber::Overflows,
        }
    }
}

/// Whether a text has the marks of a float: hexadecimal digits and characters are none.
fn is_written_as_float(text: &str) -> bool {
    let is_hex = text.trim_start_matches(['+', '-']).get(..2).is_some_and(is_hex_prefix);
    let marks: &[char] = if is_hex { &['p', 'P'] } else { &['.', 'e', 'E', 'p', 'P'] };
    !text.starts_with('\'') && text.contains(marks)
}

fn is_hex_prefix(text: &str) -> bool {
    text.eq_ignore_ascii_case("0x")
}

/// A whole float as an int.
fn whole(float: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "compared with what it was")]
    let int = float as i64;
    #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "whether it is exact")]
    let same = int as f64 == float;
    // The largest float that is an int is smaller than the largest int.
    (same && int != i64::MAX).then_some(int)
}

/// An integer without sign, in any base.
fn integer(text: &str) -> Option<u64> {
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, text.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, text.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, text.get(2..)?),
        [b'0', _, ..] => (8, text.get(1..)?),
        _ => (10, text),
    };
    if digits.starts_with(['+', '-']) || !has_good_underscores(text) {
        return None;
    }
    u64::from_str_radix(&digits.replace('_', ""), radix).ok()
}

/// Whether each `_` is between two digits, or behind the prefix of a base.
fn has_good_underscores(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let prefixed = matches!(digits.as_bytes(), [b'0', b'x' | b'X' | b'o' | b'O' | b'b' | b'B', ..]);
    let is_hex = digits.get(..2).is_some_and(is_hex_prefix);
    let mut before = if prefixed { '0' } else { '^' };
    for c in digits.get(if prefixed { 2 } else { 0 }..).unwrap_or_default().chars() {
        let is_digit = c.is_ascii_digit() || (is_hex && c.is_ascii_hexdigit());
        if (c == '_' && before != '0') || (before == '_' && !is_digit) {
            return false;
        }
        before = if is_digit { '0' } else { c };
    }
    before != '_'
}

fn float(text: &str) -> Option<f64> {
    if !has_good_underscores(text) {
        return None;
    }
    let plain = text.replace('_', "");
    let digits = plain.trim_start_matches(['+', '-']);
    if !digits.get(..2).is_some_and(is_hex_prefix) {
        // Rust reads `inf` and `nan` as well, which the lexer takes for names.
        return plain.parse().ok();
    }
    let size = hexadecimal_float(digits.get(2..)?)?;
    Some(if plain.starts_with('-') { -size } else { size })
}

/// `1.8p-2`: a fraction in base 16, and a power of two, which must be there.
fn hexadecimal_float(text: &str) -> Option<f64> {
    let (mantissa, power) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (mut value, mut scale) = (0u64, 0i32);
    let mut digits = 0;
    for digit in whole.chars().chain(fraction.chars()) {
        digits += 1;
        // Fifteen digits are exact; those behind them only say that there is more.
        match value >> 60 {
            0 => value = value << 4 | u64::from(digit.to_digit(16)?),
            _ => {
                value |= u64::from(digit.to_digit(16)? != 0);
                scale = scale.checked_add(4)?;
            }
        }
    }
    let fraction = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    let power = power.parse::<i32>().ok()?.checked_add(scale)?.checked_sub(fraction)?;
    (digits > 0).then(|| scaled(value, power))
}

/// `value * 2^power`, rounded once.
fn scaled(value: u64, power: i32) -> f64 {
    if value == 0 {
        return 0.0;
    }
    let bits = 64 - i32::try_from(value.leading_zeros()).unwrap_or(0);
    // How many of them a float of this size keeps: 53, or fewer below the normal ones.
    let kept = 53.min(bits + power + 1074);
    if kept < 0 {
        return 0.0;
    }
    let dropped = (bits - kept).max(0);
    let mut mantissa = if dropped > 63 { 0 } else { value >> dropped };
    let rest = if dropped == 0 { 0 } else { value << (64 - dropped.min(64)) };
    let half = 1u64 << 63;
    if dropped > 0 && (rest > half || (rest == half && mantissa & 1 == 1)) {
        mantissa += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "it has at most 53 bits")]
    let mut float = mantissa as f64;
    // In steps that are powers of two themselves, and exact.
    let mut left = power + dropped;
    while left != 0 && float.is_finite() && float != 0.0 {
        let step = left.clamp(-1000, 1000);
        float *= 2f64.powi(step);
        left -= step;
    }
    float
}

/// The value of one character of a string.
enum Unquoted {
    Rune(char),
    /// `\xff` and `\377`: a byte, in a string.
    Byte(u8),
}

/// The value of a string that is given with its quotes.
pub(super) fn unquote(quoted: &[u8]) -> Result<Vec<u8>, Fault> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if quoted.first() == Some(&b'`') {
        // As in Go's source, a raw string has no carriage returns.
        return Ok(inner.iter().copied().filter(|byte| *byte != b'\r').collect());
    }
    let mut text = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while !rest.is_empty() {
        let (value, after) = unquote_one(rest, b'"').ok_or_else(|| {
            Fault::new(
                "invalid syntax in a string",
                "Go knows \\n \\t \\\\ \\\" \\xHH \\uHHHH; for the rest use `raw strings`",
            )
        })?;
        match value {
            Unquoted::Rune(rune) => text.extend(rune.encode_utf8(&mut [0; 4]).as_bytes()),
            Unquoted::Byte(byte) => text.push(byte),
        }
        rest = after;
    }
    Ok(text)
}

/// The first character of a string's inside, and what follows it.
fn unquote_one(text: &[u8], quote: u8) -> Option<(Unquoted, &[u8])> {
    let (first, rest) = text.split_first()?;
    if *first == quote || *first == b'\n' {
        return None;
    }
    if *first != b'\\' {
        // A byte that is no UTF-8 becomes U+FFFD here, as in Go; `\xff` does not.
        let (rune, width) = decode(text)?;
        return Some((Unquoted::Rune(rune), text.get(width..)?));
    }
    let (escape, rest) = rest.split_first()?;
    let digits = |count: usize, radix: u32| {
        let digits = std::str::from_utf8(rest.get(..count)?).ok()?;
        let good = digits.chars().all(|digit| digit.is_digit(radix));
        let value = u32::from_str_radix(digits, radix).ok().filter(|_| good)?;
        Some((value, rest.get(count..)?))
    };
    let plain = |rune: char| Some((Unquoted::Rune(rune), rest));
    match escape {
        b'a' => plain('\u{7}'),
        b'b' => plain('\u{8}'),
        b'f' => plain('\u{c}'),
        b'n' => plain('\n'),
        b'r' => plain('\r'),
        b't' => plain('\t'),
        b'v' => plain('\u{b}'),
        b'\\' => plain('\\'),
        b'\'' | b'"' if *escape == quote => plain(char::from(*escape)),
        b'x' => digits(2, 16).and_then(byte),
        b'u' => digits(4, 16).and_then(rune),
        b'U' => digits(8, 16).and_then(rune),
        b'0'..=b'7' => {
            let octal = std::str::from_utf8(text.get(1..4)?).ok()?;
            let good = octal.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
            let value = u32::from_str_radix(octal, 8).ok().filter(|_| good)?;
            byte((value, text.get(4..)?))
        }
        _ => None,
    }
}

fn byte((value, rest): (u32, &[u8])) -> Option<(Unquoted, &[u8])> {
    Some((Unquoted::Byte(u8::try_from(value).ok()?), rest))
}

/// Half a surrogate pair is no character.
fn rune((value, rest): (u32, &[u8])) -> Option<(Unquoted, &[u8])> {
    Some((Unquoted::Rune(char::from_u32(value)?), rest))
}

#[cfg(test)]
mod tests;
