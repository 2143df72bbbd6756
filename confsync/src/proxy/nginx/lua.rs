//! Where a `*_by_lua_block { … }` ends: its braces are Lua's, and Lua's strings and
//! comments may hold braces of their own.

/// The position after the `}` that closes the block whose `{` ends before `at`.
pub(super) fn end_of_block(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1usize;
    loop {
        let rest = text.get(at..)?;
        match rest.first()? {
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(at + 1),
            b'}' => depth -= 1,
            mark @ (b'"' | b'\'') => at += string(rest, *mark)?,
            b'[' => at += long_bracket(rest)?.saturating_sub(1),
            b'-' if rest.starts_with(b"--") => at += comment(rest)?,
            _ => {}
        }
        at += 1;
    }
}

/// The position of the closing quote.
fn string(rest: &[u8], mark: u8) -> Option<usize> {
    let mut at = 1;
    loop {
        match rest.get(at)? {
            b'\\' => at += 2,
            byte if *byte == mark => return Some(at),
            _ => at += 1,
        }
    }
}

/// The length of `[[ … ]]` or `[==[ … ]==]`; 0 if this `[` is an index.
fn long_bracket(rest: &[u8]) -> Option<usize> {
    let level = rest.iter().skip(1).take_while(|b| **b == b'=').count();
    if rest.get(level + 1) != Some(&b'[') {
        return Some(0);
    }
    let close = [b"]".as_slice(), &vec![b'='; level], b"]"].concat();
    let inside = rest.get(level + 2..)?;
    let end = inside.windows(close.len()).position(|w| w == close)?;
    Some(level + 2 + end + close.len())
}

/// The length of a comment less one, without its line end.
fn comment(rest: &[u8]) -> Option<usize> {
    let inside = rest.get(2..)?;
    if inside.first() == Some(&b'[') {
        let length = long_bracket(inside)?;
        if length > 0 {
            return Some(1 + length);
        }
    }
    Some(inside.iter().position(|b| *b == b'\n').unwrap_or(inside.len()) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(text: &str) -> Option<&str> {
        end_of_block(text.as_bytes(), 0).map(|at| &text[at..])
    }

    #[test]
    fn braces_of_lua_count_and_those_in_text_do_not() {
        for body in [
            "",
            "local t = {a = {}}",
            "x = '}' y = \"}\\\"}\"",
            "-- }\n",
            "--[[ }\n} ]]",
            "--[==[ ]] } ]==]",
            "x = [[ } ]]",
            "x = [=[ } ]] } ]=]",
            "t[1] = t[t[2]]",
            "a = b - c",
            "--",
        ] {
            let text = format!("{body}\n}} after");
            assert_eq!(rest(&text), Some(" after"), "{body}");
        }
        for open in ["", "{ }", "'", "[[ }", "--[[ }", "-- }"] {
            assert_eq!(rest(open), None, "{open}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[{}\\[\\]='\"\\\\a\n-]{0,40}") {
            let _ = rest(&text);
        }
    }
}
