//! The command of an `exec:` check, as words. No shell reads it, so what only a shell would
//! understand is a mistake, and not an argument. Pure.

use super::check::CheckError;

/// What a command line of a shell has outside of quotes, and no argument that was meant.
const OPERATORS: [&str; 10] = ["||", "|", "&&", "2>&1", ">>", ">", "<<", "<", ";", "`"];

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

/// The first operator of a shell outside of quotes.
fn operator(command: &str) -> Option<String> {
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
    let expands = |c: char| c.is_ascii_alphabetic() || "_({".contains(c);
    if rest.starts_with('$') && next.is_some_and(expands) {
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name: String = after.chars().take_while(|c| named(*c)).collect();
        let name = if name.is_empty() { next.map(String::from).unwrap_or_default() } else { name };
        return Some(format!("${name}"));
    }
    None
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
        ] {
            let said = split(command).unwrap_err().to_string();
            assert!(said.contains(&format!("`{operator}`")), "{command}: {said}");
            assert!(said.contains("exec:sh -c "), "{command}: {said}");
        }
        let said = split("cd /srv && ./check").unwrap_err().to_string();
        assert!(said.contains("write exec:sh -c 'cd /srv && ./check'"), "{said}");
    }

    #[test]
    fn what_is_quoted_is_an_argument() {
        for command in [
            "sh -c 'ps aux | grep nginx'",
            "sh -c \"test -e $HOME/x && exit 0\"",
            r"grep a\|b /run/x",
            "grep 'a|b' /run/x",
            "curl -fsS http://127.0.0.1/health?a=b&c=d",
            "test 5 = $5",
        ] {
            assert!(split(command).is_ok(), "{command}");
        }
    }
}
