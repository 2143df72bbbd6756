//! Reads a template, and tells of several mistakes the first.
//!
//! Go reads from front to back and stops at the first thing it does not know. Our
//! checks run one after the other over the whole text; so when one of them stops, the
//! text before that place is looked at by the others.

use std::collections::BTreeMap;

use gotmpl::TemplateError;
use gotmpl::parse::{DefineNode, ListNode, Parser};

use super::balance::{self, Found};
use super::check;
use super::plain::{Plain, plain};
use crate::template::functions::Fault;

/// The main body, and those of the templates it defines.
type Bodies = (ListNode, BTreeMap<String, ListNode>);

/// Reads and checks a template.
///
/// # Errors
/// The first mistake, with the byte where it shows.
pub(super) fn read(text: &str) -> Result<Bodies, Found> {
    let open = balance::scan(text).map_err(|found| earlier(text, found.0).unwrap_or(found))?;
    if let Some(last) = open.last() {
        return Err(earlier(text, text.len()).unwrap_or_else(|| last.fault(text)));
    }
    let (main, defines) = parse(text).map_err(|found| earlier(text, found.0).unwrap_or(found))?;
    names(&main, &defines)?;
    Ok((main, bodies(defines)?))
}

/// A mistake before `end`, if there is one.
fn earlier(text: &str, end: usize) -> Option<Found> {
    let head = text.get(..end)?;
    // A place inside an action: what is before the action is whole.
    let head = match balance::scan(head) {
        Ok(_) => head,
        Err(_) => head.get(..head.rfind("{{")?)?,
    };
    let open = balance::scan(head).ok()?;
    let closed = head.to_owned() + &"{{end}}".repeat(open.len());
    let found = match parse(&closed) {
        Ok((main, defines)) => names(&main, &defines).err()?,
        Err(found) => {
            let (main, defines) = parse(&cut(head, found.0)?).ok()?;
            names(&main, &defines).err().unwrap_or(found)
        }
    };
    (found.0 < head.len()).then_some(found)
}

/// The text before the action that holds this place, its blocks closed.
fn cut(text: &str, at: usize) -> Option<String> {
    let before = text.get(..at)?;
    let head = before.get(..before.rfind("{{")?)?;
    let open = balance::scan(head).ok()?;
    Some(head.to_owned() + &"{{end}}".repeat(open.len()))
}

/// The tree, whatever its names are.
///
/// # Errors
/// The first thing that is no template.
pub(super) fn parse(text: &str) -> Result<(ListNode, Vec<DefineNode>), Found> {
    let Plain { text, left, right } = plain(text)?;
    Parser::new(&text, &left, &right).and_then(Parser::parse).map_err(|error| match error {
        TemplateError::Lex { line, col, message, .. }
        | TemplateError::Parse { line, col, message, .. } => {
            (offset(&text, line, col), told(message))
        }
        other => (0, Fault::from(other.to_string())),
    })
}

/// The parser's words, and what to do where they do not say it.
fn told(message: String) -> Fault {
    match message.as_str() {
        "empty command" => Fault::new(
            "missing value",
            "nothing stands behind `if`, `range`, `with` or `|`, or in the braces",
        ),
        _ => message.into(),
    }
}

/// The byte of a place that the parser names.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let rest: &str = text.get(before..).unwrap_or_default();
    let chars = rest.chars().take(column.saturating_sub(1)).map(char::len_utf8);
    before + chars.sum::<usize>()
}

/// The first name that nobody defined.
fn names(main: &ListNode, defines: &[DefineNode]) -> Result<(), Found> {
    let bodies = std::iter::once(main).chain(defines.iter().map(|define| &define.body));
    let first = bodies.filter_map(|body| check::check(body).err()).min_by_key(|found| found.0);
    first.map_or(Ok(()), Err)
}

fn bodies(defines: Vec<DefineNode>) -> Result<BTreeMap<String, ListNode>, Found> {
    let mut bodies: BTreeMap<String, ListNode> = BTreeMap::new();
    for define in defines {
        let known = bodies.get(define.name.as_str()).is_some_and(|b| !b.is_empty_tree());
        if known && !define.body.is_empty_tree() {
            let fault = format!("multiple definition of template \"{}\"", define.name);
            return Err((define.pos.offset, Fault::new(fault, "rename one of them")));
        }
        if !known {
            bodies.insert(define.name.to_string(), define.body);
        }
    }
    Ok(bodies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> String {
        let (at, fault) = read(text).unwrap_err();
        let (line, column) = crate::template::error::place(text, at);
        format!("{line}:{column} {}", fault.what)
    }

    #[test]
    fn the_first_mistake_is_told() {
        for (text, told) in [
            ("{{ range gets \"/*\" }}\n\n{{ edn }}\n", "3:4 function \"edn\" not defined"),
            ("{{ nope }}{{ end }}", "1:4 function \"nope\" not defined"),
            ("{{ nope }}\n{{ \"\\q\" }}", "1:4 function \"nope\" not defined"),
            ("{{ nope }}\n{{ (1 }}", "1:4 function \"nope\" not defined"),
            ("{{ $x }}{{ if 1 }}{{ else }}{{ else }}{{ end }}", "1:4 undefined variable \"$x\""),
            (
                "{{ define \"a\" }}{{ nope }}{{ end }}{{ nope2 }}",
                "1:20 function \"nope\" not defined",
            ),
            ("{{ if 1 }}\n{{ nope ", "2:1 unclosed action"),
            ("{{ if 1 }}{{ if 2 }}{{ end }}", "1:1 the {{if}} of line 1 has no {{end}}"),
        ] {
            assert_eq!(first(text), told, "{text}");
        }
    }

    #[test]
    fn a_misspelt_keyword_has_its_near_name() {
        let (_, fault) = read("{{ range gets \"/*\" }}{{ edn }}").unwrap_err();
        assert_eq!(fault.remedy.as_deref(), Some("did you mean `end`?"));
    }
}
