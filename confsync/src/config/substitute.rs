//! The paths in a command line.
//!
//! `check_cmd` is a Go template with `.src` and `.dest`, as in confd. In every other command
//! only `{{src}}` and `{{dest}}`, with and without the dot, mean something, because confd runs
//! those as they are written.
//!
//! The invariant: a path is one word to the shell, whatever characters it has and however the
//! operator has quoted its placeholder.

use std::path::Path;

use crate::template::{TemplateError, command_line};

/// Replaces a path that the shell would split, until it is quoted.
const STAND_INS: [&str; 2] = ["/CONFSYNC-STAND-IN/SRC", "/CONFSYNC-STAND-IN/DEST"];

/// Renders `check_cmd`.
///
/// # Errors
/// When it is no template, or fails; it then fails with any path.
pub fn check_line(line: &str, src: &Path, dest: &Path) -> Result<String, TemplateError> {
    let [src, dest] = [src, dest].map(|path| path.to_string_lossy());
    let paths = [&*src, &*dest];
    let [for_src, for_dest] = stand_ins(paths);
    let fields = [("src", for_src), ("dest", for_dest)];
    // confd has no `.dest`: a command that does not name it must not find it in `{{range .}}`.
    let known = if line.contains("dest") { 2 } else { 1 };
    let text = command_line(&dotted(line), fields.split_at(known).0)?;
    Ok(quoted_in(&text, paths))
}

/// Puts the paths into any other command, for `{{src}}`, `{{.src}}`, `{{ .src }}` and the same
/// with `dest`. Anything else in braces is left alone.
pub fn substitute(line: &str, src: &Path, dest: &Path) -> String {
    let [src, dest] = [src, dest].map(|path| path.to_string_lossy());
    let paths = [&*src, &*dest];
    let [for_src, for_dest] = stand_ins(paths);
    let text = replaced(line, |name| if name == "src" { for_src } else { for_dest });
    quoted_in(&text, paths)
}

/// Whether the line has a place for the candidate; one without checks another file.
pub fn names_src(line: &str) -> bool {
    let probe = |src: &str| check_line(line, Path::new(src), Path::new("/b")).ok();
    probe("/a") != probe("/aa")
}

/// The path itself where it is a single shell word, else its stand-in.
fn stand_ins(paths: [&str; 2]) -> [&str; 2] {
    let [src, dest] = paths;
    let [for_src, for_dest] = STAND_INS;
    [if is_plain(src) { src } else { for_src }, if is_plain(dest) { dest } else { for_dest }]
}

/// Whether no character of it is special to a shell.
fn is_plain(path: &str) -> bool {
    !path.is_empty() && path.chars().all(|c| c.is_ascii_alphanumeric() || "_./@%+=:,-".contains(c))
}

/// `{{src}}` as the template that is meant: `{{.src}}`.
fn dotted(line: &str) -> String {
    replaced(line, |name| if name == "src" { "{{.src}}" } else { "{{.dest}}" })
}

/// The line with another text in each placeholder of a path.
fn replaced<'n>(line: &str, instead: impl Fn(&str) -> &'n str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, inside)) = rest.split_once("{{") {
        out.push_str(before);
        let place = inside.split_once("}}").and_then(|(inside, after)| {
            let name = inside.trim();
            let name = name.strip_prefix('.').unwrap_or(name);
            ["src", "dest"].contains(&name).then_some((name, after))
        });
        match place {
            Some((name, after)) => {
                out.push_str(instead(name));
                rest = after;
            }
            None => {
                // Only the first brace: in `{{{src}}` the placeholder begins one further.
                out.push('{');
                rest = rest.get(before.len() + 1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

/// Inserts each path, quoted as the quotes around its placeholder require.
fn quoted_in(text: &str, paths: [&str; 2]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quote = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let place = STAND_INS
            .iter()
            .zip(paths)
            .find_map(|(stand_in, path)| Some((path, rest.strip_prefix(stand_in)?)));
        if let Some((path, after)) = place {
            push_quoted(&mut out, path, quote);
            rest = after;
            continue;
        }
        let escaped = c == '\\' && quote != Some('\'');
        let length =
            c.len_utf8() + rest.chars().nth(1).filter(|_| escaped).map_or(0, char::len_utf8);
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        let (token, after) = rest.split_at(length);
        out.push_str(token);
        rest = after;
    }
    out
}

fn push_quoted(out: &mut String, path: &str, quote: Option<char>) {
    match quote {
        Some('"') => {
            for c in path.chars() {
                if matches!(c, '"' | '\\' | '$' | '`') {
                    out.push('\\');
                }
                out.push(c);
            }
        }
        Some(_) => out.push_str(&path.replace('\'', r"'\''")),
        None => {
            out.push('\'');
            out.push_str(&path.replace('\'', r"'\''"));
            out.push('\'');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(line: &str) -> String {
        substitute(line, Path::new("/s/.x"), Path::new("/d/x"))
    }

    fn check(line: &str) -> String {
        check_line(line, Path::new("/s/.x"), Path::new("/d/x")).unwrap()
    }

    #[test]
    fn every_way_of_writing_it() {
        for way in ["{{src}}", "{{.src}}", "{{ .src }}", "{{ src }}", "{{\t.src}}"] {
            assert_eq!(paths(&format!("t -c {way} -q")), "t -c /s/.x -q", "{way}");
            assert_eq!(check(&format!("t -c {way} -q")), "t -c /s/.x -q", "{way}");
            assert!(names_src(way), "{way}");
        }
        assert_eq!(paths("cp {{.src}} {{dest}}"), "cp /s/.x /d/x");
        assert_eq!(paths("\"{{src}}\""), "\"/s/.x\"");
    }

    #[test]
    fn a_check_is_a_go_template_in_all_its_forms() {
        for (line, want) in [
            ("a {{- \" \" -}} {{printf \"%s\" .src}}", "a /s/.x"),
            ("{{with .src}}{{.}}{{end}}", "/s/.x"),
            ("{{if .src}}b {{index . \"src\"}}{{else}}c{{end}}", "b /s/.x"),
            ("{{.src | printf \"%q\"}}{{/* no */}}", "\"/s/.x\""),
            ("echo {{.ID}} {{len .src}}", "echo <no value> 5"),
            ("{{range .}}{{.}} {{end}}", "/s/.x "),
            ("{{range $name, $path := .}}{{$name}}={{$path}}{{end}}", "src=/s/.x"),
            ("nginx -t", "nginx -t"),
        ] {
            assert_eq!(check(line), want, "{line}");
        }
        for line in ["a {{.src", "{{nope .src}}", "{{end}}"] {
            assert!(check_line(line, Path::new("/s"), Path::new("/d")).is_err(), "{line}");
        }
        assert!(!names_src("nginx -t") && !names_src("nginx -t -c {{.dest}}"));
    }

    #[test]
    fn in_other_commands_the_rest_is_left_alone() {
        for line in ["nginx -t", "ps --format '{{.ID}}'", "{{", "}}{{", "{{src", "{ {src}}", ""] {
            assert_eq!(paths(line), line);
        }
        assert_eq!(paths("{{{src}}}"), "{/s/.x}");
        assert_eq!(paths("{{.ID}} {{src}}"), "{{.ID}} /s/.x");
    }

    #[test]
    fn a_path_cannot_break_out() {
        let path = Path::new("/a b/$(x)'\"`\\;.conf");
        let run = |line: &str| check_line(line, path, path).unwrap();
        assert_eq!(run("cat {{.src}}"), r#"cat '/a b/$(x)'\''"`\;.conf'"#);
        assert_eq!(run("cat \"{{.src}}\""), r#"cat "/a b/\$(x)'\"\`\\;.conf""#);
        assert_eq!(run("cat '{{.dest}}'"), r#"cat '/a b/$(x)'\''"`\;.conf'"#);
        assert_eq!(run(r#"a \" {{src}}"#), r#"a \" '/a b/$(x)'\''"`\;.conf'"#);
        assert_eq!(substitute("x {{dest}}", path, path), r#"x '/a b/$(x)'\''"`\;.conf'"#);
    }

    proptest::proptest! {
        /// What the shell makes of the line is the path, in any quotes and none.
        #[test]
        fn any_path_is_one_word_to_the_shell(path in "/[a-z '\"$`\\\\;&|(){}<>*?#!~\n]{1,12}") {
            for line in ["printf %s {{.src}}", "printf %s \"{{.src}}\"", "printf %s '{{.src}}'"] {
                let line = check_line(line, Path::new(&path), Path::new("/d")).unwrap();
                let words = shlex::split(&line).unwrap();
                proptest::prop_assert_eq!(&words[2..], std::slice::from_ref(&path), "{}", line);
            }
        }

        #[test]
        fn text_without_places_comes_through(line in "[^{}]{0,40}") {
            proptest::prop_assert_eq!(paths(&line), line);
        }

        #[test]
        fn nothing_panics(line in "[{}. srcdet\u{e9}]{0,40}") {
            let _ = (paths(&line), check_line(&line, Path::new("/s"), Path::new("/d")));
        }
    }
}
