//! The lexer of Go templates: bytes to lexemes, each with its offset.
//!
//! Source: the documentation of Go's `text/template`, and where it is silent, the behaviour of Go
//! (`tests/corpus`). Trim markers and comments are handled here and invisible to later stages. Text
//! between actions is passed on unchanged, whatever its encoding.

use super::syntax_error::{SyntaxError, fault};
use crate::template::runes::{decode, is_name, is_print};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LexemeKind {
    /// Between two actions.
    Text,
    /// `{{`
    LeftDelim,
    /// `}}`
    RightDelim,
    /// White space inside an action: it separates operands.
    Space,
    /// `=`
    Assign,
    /// `:=`
    Declare,
    /// `|`
    Pipe,
    /// `(`
    LeftParen,
    /// `)`
    RightParen,
    /// Any other printable ASCII character; only `,` has a meaning.
    Char,
    /// In double or back quotes, which are part of it.
    Quoted,
    /// In single quotes, which are part of it.
    Character,
    /// A number, however it is written.
    Number,
    /// `$` or `$x`
    Variable,
    /// `.`
    Dot,
    /// `.x`, with its dot.
    Field,
    /// `true` or `false`
    Bool,
    /// The name of a function.
    Identifier,
    /// `if`, `range`, `end` and so on.
    Keyword,
    /// The end of the source.
    Eof,
}

/// A piece of the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexeme<'s> {
    pub(super) kind: LexemeKind,
    /// Bytes before it.
    pub(super) at: usize,
    pub(super) text: &'s [u8],
}

impl<'s> Lexeme<'s> {
    /// Its text; names, numbers and keywords are always UTF-8.
    pub(super) fn name(&self) -> &'s str {
        std::str::from_utf8(self.text).unwrap_or_default()
    }
}

/// The keywords of the language.
pub(super) const KEYWORDS: [&str; 11] = [
    "block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with",
];

/// Splits a source into lexemes. The first error ends them and is returned beside them: the parser
/// reports it only if it finds no earlier error.
pub(super) fn lex(source: &[u8]) -> (Vec<Lexeme<'_>>, Option<SyntaxError>) {
    let mut lexer = Lexer { source, at: 0, found: Vec::new() };
    let error = lexer.run().err();
    (lexer.found, error)
}

struct Lexer<'s> {
    source: &'s [u8],
    at: usize,
    found: Vec<Lexeme<'s>>,
}

type Lexed = Result<(), SyntaxError>;

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s [u8] {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn starts_with(&self, text: &str) -> bool {
        self.rest().starts_with(text.as_bytes())
    }

    /// Takes the next `length` bytes as one lexeme.
    fn emit(&mut self, kind: LexemeKind, length: usize) {
        let text = self.rest().get(..length).unwrap_or_default();
        self.found.push(Lexeme { kind, at: self.at, text });
        self.at += length;
    }

    fn run(&mut self) -> Lexed {
        while let Some(text) = memchr::memmem::find(self.rest(), b"{{") {
            let open = self.at + text;
            let inner = self.source.get(open + 2..).unwrap_or_default();
            let trims = matches!(inner, [b'-', space, ..] if is_space(*space));
            let kept = match trims {
                true => trimmed_end(self.rest().get(..text).unwrap_or_default()),
                false => text,
            };
            if kept > 0 {
                self.emit(LexemeKind::Text, kept);
            }
            self.at = open;
            let marker = if trims { 2 } else { 0 };
            if inner.get(marker..).is_some_and(|inner| inner.starts_with(b"/*")) {
                self.comment(open + 2 + marker)?;
            } else {
                self.emit(LexemeKind::LeftDelim, 2);
                self.at += marker;
                self.action(open)?;
            }
        }
        let text = self.rest().len();
        if text > 0 {
            self.emit(LexemeKind::Text, text);
        }
        self.emit(LexemeKind::Eof, 0);
        Ok(())
    }

    /// The marker of ` -}}` and the braces, if they are next: how long they are.
    fn right_delim(&self) -> Option<usize> {
        match self.rest() {
            [space, b'-', b'}', b'}', ..] if is_space(*space) => Some(4),
            [b'}', b'}', ..] => Some(2),
            _ => None,
        }
    }

    /// Behind braces with a marker the white space is passed over.
    fn trim_after(&mut self, delim: usize) {
        if delim == 4 {
            let text = self.rest();
            self.at += text.iter().take_while(|byte| is_space(**byte)).count();
        }
    }

    fn comment(&mut self, start: usize) -> Lexed {
        let open = self.at;
        self.at = start + 2;
        let Some(length) = memchr::memmem::find(self.rest(), b"*/") else {
            return fault(open, "unclosed comment", "end it with `*/}}`");
        };
        self.at += length + 2;
        let Some(delim) = self.right_delim() else {
            let remedy = "end it with `*/}}`, or `*/ -}}` to trim what follows";
            return fault(open, "comment ends before closing delimiter", remedy);
        };
        self.at += delim;
        self.trim_after(delim);
        Ok(())
    }

    /// What is between the braces, and the closing ones.
    fn action(&mut self, open: usize) -> Lexed {
        let mut parens = 0usize;
        loop {
            if let Some(delim) = self.right_delim() {
                if parens > 0 {
                    return fault(self.at, "unclosed left paren", "add the missing `)`");
                }
                self.at += delim - 2;
                self.emit(LexemeKind::RightDelim, 2);
                self.trim_after(delim);
                return Ok(());
            }
            let Some((rune, width)) = decode(self.rest()) else {
                let remedy = "the `{{` has no `}}`; is a quote left open?";
                return fault(open, "unclosed action", remedy);
            };
            match rune {
                '(' => parens += 1,
                ')' if parens == 0 => {
                    let remedy = "remove it, or add the `(` it belongs to";
                    return fault(self.at, "unexpected right paren", remedy);
                }
                ')' => parens -= 1,
                _ => {}
            }
            self.inside(rune, width)?;
        }
    }

    /// One lexeme of an action.
    fn inside(&mut self, rune: char, width: usize) -> Lexed {
        match rune {
            ' ' | '\t' | '\r' | '\n' => self.space(),
            '=' => self.emit(LexemeKind::Assign, 1),
            ':' if self.starts_with(":=") => self.emit(LexemeKind::Declare, 2),
            ':' => return fault(self.at, "expected :=", "a variable is declared with `:=`"),
            '|' => self.emit(LexemeKind::Pipe, 1),
            '(' => self.emit(LexemeKind::LeftParen, 1),
            ')' => self.emit(LexemeKind::RightParen, 1),
            '"' => self.quoted(LexemeKind::Quoted, "unterminated quoted string")?,
            '\'' => self.quoted(LexemeKind::Character, "unterminated character constant")?,
            '`' => self.raw_quoted()?,
            '$' => self.name(LexemeKind::Variable)?,
            '.' if !self.rest().get(1).is_some_and(u8::is_ascii_digit) => {
                self.name(LexemeKind::Field)?;
            }
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            rune if is_name(rune) => self.word()?,
            ' '..='~' => self.emit(LexemeKind::Char, width),
            rune => {
                let what = format!("unrecognized character in action: {}", shown(rune));
                let remedy = match rune {
                    '“' | '”' | '„' | '‘' | '’' | '«' | '»' => {
                        "text has plain double quotes, `\"`, around it"
                    }
                    _ => "letters of other alphabets belong in quotes; a space is a plain space",
                };
                return fault(self.at, what, remedy);
            }
        }
        Ok(())
    }

    /// White space; the last of it may belong to ` -}}`.
    fn space(&mut self) {
        let mut length = self.rest().iter().take_while(|byte| is_space(**byte)).count();
        let after = self.rest().get(length..).unwrap_or_default();
        length -= usize::from(after.starts_with(b"-}}"));
        if length > 0 {
            self.emit(LexemeKind::Space, length);
        }
    }

    /// In quotes that a backslash keeps open and the end of the line does not.
    fn quoted(&mut self, kind: LexemeKind, unclosed: &str) -> Lexed {
        let text = self.rest();
        let quote = text.first();
        let mut at = 1;
        loop {
            match text.get(at) {
                Some(b'\\') if text.get(at + 1).is_some_and(|next| *next != b'\n') => at += 2,
                None | Some(b'\\' | b'\n') => {
                    return fault(self.at, unclosed, "close the quotes on the same line");
                }
                byte if byte == quote => break,
                Some(_) => at += 1,
            }
        }
        self.emit(kind, at + 1);
        Ok(())
    }

    fn raw_quoted(&mut self) -> Lexed {
        let inner = self.rest().get(1..).unwrap_or_default();
        match memchr::memchr(b'`', inner) {
            Some(length) => self.emit(LexemeKind::Quoted, length + 2),
            None => {
                return fault(self.at, "unterminated raw quoted string", "close it with a `` ` ``");
            }
        }
        Ok(())
    }

    /// The length of the letters, digits and `_` that are next, after `from` bytes.
    fn letters(&self, from: usize) -> usize {
        let mut end = from;
        while let Some((rune, width)) = decode(self.rest().get(end..).unwrap_or_default())
            && is_name(rune)
        {
            end += width;
        }
        end
    }

    /// A variable or a field: `$`, `$x`, `.`, `.x`.
    fn name(&mut self, kind: LexemeKind) -> Lexed {
        let end = self.letters(1);
        self.ends_at(end)?;
        let alone = end == 1 && kind == LexemeKind::Field;
        self.emit(if alone { LexemeKind::Dot } else { kind }, end);
        Ok(())
    }

    fn word(&mut self) -> Lexed {
        let end = self.letters(0);
        self.ends_at(end)?;
        let word = self.rest().get(..end).unwrap_or_default();
        let kind = match std::str::from_utf8(word).unwrap_or_default() {
            "true" | "false" => LexemeKind::Bool,
            word if KEYWORDS.contains(&word) => LexemeKind::Keyword,
            _ => LexemeKind::Identifier,
        };
        self.emit(kind, end);
        Ok(())
    }

    /// Rejects a character that may not follow a name.
    fn ends_at(&self, end: usize) -> Lexed {
        let after = self.rest().get(end..).unwrap_or_default();
        let Some((rune, _)) = decode(after) else { return Ok(()) };
        let ends = matches!(rune, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | '(' | ')');
        if ends || after.starts_with(b"}}") {
            return Ok(());
        }
        fault(self.at + end, format!("bad character {}", shown(rune)), "is a space missing?")
    }

    fn number(&mut self) -> Lexed {
        let text = self.rest();
        let (mut end, mut good) = number_length(text);
        // The imaginary part of a complex number.
        if good && matches!(text.get(end), Some(b'+' | b'-')) {
            let (length, second) = number_length(text.get(end..).unwrap_or_default());
            end += length;
            good = second && text.get(end - 1) == Some(&b'i');
        }
        if good {
            self.emit(LexemeKind::Number, end);
            return Ok(());
        }
        let shown = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
        fault(self.at, format!("bad number syntax: {shown:?}"), "put text in quotes")
    }
}

/// The bytes that look like a number, and whether nothing is glued to them.
fn number_length(text: &[u8]) -> (usize, bool) {
    let mut end = 0;
    let accept = |end: &mut usize, set: &[u8]| {
        let fits = text.get(*end).is_some_and(|byte| set.contains(byte));
        *end += usize::from(fits);
        fits
    };
    accept(&mut end, b"+-");
    let (mut digits, mut exponent): (&[u8], &[u8]) = (b"0123456789_", b"eE");
    if accept(&mut end, b"0") {
        // A leading 0 alone does not make it octal: floats may begin so.
        if accept(&mut end, b"xX") {
            (digits, exponent) = (b"0123456789abcdefABCDEF_", b"pP");
        } else if accept(&mut end, b"oO") {
            (digits, exponent) = (b"01234567_", b"");
        } else if accept(&mut end, b"bB") {
            (digits, exponent) = (b"01_", b"");
        }
    }
    while accept(&mut end, digits) {}
    if accept(&mut end, b".") {
        while accept(&mut end, digits) {}
    }
    if accept(&mut end, exponent) {
        accept(&mut end, b"+-");
        while accept(&mut end, b"0123456789_") {}
    }
    accept(&mut end, b"i");
    match decode(text.get(end..).unwrap_or_default()) {
        Some((rune, width)) if is_name(rune) => (end + width, false),
        _ => (end, true),
    }
}

/// `U+0021 '!'`
fn shown(rune: char) -> String {
    let code = u32::from(rune);
    if is_print(rune) { format!("U+{code:04X} '{rune}'") } else { format!("U+{code:04X}") }
}

fn trimmed_end(text: &[u8]) -> usize {
    text.len() - text.iter().rev().take_while(|byte| is_space(**byte)).count()
}
