//! nginx's configuration language, as far as it takes to find a directive and to
//! replace it, leaving every other byte where it was.
//!
//! The lexer does what `ngx_conf_read_token` does, plus Lua blocks, whose contents follow Lua's
//! rules. It works on bytes, as nginx does. It does not know what directives mean, and reports only
//! the position where nginx would reject the text.

use std::borrow::Cow;
use std::ops::Range;

use super::lua;

/// One directive, `name arg arg;` or `name arg {`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive<'a> {
    /// The first word, quotes and escapes removed.
    pub name: Cow<'a, [u8]>,
    /// The other words.
    pub args: Vec<Cow<'a, [u8]>>,
    /// The number of blocks around it; 0 is the main context.
    pub depth: usize,
    /// From the first byte of its name to its `;` or `{`, that one included.
    pub span: Range<usize>,
    /// Whether it opens a block.
    pub block: bool,
}

/// The text is not valid in nginx's language from here on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ConfError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// All directives, in the order of the text, those inside blocks included.
///
/// # Errors
/// At the first position where nginx would stop too.
pub fn parse(text: &[u8]) -> Result<Vec<Directive<'_>>, ConfError> {
    let mut lexer = ConfLexer { text, at: 0 };
    let mut found = Vec::new();
    let mut words: Vec<(Cow<'_, [u8]>, usize)> = Vec::new();
    let mut depth = 0usize;
    loop {
        let token = lexer.next()?;
        match token {
            Token::Word(word, start) => words.push((word, start)),
            Token::End | Token::Open => {
                let block = token == Token::Open;
                let mut words = std::mem::take(&mut words).into_iter();
                let Some((name, start)) = words.next() else {
                    return Err(lexer.error("`;` or `{` without a directive before it"));
                };
                let lua = block && name.ends_with(b"_by_lua_block");
                let args = words.map(|(word, _)| word).collect();
                found.push(Directive { name, args, depth, span: start..lexer.at, block });
                if lua {
                    lexer.at = lua::end_of_block(text, lexer.at)
                        .ok_or_else(|| lexer.error("a Lua block without its `}`"))?;
                } else {
                    depth += usize::from(block);
                }
            }
            Token::Close if !words.is_empty() => {
                return Err(lexer.error("`}` where a `;` is missing"));
            }
            Token::Close => {
                depth = depth.checked_sub(1).ok_or_else(|| lexer.error("`}` without its `{`"))?;
            }
            Token::Eof if depth > 0 => return Err(lexer.error("a block without its `}`")),
            Token::Eof if !words.is_empty() => {
                return Err(lexer.error("the text ends inside a directive"));
            }
            Token::Eof => return Ok(found),
        }
    }
}

/// Quotes a word so that it is read back unchanged.
pub fn quote(word: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in word {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
    out
}

/// A span of a text and its replacement.
pub type Edit = (Range<usize>, Vec<u8>);

/// The text with some spans replaced. Spans must be in order and must not overlap; one that breaks
/// this is left as it was.
pub fn replace(text: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for (span, new) in edits {
        if let Some(before) = text.get(done..span.start) {
            out.extend_from_slice(before);
            out.extend_from_slice(new);
            done = span.end;
        }
    }
    out.extend_from_slice(text.get(done..).unwrap_or_default());
    out
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(Cow<'a, [u8]>, usize),
    End,
    Open,
    Close,
    Eof,
}

struct ConfLexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> ConfLexer<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn error(&self, why: &'static str) -> ConfError {
        let before = self.text.get(..self.at).unwrap_or(self.text);
        ConfError { line: 1 + before.iter().filter(|b| **b == b'\n').count(), why }
    }

    fn next(&mut self) -> Result<Token<'a>, ConfError> {
        loop {
            let Some(byte) = self.peek() else { return Ok(Token::Eof) };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => self.skip_comment(),
                b';' | b'{' | b'}' => {
                    self.at += 1;
                    return Ok(match byte {
                        b';' => Token::End,
                        b'{' => Token::Open,
                        _ => Token::Close,
                    });
                }
                b'"' | b'\'' => return self.quoted(byte),
                _ => return Ok(self.bare()),
            }
        }
    }

    fn skip_comment(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.at += 1;
        }
    }

    fn quoted(&mut self, mark: u8) -> Result<Token<'a>, ConfError> {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == mark {
                let word = self.text.get(start + 1..self.at - 1).unwrap_or_default();
                // `)` begins the next word, as in `if ($a = "b")`.
                return match self.peek() {
                    None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')') => {
                        Ok(Token::Word(decode(word), start))
                    }
                    Some(_) => Err(self.error("a word continues after its closing quote")),
                };
            }
        }
        self.at = start;
        Err(self.error("a quote is not closed"))
    }

    fn bare(&mut self) -> Token<'a> {
        let start = self.at;
        let mut variable = false;
        while let Some(byte) = self.peek() {
            match byte {
                b'{' if variable => {}
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => break,
                b'\\' => self.at += 1,
                _ => {}
            }
            variable = byte == b'$';
            self.at += 1;
        }
        self.at = self.at.min(self.text.len());
        Token::Word(decode(self.text.get(start..self.at).unwrap_or_default()), start)
    }
}

/// Replaces the escapes that nginx knows; other backslashes stay.
fn decode(word: &[u8]) -> Cow<'_, [u8]> {
    if !word.contains(&b'\\') {
        return Cow::Borrowed(word);
    }
    let mut out = Vec::with_capacity(word.len());
    let mut bytes = word.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let meant = match (byte, bytes.peek()) {
            (b'\\', Some(b'"' | b'\'' | b'\\')) => bytes.peek().copied(),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        if meant.is_some() {
            bytes.next();
        }
        out.push(meant.unwrap_or(byte));
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let text_of = |w: &Cow<'_, [u8]>| String::from_utf8_lossy(w).into_owned();
        let line = |d: &Directive<'_>| {
            let mut line = vec![format!("{}{}", d.depth, text_of(&d.name))];
            line.extend(d.args.iter().map(text_of));
            line
        };
        parse(text.as_bytes()).unwrap().iter().map(line).collect()
    }

    #[test]
    fn directives_and_blocks() {
        assert_eq!(
            words("pid /a; # include no;\nhttp { include b/*.conf; server{listen 80;} }"),
            [
                vec!["0pid", "/a"],
                vec!["0http"],
                vec!["1include", "b/*.conf"],
                vec!["1server"],
                vec!["2listen", "80"]
            ]
        );
    }

    #[test]
    fn quotes_escapes_variables() {
        assert_eq!(
            words(r#"a "b; {" 'c"d' e\"f "g\"h" i\ j;"#)[0][1..],
            ["b; {", "c\"d", "e\"f", "g\"h", "i\\ j"]
        );
        assert_eq!(words("a ${b}c $d{e;}"), [vec!["0a", "${b}c", "$d"], vec!["1e"]]);
        assert_eq!(words("x a#b c}d;")[0][1..], ["a#b", "c}d"]);
        assert_eq!(words(r#"if ($a = "b") { }"#)[0][1..], ["($a", "=", "b", ")"]);
    }

    #[test]
    fn lua_is_stepped_over() {
        let text = "access_by_lua_block { if a == '}' then -- }\n f({[[}]]}) end } pid x;";
        assert_eq!(words(text), [vec!["0access_by_lua_block"], vec!["0pid", "x"]]);
    }

    #[test]
    fn broken_texts_say_where() {
        for (text, line) in [
            ("a;\n}", 2),
            ("a {\n", 2),
            ("a b", 1),
            ("\n;", 2),
            ("\n\na \"b;", 3),
            ("a \"b\"c;", 1),
            ("a }", 1),
            ("x_by_lua_block { (", 1),
        ] {
            assert_eq!(parse(text.as_bytes()).map_err(|e| e.line).unwrap_err(), line, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[ \\t\n;{}#\"'\\\\$a-c()\\[\\]=-]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_word_is_read_back(word in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = [b"include ".as_slice(), &quote(&word), b";"].concat();
            let found = parse(&text).unwrap();
            prop_assert_eq!(&*found[0].args[0], word.as_slice());
            prop_assert_eq!(found[0].span.clone(), 0..text.len());
        }

        #[test]
        fn spans_are_the_text(lines in proptest::collection::vec("[a-z]{1,5}( [a-z0-9/.*]{1,8}){0,3}", 0..8)) {
            let text = lines.iter().map(|l| format!("  {l};\n")).collect::<String>();
            let found = parse(text.as_bytes()).unwrap();
            prop_assert_eq!(found.len(), lines.len());
            let edits: Vec<_> = found.iter().map(|d| (d.span.clone(), text.as_bytes()[d.span.clone()].to_vec())).collect();
            prop_assert_eq!(replace(text.as_bytes(), &edits), text.as_bytes());
            prop_assert_eq!(replace(text.as_bytes(), &[]), text.as_bytes());
        }
    }
}
