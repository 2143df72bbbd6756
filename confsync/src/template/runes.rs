//! Go's view of a text: bytes, read as runes.
//!
//! Go promises no encoding: a byte that begins no UTF-8 is the rune U+FFFD, one byte wide, and
//! is written back as it is. Which runes are letters, digits or printable is that of the
//! Unicode version that Go uses, not of the one that Rust does.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, ClassUnicode, HirKind};

/// The first rune of a text and its width in bytes.
pub(crate) fn decode(text: &[u8]) -> Option<(char, usize)> {
    let first = *text.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let head = text.get(..4).unwrap_or(text);
    let valid = match std::str::from_utf8(head) {
        Ok(valid) => valid,
        Err(error) => head
            .get(..error.valid_up_to())
            .and_then(|valid| std::str::from_utf8(valid).ok())
            .unwrap_or_default(),
    };
    let rune = valid.chars().next();
    Some(rune.map_or((char::REPLACEMENT_CHARACTER, 1), |rune| (rune, rune.len_utf8())))
}

/// The runes of a text, each with the bytes that it is written with.
pub(crate) fn runes(text: &[u8]) -> impl Iterator<Item = (char, &[u8])> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (rune, width) = decode(rest)?;
        let (bytes, after) = rest.split_at_checked(width)?;
        rest = after;
        Some((rune, bytes))
    })
}

/// The text with U+FFFD for each byte that is no UTF-8.
pub(crate) fn to_str(text: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(text) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(runes(text).map(|(rune, _)| rune).collect()),
    }
}

/// The Unicode version of Go 1.21 to 1.26. Later characters are not known to it.
const AGE: &str = r"\p{age:15.0}";

/// A set of characters, from the tables of the crate that `regex` reads patterns with.
fn class(pattern: &str) -> Option<ClassUnicode> {
    let parsed = regex_syntax::parse(&format!("[{AGE}&&{pattern}]")).ok()?;
    match parsed.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        _ => None,
    }
}

fn contains(class: Option<&ClassUnicode>, rune: char) -> bool {
    let ranges = class.map(ClassUnicode::ranges).unwrap_or_default();
    let after = ranges.partition_point(|range| range.end() < rune);
    ranges.get(after).is_some_and(|range| range.start() <= rune)
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation, symbols and the plain space.
pub(crate) fn is_print(rune: char) -> bool {
    static PRINT: LazyLock<Option<ClassUnicode>> =
        LazyLock::new(|| class(r"[\p{L}\p{M}\p{N}\p{P}\p{S}]"));
    match rune {
        ' '..='~' => true,
        rune if rune.is_ascii() => false,
        rune => contains(PRINT.as_ref(), rune),
    }
}

/// What a name in a template may be made of: letters, decimal digits and `_`.
pub(crate) fn is_name(rune: char) -> bool {
    static NAME: LazyLock<Option<ClassUnicode>> = LazyLock::new(|| class(r"[\p{L}\p{Nd}]"));
    match rune {
        rune if rune.is_ascii() => rune == '_' || rune.is_ascii_alphanumeric(),
        rune => contains(NAME.as_ref(), rune),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_that_is_no_utf8_is_a_rune_of_its_own() {
        let text = b"a\xff\xe2\x82\xac\xe2\x82\xed\xa0\x80\xf4\x8f\xbf\xbf";
        let read: Vec<(char, usize)> = runes(text).map(|(rune, of)| (rune, of.len())).collect();
        let no = ('\u{fffd}', 1);
        assert_eq!(read, [('a', 1), no, ('€', 3), no, no, no, no, no, ('\u{10ffff}', 4)]);
        assert_eq!(to_str(b"a\xe2\x82b"), "a\u{fffd}\u{fffd}b");
    }

    /// How many there are, and the sum of their code points, as Go 1.26 counts them.
    #[test]
    fn the_tables_are_those_of_go() {
        let all = |is: fn(char) -> bool| {
            let members = ('\0'..=char::MAX).filter(|rune| is(*rune));
            members.fold((0u64, 0u64), |(count, sum), rune| {
                (count + 1, sum + u64::from(u32::from(rune)))
            })
        };
        assert_eq!(all(is_print), (148_998, 15_750_900_724));
        assert_eq!(all(is_name), (136_785, 14_806_566_681));
        // `unicode.IsSpace`.
        assert_eq!(all(char::is_whitespace), (25, 141_586));
    }
}
