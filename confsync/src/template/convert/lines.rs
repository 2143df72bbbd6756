//! Lines that handlebars would join.
//!
//! A block's tag that is alone on its line takes the line's end with it. Where all tags
//! of a block stand alone, that leaves out empty lines and nothing else. Where only some
//! do, as in `{{range .}}` with a line end behind and `{{end}}` behind an item, it would
//! join the items to one line. There, and behind a partial, which would be indented too,
//! an expression that writes nothing keeps the line.

/// Writes nothing, and is no white space.
const NOTHING: &str = "{{{concat \"\"}}}";

/// What a tag is to its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Open,
    Else,
    Close,
    Partial,
    Other,
}

struct Tag {
    end: usize,
    kind: Kind,
    alone: bool,
}

/// The same template with its lines kept apart.
pub(super) fn keep(text: &str) -> String {
    let tags = tags(text);
    let mut kept = Vec::new();
    let mut open: Vec<Vec<&Tag>> = Vec::new();
    for tag in &tags {
        match tag.kind {
            Kind::Open => open.push(vec![tag]),
            Kind::Partial if tag.alone => kept.push(tag.end),
            Kind::Else | Kind::Close => {
                if let Some(block) = open.last_mut() {
                    block.push(tag);
                }
            }
            Kind::Partial | Kind::Other => {}
        }
        if tag.kind == Kind::Close {
            let block = open.pop().unwrap_or_default();
            if !block.iter().all(|tag| tag.alone) {
                kept.extend(block.iter().filter(|tag| tag.alone).map(|tag| tag.end));
            }
        }
    }
    kept.sort_unstable();
    let mut out = String::with_capacity(text.len() + kept.len() * NOTHING.len());
    let mut from = 0;
    for end in kept {
        out.push_str(text.get(from..end).unwrap_or_default());
        out.push_str(NOTHING);
        from = end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

fn tags(text: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("{{")) {
        let start = from + at;
        let before = text.get(..start).unwrap_or_default();
        let tag = text.get(start..).unwrap_or_default();
        if before.ends_with('\\') {
            from = start + 2;
            continue;
        }
        let end = start + length(tag);
        let inner = tag.trim_start_matches('{');
        let kind = match inner.chars().next() {
            Some('#') => Kind::Open,
            Some('/') => Kind::Close,
            Some('>') => Kind::Partial,
            _ if inner.starts_with("else}") || inner.starts_with("else ") => Kind::Else,
            _ => Kind::Other,
        };
        let line = before.rsplit('\n').next().unwrap_or_default();
        let rest = text.get(end..).unwrap_or_default().split('\n').next().unwrap_or_default();
        let alone = line.trim().is_empty() && rest.trim().is_empty();
        tags.push(Tag { end, kind, alone });
        from = end;
    }
    tags
}

/// The bytes of the tag in front; braces in its strings do not count.
fn length(tag: &str) -> usize {
    let close = if tag.starts_with("{{{") { "}}}" } else { "}}" };
    let mut quoted = false;
    let mut chars = tag.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => drop(chars.next()),
            '}' if !quoted && tag.get(at..).is_some_and(|rest| rest.starts_with(close)) => {
                return at + close.len();
            }
            _ => {}
        }
    }
    tag.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_all_stand_alone_are_left_alone() {
        for text in [
            "{{#each x}}\n  a\n{{else}}\n  b\n{{/each}}\n",
            "a{{#if x}}b{{/if}}\n",
            "x: {{#if (eq y \"}}\\\"\")}}\\{{ {{/if}}",
        ] {
            assert_eq!(keep(text), text);
        }
    }

    #[test]
    fn where_one_does_not_its_line_is_kept() {
        assert_eq!(
            keep("t:{{#with x}}\n{{#each y}}\n - {{z}}{{/each}}\n{{/with}}\n"),
            format!(
                "t:{{{{#with x}}}}\n{{{{#each y}}}}{NOTHING}\n - {{{{z}}}}{{{{/each}}}}\n{{{{/with}}}}{NOTHING}\n"
            )
        );
        assert_eq!(keep("  {{> p}}\nq"), format!("  {{{{> p}}}}{NOTHING}\nq"));
    }
}
