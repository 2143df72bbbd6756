//! Which characters nginx, HAProxy, JSON and shells take for plain text, and how other values are
//! quoted.
//!
//! Pure. Facts by experiment with nginx 1.22: outside quotes a space, `;`, `{`, `}`,
//! a quote, `\` and `#` change the structure; inside quotes the quote and `\` do; `$`
//! begins a variable in both and has no escape. HAProxy 2.6: as nginx without `;`. A value in
//! JSON is meant to be inside of quotes.

use serde_json::Value as Json;

use crate::template::escape::Escape;
use crate::template::functions::Fault;

/// The longest token nginx reads, in bytes, escapes included.
const MAX_TOKEN: usize = 4094;
/// The longest line that HAProxy reads.
const MAX_LINE: usize = 2047;

/// Why a character is not plain text both inside and outside quotes.
fn trouble(escape: Escape, c: char) -> Option<&'static str> {
    let is = |set: &str| set.contains(c);
    match escape {
        Escape::None => None,
        _ if c.is_control() && !is("\t\n\r") => Some("is a control character"),
        Escape::Json if is("\t\n\r") => Some("is not allowed in a string"),
        Escape::Json => match c {
            '"' => Some("ends a string"),
            '\\' => Some("escapes what follows"),
            _ => None,
        },
        _ if is(" \t\n\r") => Some("ends a word"),
        _ if is("\"'") => Some("opens or closes quotes"),
        _ if c == '\\' => Some("escapes what follows"),
        _ if c == '#' => Some("begins a comment"),
        _ if c == '$' => Some("begins a variable"),
        Escape::Shell if is(";&|<>()`*?[]{}!~") => Some("means more than itself"),
        Escape::Nginx if c == ';' => Some("ends a directive"),
        Escape::Nginx | Escape::Haproxy if is("{}") => Some("opens or closes a block"),
        _ => None,
    }
}

/// Rejects a text that could be more than plain text in the file.
///
/// # Errors
/// The first such character, with the helper to use instead.
pub(super) fn plain(escape: Escape, text: &str, expression: &str) -> Result<(), Fault> {
    let found = text.chars().find_map(|c| trouble(escape, c).map(|why| (c, why)));
    if let Some((c, why)) = found {
        let shown: String = text.chars().take(40).collect();
        let reader = escape.reader();
        let what = format!("the value of {expression} is {shown:?}, and {c:?} {why} in {reader}");
        return Err(Fault::new(what, remedy(escape, c)));
    }
    if escape == Escape::Json && !is_one_value(text) {
        let shown: String = text.chars().take(40).collect();
        let what = format!("the value of {expression} is {shown:?}, which is more than one value");
        return Err(Fault::new(what, "write `{{quote …}}`, without quotes around it"));
    }
    fits(escape, text.len(), expression)
}

fn remedy(escape: Escape, c: char) -> String {
    let quote = match (escape, c) {
        (Escape::Nginx, '$') => {
            "write it with `{{quote …dollar=\"${dollar}\"}}` and `geo $dollar { default \"$\"; }`"
                .to_owned()
        }
        (escape, _) => format!(
            "write `{{{{quote …}}}}` for a quoted string of {}, without quotes around it",
            escape.reader()
        ),
    };
    format!("{quote}, or `{{{{{{…}}}}}}` if the value is trusted")
}

/// Outside of quotes, `1, 2` would be two values.
fn is_one_value(text: &str) -> bool {
    let listed = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&format!("[{text}]"));
    listed.map_or(true, |list| list.len() <= 1)
}

fn fits(escape: Escape, length: usize, expression: &str) -> Result<(), Fault> {
    let most = match escape {
        Escape::Nginx => MAX_TOKEN,
        Escape::Haproxy => MAX_LINE,
        Escape::Json | Escape::Shell | Escape::None => return Ok(()),
    };
    if length <= most {
        return Ok(());
    }
    let what = format!(
        "the value of {expression} has {length} bytes; {} reads {most} in one word",
        escape.reader()
    );
    Err(Fault::new(what, "shorten the value of the key"))
}

/// A quoted string in the syntax of the file.
///
/// # Errors
/// When no quoting can represent it.
pub(super) fn quoted(escape: Escape, text: &str, dollar: Option<&str>) -> Result<String, Fault> {
    match escape {
        Escape::Nginx | Escape::None => nginx_string(text, dollar),
        Escape::Json => Ok(Json::from(text).to_string()),
        Escape::Shell | Escape::Haproxy => double_quoted(escape, text),
    }
}

/// Inside double quotes, shells, systemd and HAProxy agree on what a backslash does.
fn double_quoted(escape: Escape, text: &str) -> Result<String, Fault> {
    let carried =
        |c: char| !c.is_control() || (escape == Escape::Shell && matches!(c, '\t' | '\n'));
    if let Some(c) = text.chars().find(|c| !carried(*c)) {
        let what = format!("{c:?} cannot be in a string of {}", escape.reader());
        return Err(Fault::new(what, "correct the key's value"));
    }
    let special: &str = if escape == Escape::Shell { "\"\\$`" } else { "\"\\$" };
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if special.contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    fits(escape, out.len() - 2, "quote")?;
    Ok(out)
}

/// A quoted string of nginx. `dollar` is what to write for `$`.
///
/// # Errors
/// When no quoting can represent it: NUL, `$` without a `dollar`, too many bytes.
fn nginx_string(text: &str, dollar: Option<&str>) -> Result<String, Fault> {
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
    fits(Escape::Nginx, out.len() - 2, "quote")?;
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
            assert_eq!(plain(Escape::Nginx, text, "x"), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_could_change_the_structure_is_refused() {
        for text in ["a b", "a;", "a{", "}", "\"", "'", "\\", "#", "$x", "a\nb", "\0"] {
            assert!(plain(Escape::Nginx, text, "x").is_err(), "{text:?}");
        }
        assert!(plain(Escape::Nginx, &"a".repeat(5000), "x").is_err());
    }

    #[test]
    fn a_dollar_is_written_as_configured_or_rejected() {
        assert_eq!(quoted(Escape::Nginx, "a\"\\;{", None).unwrap(), r#""a\"\\;{""#);
        assert!(quoted(Escape::Nginx, "$a", None).is_err());
        assert_eq!(quoted(Escape::Nginx, "$a", Some("${dollar}")).unwrap(), "\"${dollar}a\"");
    }

    #[test]
    fn each_kind_of_file_rejects_what_is_more_than_text_there() {
        for (escape, good, bad) in [
            (Escape::Haproxy, "a;b", "a b"),
            (Escape::Haproxy, "10.0.0.1:80", "a#b"),
            (Escape::Json, "My shop; {50 $}", "a\"b"),
            (Escape::Json, "a, b", "1, 2"),
            (Escape::Json, "", "a\\b"),
            (Escape::Shell, "a_b=c", "a b"),
            (Escape::Shell, "/x:y@z", "$(id)"),
        ] {
            assert_eq!(plain(escape, good, "x"), Ok(()), "{escape:?} {good}");
            assert!(plain(escape, bad, "x").is_err(), "{escape:?} {bad}");
        }
        assert_eq!(plain(Escape::None, "a b;\n\"", "x"), Ok(()));
    }

    #[test]
    fn a_string_is_quoted_as_its_reader_has_it() {
        let text = "a \"b\" $c `d` \\";
        for (escape, wanted) in [
            (Escape::Json, r#""a \"b\" $c `d` \\""#),
            (Escape::Shell, r#""a \"b\" \$c \`d\` \\""#),
            (Escape::Haproxy, r#""a \"b\" \$c `d` \\""#),
        ] {
            assert_eq!(quoted(escape, text, None).unwrap(), wanted, "{escape:?}");
        }
        assert!(quoted(Escape::Haproxy, "a\nb", None).is_err());
    }

    proptest! {
        #[test]
        fn a_quoted_string_is_one_token(text in "[^$\\x00]{0,60}") {
            let quoted = quoted(Escape::Nginx, &text, None).unwrap();
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
