//! What nginx takes for text wherever it stands, and how to write the rest.
//!
//! Pure. Facts by experiment with nginx 1.22: outside quotes a space, `;`, `{`, `}`,
//! a quote, `\` and `#` change the structure; inside quotes the quote and `\` do; `$`
//! begins a variable in both and has no escape.

use crate::template::functions::Fault;

/// The longest token nginx reads, in bytes, escapes included.
const MAX_TOKEN: usize = 4094;

/// Why a character cannot stand for itself both inside and outside quotes.
fn trouble(c: char) -> Option<&'static str> {
    match c {
        ' ' | '\t' | '\n' | '\r' => Some("ends a word"),
        ';' => Some("ends a directive"),
        '{' | '}' => Some("opens or closes a block"),
        '"' | '\'' => Some("opens or closes quotes"),
        '\\' => Some("escapes what follows"),
        '#' => Some("begins a comment"),
        '$' => Some("begins a variable"),
        c if c.is_control() => Some("is a control character"),
        _ => None,
    }
}

/// Refuses a text that could be more than a text to nginx.
///
/// # Errors
/// The first character that could, with the helper to use instead.
pub(super) fn plain(text: &str, expression: &str) -> Result<(), Fault> {
    if let Some((c, why)) = text.chars().find_map(|c| trouble(c).map(|why| (c, why))) {
        let shown: String = text.chars().take(40).collect();
        let what = format!("the value of {expression} is {shown:?}, and {c:?} {why} in nginx");
        let remedy = if matches!(c, '$') {
            "write it with `{{quote …dollar=\"${dollar}\"}}` and `geo $dollar { default \"$\"; }`, or `{{{…}}}` if the value is trusted"
        } else {
            "write `{{quote …}}` for a quoted string of nginx, without quotes around it, or `{{{…}}}` if the value is trusted"
        };
        return Err(Fault::new(what, remedy));
    }
    fits(text.len(), expression)
}

fn fits(length: usize, expression: &str) -> Result<(), Fault> {
    if length <= MAX_TOKEN {
        return Ok(());
    }
    let what = format!(
        "the value of {expression} has {length} bytes; nginx reads {MAX_TOKEN} in one word"
    );
    Err(Fault::new(what, "shorten the value of the key"))
}

/// A quoted string of nginx. `dollar` is what to write for `$`.
///
/// # Errors
/// For what no quoting can carry: NUL, `$` without a `dollar`, too many bytes.
pub(super) fn quoted(text: &str, dollar: Option<&str>) -> Result<String, Fault> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match (c, dollar) {
            ('\\', _) => out.push_str("\\\\"),
            ('"', _) => out.push_str("\\\""),
            ('\0', _) => {
                return Err(Fault::new(
                    "NUL cannot be in a config of nginx",
                    "correct the key's value",
                ));
            }
            ('$', None) => {
                return Err(Fault::new(
                    "`$` begins a variable, also inside quotes, and nginx has no escape for it",
                    "say what to write: `{{quote … dollar=\"${dollar}\"}}` with `geo $dollar { default \"$\"; }`",
                ));
            }
            ('$', Some(dollar)) => out.push_str(dollar),
            (c, _) => out.push(c),
        }
    }
    out.push('"');
    fits(out.len() - 2, "quote")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_names_and_urls_are_plain() {
        for text in
            ["", "10.0.0.1:80", "[::1]:80", "a-b_c.example", "http://a/b?c=d&e=%20", "größe"]
        {
            assert_eq!(plain(text, "x"), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_could_change_the_structure_is_refused() {
        for text in ["a b", "a;", "a{", "}", "\"", "'", "\\", "#", "$x", "a\nb", "\0"] {
            assert!(plain(text, "x").is_err(), "{text:?}");
        }
        assert!(plain(&"a".repeat(5000), "x").is_err());
    }

    #[test]
    fn a_dollar_is_written_as_told_or_refused() {
        assert_eq!(quoted("a\"\\;{", None).unwrap(), r#""a\"\\;{""#);
        assert!(quoted("$a", None).is_err());
        assert_eq!(quoted("$a", Some("${dollar}")).unwrap(), "\"${dollar}a\"");
    }

    proptest! {
        #[test]
        fn a_quoted_string_is_one_token(text in "[^$\\x00]{0,60}") {
            let quoted = quoted(&text, None).unwrap();
            let inner = &quoted[1..quoted.len() - 1];
            // Reads back as nginx reads it: a backslash takes the next character.
            let mut read = String::new();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                prop_assert_ne!(c, '"');
                read.push(if c == '\\' { chars.next().unwrap() } else { c });
            }
            prop_assert_eq!(read, text);
        }
    }
}
