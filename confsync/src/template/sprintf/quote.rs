//! Text in Go's quotes.

use crate::template::runes::{is_print, runes};

/// A string in Go's double quotes. A byte that is no UTF-8 is written as `\xff`.
pub(crate) fn quote(text: &[u8]) -> String {
    quoted(text, false)
}

/// The same; with `ascii` nothing outside ASCII is written as it is.
pub(super) fn quoted(text: &[u8], ascii: bool) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for (rune, bytes) in runes(text) {
        match bytes {
            [byte] if !byte.is_ascii() => quoted.push_str(&format!("\\x{byte:02x}")),
            _ => escape(&mut quoted, rune, '"', ascii),
        }
    }
    quoted.push('"');
    quoted
}

pub(super) fn quoted_char(c: char, ascii: bool) -> String {
    let mut quoted = String::from("'");
    escape(&mut quoted, c, '\'', ascii);
    quoted.push('\'');
    quoted
}

fn escape(out: &mut String, c: char, around: char, ascii: bool) {
    match c {
        '\\' => out.push_str("\\\\"),
        c if c == around => out.extend(['\\', c]),
        '\u{7}' => out.push_str("\\a"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{b}' => out.push_str("\\v"),
        c if is_print(c) && (c.is_ascii() || !ascii) => out.push(c),
        c if u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}
