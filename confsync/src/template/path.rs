//! Go's `path`: `Match`, `Base`, `Dir`, `Clean`, `Join`, on keys.
//!
//! Source: the documentation of Go's package `path`; the edges are pinned by the
//! corpus.

/// The pattern of a `path.Match` does not read: a `[` without its `]`, a lone
/// backslash at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether the whole name fits the pattern. `*` and `?` never cross a `/`.
///
/// # Errors
/// [`BadPattern`], whatever the name is.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let items = parse(pattern)?;
    let name: Vec<char> = name.chars().collect();
    Ok(fits(&items, &name))
}

/// A pattern that has been read once, for use on many names.
#[derive(Debug)]
pub struct Pattern {
    items: Vec<PatternItem>,
    plain: Shortcut,
}

/// Shapes that need no search.
#[derive(Debug)]
enum Shortcut {
    /// Without any special character.
    Exactly(String),
    /// Plain text, then one `*` at the end.
    Under(String),
    No,
}

#[derive(Debug)]
enum PatternItem {
    Char(char),
    Any,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let items = parse(pattern)?;
        let plain = match (literal(&items), items.get(literal(&items).1..)) {
            ((text, _), Some([])) => Shortcut::Exactly(text),
            ((text, _), Some([PatternItem::Star])) => Shortcut::Under(text),
            _ => Shortcut::No,
        };
        Ok(Self { items, plain })
    }

    /// The text that every fitting name begins with.
    pub fn prefix(&self) -> String {
        literal(&self.items).0
    }

    /// Whether the whole name fits.
    pub fn fits(&self, name: &str) -> bool {
        match &self.plain {
            Shortcut::Exactly(text) => name == text,
            Shortcut::Under(text) => {
                name.strip_prefix(text.as_str()).is_some_and(|n| !n.contains('/'))
            }
            Shortcut::No => {
                let name: Vec<char> = name.chars().collect();
                fits(&self.items, &name)
            }
        }
    }
}

/// The plain text at the front, and how many items it is.
fn literal(items: &[PatternItem]) -> (String, usize) {
    let text: String = items
        .iter()
        .map_while(|item| if let PatternItem::Char(c) = item { Some(*c) } else { None })
        .collect();
    let count = text.chars().count();
    (text, count)
}

fn parse(pattern: &str) -> Result<Vec<PatternItem>, BadPattern> {
    let mut items = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        items.push(match c {
            '*' => PatternItem::Star,
            '?' => PatternItem::Any,
            '\\' => PatternItem::Char(chars.next().ok_or(BadPattern)?),
            '[' => class(&mut chars)?,
            c => PatternItem::Char(c),
        });
    }
    Ok(items)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn class(chars: &mut Chars<'_>) -> Result<PatternItem, BadPattern> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(PatternItem::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
        if chars.peek().is_none() {
            return Err(BadPattern);
        }
    }
}

fn class_char(chars: &mut Chars<'_>) -> Result<char, BadPattern> {
    match chars.next() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => chars.next().ok_or(BadPattern),
        Some(c) => Ok(c),
    }
}

/// Greedy with one place to come back to: a later `*` makes earlier ones final,
/// so the work is at most pattern times name.
fn fits(items: &[PatternItem], name: &[char]) -> bool {
    let (mut item, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match (items.get(item), name.get(at)) {
            (None, None) => return true,
            (Some(PatternItem::Star), _) => {
                back = Some((item, at));
                item += 1;
                continue;
            }
            (Some(one), Some(c)) if one_fits(one, *c) => {
                (item, at) = (item + 1, at + 1);
                continue;
            }
            _ => {}
        }
        match back {
            Some((star, from)) if name.get(from).is_some_and(|c| *c != '/') => {
                back = Some((star, from + 1));
                (item, at) = (star + 1, from + 1);
            }
            _ => return false,
        }
    }
}

fn one_fits(item: &PatternItem, c: char) -> bool {
    match item {
        PatternItem::Char(want) => *want == c,
        PatternItem::Any => c != '/',
        PatternItem::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
        }
        PatternItem::Star => false,
    }
}

/// The last element; `.` for nothing, `/` for slashes alone.
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// All but the last element, cleaned.
pub fn dir(path: &str) -> String {
    let end = path.rfind('/').map_or(0, |at| at + 1);
    clean(path.get(..end).unwrap_or_default())
}

/// The shortest equal path: no `//`, no `.`, `..` resolved where it can be.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".into(),
        (false, path) => path,
    }
}

/// Whether an absolute path is as [`clean`] makes it; it then costs no copy.
pub fn is_clean(path: &str) -> bool {
    // Of thousands of keys hardly one has a part that begins like `.` or is empty.
    let is_odd = |two: &[u8]| matches!(two, [b'/', b'/' | b'.']);
    if path.starts_with('/') && !path.ends_with('/') && !path.as_bytes().windows(2).any(is_odd) {
        return true;
    }
    path.starts_with('/') && clean(path) == path
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_stay_in_their_place() {
        for (pattern, name, fit) in [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/.b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/*/c", "/a/b/c", true),
            ("/*/*/*", "/a/b/c", true),
            ("/a*b*c", "/axbybzc", true),
            ("/a?c", "/a/c", false),
            ("/[a-c]", "/b", true),
            ("/[^a-c]", "/b", false),
            ("/[^a]", "//", true),
            ("/\\*", "/*", true),
            ("/a", "/a/", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), Ok(fit), "{pattern} {name}");
            assert_eq!(Pattern::new(pattern).unwrap().fits(name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn a_bad_pattern_is_refused_whatever_the_name() {
        for pattern in ["[", "[]a]", "[a", "[-]", "[a-", "a\\", "x[^", "[x-]"] {
            assert_eq!(matches(pattern, "nothing like it"), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn base_dir_and_clean() {
        for (path, want_base, want_dir) in [
            ("", ".", "."),
            ("/", "/", "/"),
            ("//", "/", "/"),
            ("/a", "a", "/"),
            ("/a/b/", "b", "/a/b"),
            ("/a/b", "b", "/a"),
            ("a", "a", "."),
            ("/a//b/../c", "c", "/a"),
        ] {
            assert_eq!((base(path), dir(path).as_str()), (want_base, want_dir), "{path}");
        }
        assert_eq!(clean("/../a/./b//"), "/a/b");
        assert_eq!(clean("../a"), "../a");
    }

    proptest! {
        #[test]
        fn clean_is_what_cleaning_leaves_as_it_is(path in "[a./]{0,12}") {
            prop_assert_eq!(is_clean(&path), path.starts_with('/') && clean(&path) == path);
        }

        #[test]
        fn any_pattern_on_any_name_is_an_answer(pattern in "[*?\\[\\]a-c/^\\\\-]{0,20}", name in "[a-c/]{0,40}") {
            let fit = matches(&pattern, &name);
            if let (Ok(fit), Ok(read)) = (fit, Pattern::new(&pattern)) {
                prop_assert_eq!(read.fits(&name), fit);
                prop_assert!(!fit || name.starts_with(&read.prefix()));
            }
        }
    }
}
