//! The command of an `exec:` check, as words. No shell reads it, so what only a shell would
//! understand is a mistake, and not an argument. Pure.

use super::check::CheckError;

/// What a command line of a shell has outside of quotes, and no argument that was meant.
const OPERATORS: [&str; 10] = ["||", "|", "&&", "2>&1", ">>", ">", "<<", "<", ";", "`"];

/// Words of a shell's language in the place of a command.
const KEYWORDS: [&str; 8] = ["!", "[[", "{", "if", "for", "while", "case", "until"];

/// The words of a command; quotes as a shell has them.
pub(super) fn split(command: &str) -> Result<Vec<String>, CheckError> {
    let argv = shlex::split(command).ok_or_else(|| CheckError::Quote(short(command)))?;
    if argv.first().is_none_or(String::is_empty) {
        return Err(CheckError::NoCommand);
    }
    match operator(command) {
        None => Ok(argv),
        Some(operator) => {
            let quoted = shlex::try_quote(command.trim()).unwrap_or_default().into_owned();
            Err(CheckError::Shell { operator, quoted })
        }
    }
}

/// The first operator of a shell outside of quotes, or what it would put in the place of a word.
fn operator(command: &str) -> Option<String> {
    let is_of_a_shell =
        |word: &&str| is_assignment(word) || KEYWORDS.contains(word) || word.starts_with('(');
    if let Some(first) = command.split_whitespace().next().filter(is_of_a_shell) {
        return Some(first.to_owned());
    }
    let is_shell = command.split_whitespace().next().is_some_and(|word| word.ends_with("sh"));
    let (mut rest, mut quote, mut at_start) = (command, None, true);
    while let Some(next) = rest.chars().next() {
        let after = rest.get(next.len_utf8()..).unwrap_or_default();
        match (quote, next) {
            // What is escaped is an argument.
            (None | Some('"'), '\\') => {
                let escaped = after.chars().next().map_or(0, char::len_utf8);
                rest = after.get(escaped..).unwrap_or_default();
                at_start = false;
                continue;
            }
            (None, '\'' | '"') => quote = Some(next),
            (Some(open), close) if open == close => quote = None,
            // A shell looks into these quotes; if it is a shell that we start, this one does.
            (Some('"'), '`') if !is_shell => return Some("`".to_owned()),
            (Some('"'), '$') if !is_shell => {
                if let Some(found) = expansion(after) {
                    return Some(found);
                }
            }
            (None, _) => {
                if let Some(found) = operator_at(rest, after, at_start) {
                    return Some(found);
                }
            }
            _ => {}
        }
        at_start = quote.is_none() && next.is_whitespace();
        rest = after;
    }
    None
}

/// The operator that `rest` begins with; `after` is without its first character.
fn operator_at(rest: &str, after: &str, at_start: bool) -> Option<String> {
    if let Some(found) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
        return Some((*found).to_owned());
    }
    let next = after.chars().next();
    // Inside of a word it is most often part of a URL.
    if rest.starts_with('&') && (at_start || next.is_none_or(char::is_whitespace)) {
        return Some("&".to_owned());
    }
    if rest.starts_with("~/") && at_start {
        return Some("~/".to_owned());
    }
    rest.starts_with('$').then(|| expansion(after)).flatten()
}

/// What a shell would replace, if `after` is what follows a `$`.
fn expansion(after: &str) -> Option<String> {
    let expands = |c: &char| c.is_ascii_alphabetic() || "_({".contains(*c);
    let next = after.chars().next().filter(expands)?;
    let name: String = after.chars().take_while(|c| is_of_name(*c)).collect();
    Some(if name.is_empty() { format!("${next}") } else { format!("${name}") })
}

/// `A=b` before a command, which only a shell takes for a variable.
fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    let is_name = |name: &str| {
        name.chars().all(is_of_name) && name.starts_with(|c: char| !c.is_ascii_digit())
    };
    name.is_some_and(is_name)
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_shell_understands_is_named_with_the_way_to_have_one() {
        for (command, operator) in [
            ("pgrep nginx || exit 1", "||"),
            ("ps aux | grep '[n]ginx'", "|"),
            ("ps|grep x", "|"),
            ("cd /srv && ./check", "&&"),
            ("./check; true", ";"),
            ("./check &", "&"),
            ("./check >/dev/null", ">"),
            ("./check 2>&1", "2>&1"),
            ("./check <input", "<"),
            ("test $(cat /run/x) = 1", "$("),
            ("test `cat /run/x` = 1", "`"),
            ("test -e $HOME/x", "$HOME"),
            ("test -e ${HOME}/x", "${"),
            ("test \"$(cat /run/x)\" = 1", "$("),
            ("test -e \"$HOME/x\"", "$HOME"),
            ("test \"`cat /run/x`\" = 1", "`"),
            ("PGPASSWORD=x psql -c 1", "PGPASSWORD=x"),
            ("~/check", "~/"),
            ("! pgrep nginx", "!"),
            ("[[ -e /run/x ]]", "[["),
            ("(pgrep nginx)", "(pgrep"),
            ("if pgrep nginx", "if"),
        ] {
            let message = split(command).unwrap_err().to_string();
            assert!(message.contains(&format!("`{operator}`")), "{command}: {message}");
            assert!(message.contains("exec:sh -c "), "{command}: {message}");
        }
        let message = split("cd /srv && ./check").unwrap_err().to_string();
        assert!(message.contains("write exec:sh -c 'cd /srv && ./check'"), "{message}");
    }

    #[test]
    fn what_is_quoted_is_an_argument() {
        for command in [
            "sh -c 'ps aux | grep nginx'",
            "sh -c \"test -e $HOME/x && exit 0\"",
            "/bin/bash -c \"test `cat /run/x` = 1\"",
            r"grep a\|b /run/x",
            "grep 'a|b' /run/x",
            "curl -fsS http://127.0.0.1/health?a=b&c=d",
            "test 5 = $5",
            "env A=b ./check --level=3 ~",
            "grep '$HOME' /run/x~/y",
            r#"grep "\$HOME" /run/x"#,
        ] {
            assert!(split(command).is_ok(), "{command}");
        }
    }
}
