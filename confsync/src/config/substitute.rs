//! `{{src}}` and `{{dest}}` in a command line, in all the ways confd's users write
//! them.

use std::path::Path;

/// Puts the paths into the line, for `{{src}}`, `{{.src}}`, `{{ .src }}` and the same
/// with `dest`. Anything else in braces is left alone.
///
/// The paths go in as they are, without quotes, because users write quotes of their
/// own around them. They come from the operator's `dest`, never from etcd.
#[must_use]
pub fn substitute(line: &str, src: &Path, dest: &Path) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, inside, after)) = next_place(rest) {
        out.push_str(before);
        match named(inside) {
            Some("src") => out.push_str(&src.to_string_lossy()),
            Some("dest") => out.push_str(&dest.to_string_lossy()),
            _ => {
                // Only the first brace: `{{{src}}` has its place one further on.
                out.push('{');
                rest = rest.get(before.len() + 1..).unwrap_or_default();
                continue;
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether the line has a place for the candidate; one without checks another file.
#[must_use]
pub fn names_src(line: &str) -> bool {
    let probe = Path::new("\u{1}");
    substitute(line, probe, Path::new("")).contains('\u{1}')
}

fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    match rest.split_once("}}") {
        Some((inside, after)) => Some((before, inside, after)),
        None => None,
    }
}

fn named(inside: &str) -> Option<&str> {
    let name = inside.trim();
    Some(name.strip_prefix('.').unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(line: &str) -> String {
        substitute(line, Path::new("/s/.x"), Path::new("/d/x"))
    }

    #[test]
    fn every_way_of_writing_it() {
        for way in ["{{src}}", "{{.src}}", "{{ .src }}", "{{ src }}", "{{\t.src}}"] {
            assert_eq!(paths(&format!("t -c {way} -q")), "t -c /s/.x -q", "{way}");
            assert!(names_src(way), "{way}");
        }
        assert_eq!(paths("cp {{.src}} {{dest}}"), "cp /s/.x /d/x");
        assert_eq!(paths("\"{{src}}\""), "\"/s/.x\"");
    }

    #[test]
    fn the_rest_is_left_alone() {
        for line in ["nginx -t", "ps --format '{{.ID}}'", "{{", "}}{{", "{{src", "{ {src}}", ""] {
            assert_eq!(paths(line), line);
            assert!(!names_src(line), "{line}");
        }
        assert_eq!(paths("{{{src}}}"), "{/s/.x}");
        assert_eq!(paths("{{.ID}} {{src}}"), "{{.ID}} /s/.x");
    }

    proptest::proptest! {
        #[test]
        fn text_without_places_comes_through(line in "[^{}]{0,40}") {
            proptest::prop_assert_eq!(paths(&line), line);
        }

        #[test]
        fn nothing_panics(line in "[{}. srcdet\u{e9}]{0,40}") {
            let _ = paths(&line);
        }
    }
}
