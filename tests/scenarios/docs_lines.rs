//! docs/operations.md has every line that an operator can meet: what the daemons report to the
//! service manager, and what they log as a warning or an error. Read from the sources.

use std::fs;
use std::path::{Path, PathBuf};

use super::docs::{pages, spans};

/// Where the status for the service manager is made, and of which functions.
const WORDS: [(&str, &str, &str); 2] = [
    (
        "confsync/src/status/state.rs",
        "pub fn summary(&self)",
        "/// Whether the first configuration",
    ),
    (
        "register/src/sidekick/status_line.rs",
        "pub(super) fn of",
        "/// The log line of a change in etcd",
    ),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            found.push(entry);
        }
    }
}

/// The string literals in a piece of source, up to the end of the parenthesis that it
/// begins inside of.
fn literals(source: &str) -> Vec<String> {
    let (mut all, mut depth) = (Vec::new(), 1);
    let mut chars = source.chars();
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => break,
            ')' => depth -= 1,
            '"' => {
                let mut literal = String::new();
                while let Some(c) = chars.next() {
                    match c {
                        '"' => break,
                        '\\' => literal.extend(chars.next().filter(|c| !['\n', 'n'].contains(c))),
                        c => literal.push(c),
                    }
                }
                all.push(literal.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            _ => {}
        }
    }
    all
}

/// The longest part of a literal that is always the same, up to the end of its clause.
fn fixed(literal: &str) -> &str {
    let parts = literal.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    let longest = parts.max_by_key(|part| part.len()).unwrap_or_default();
    let around = [' ', ':', ';', ',', '`', '(', ')'];
    let longest = longest.trim_matches(around);
    longest.split([':', ';', '(', '.']).next().unwrap_or_default().trim_matches(around)
}

#[test]
fn a_line_is_known_by_what_is_always_the_same() {
    assert_eq!(literals(r#"a, "x \" y", f("z")) + "not""#), [r#"x " y"#, "z"]);
    assert_eq!(fixed("{key}: waiting, `{}` is registered there"), "is registered there");
    assert_eq!(fixed("; {} for {}"), "for");
    assert_eq!(fixed("drain unconfirmed: received a second signal"), "drain unconfirmed");
}

/// Names of sources and of tests that pages name.
#[test]
fn every_source_and_test_that_a_page_names_is_there() {
    let mut files = Vec::new();
    for part in ["register", "confsync", "common", "tests"] {
        sources(&workspace().join(part), &mut files);
    }
    let all: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    // metrics.md names metrics; what is served is compared with it elsewhere.
    for (page, text) in pages().iter().filter(|(page, _)| page != "docs/metrics.md") {
        for span in spans(text) {
            let last = span.rsplit("::").next().unwrap_or_default();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if span.contains([' ', '*', '…']) {
                continue;
            }
            if span.ends_with(".rs") {
                let there = files.iter().any(|file| file.ends_with(&span));
                let inside = || files.iter().any(|file| file.ends_with(inner(&span)));
                assert!(there || inside(), "{page}: there is no {span}");
            } else if last.chars().all(plain) && last.matches('_').count() >= 3 {
                assert!(
                    all.contains(&format!("fn {last}("))
                        || all.contains(&format!("{last},"))
                        || all.contains(&format!("{last})")),
                    "{page}: there is no test {span}"
                );
            }
        }
    }
}

/// `register/health.rs` is in `register/src/`.
fn inner(span: &str) -> &str {
    span.split_once('/').map_or(span, |(_, rest)| rest)
}

/// The lines that a list of the page explains: the spans that its items begin with.
fn explained(page: &str) -> Vec<String> {
    let (_, rest) = page.split_once("\n## Status lines\n").unwrap();
    let (status, rest) = rest.split_once("\n## In the log\n").unwrap();
    let log = rest.split_once("\n## ").map_or(rest, |(log, _)| log);
    let mut lines = Vec::new();
    for item in [status, log].iter().flat_map(|section| section.split("\n* ").skip(1)) {
        let mut item = item.split_whitespace().collect::<Vec<_>>().join(" ");
        while item.starts_with('`') {
            let fence: String = item.chars().take_while(|c| *c == '`').collect();
            let (line, rest) = item[fence.len()..].split_once(&fence).unwrap();
            lines.push(line.to_owned());
            item = rest.strip_prefix(", ").unwrap_or(rest).to_owned();
        }
    }
    lines.retain(|line| line.contains(' '));
    lines
}

/// Whether a source has the longest part of a line that is always the same: all but a word of it,
/// or three words in a row. Names and counted nouns are put in by the sources.
fn is_written(line: &str, sources: &str) -> bool {
    let varies = |c: char| c.is_ascii_digit() || "…`\"():;".contains(c);
    let longest = line.split(varies).max_by_key(|part| part.len()).unwrap_or_default();
    let words: Vec<&str> = longest.trim_matches([' ', ',', '.']).split(' ').collect();
    let run = (words.len() - 1).clamp(1, 3).min(words.len());
    words.windows(run).any(|run| sources.contains(&run.join(" ")))
}

#[test]
fn every_line_that_is_explained_can_be_met() {
    let mut files = Vec::new();
    for part in ["register/src", "confsync/src", "common/src"] {
        sources(&workspace().join(part), &mut files);
    }
    // A literal may go on behind a backslash at the end of a line.
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let text = text.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(is_written("…: 2 backends in rotation", "{} in rotation"));
    assert!(!is_written("…: the set is empty …", "no backend is registered"));
    let page = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let lines = explained(&page);
    assert!(lines.len() > 80, "the page was read: {lines:#?}");
    let gone: Vec<_> = lines.iter().filter(|line| !is_written(line, &text)).collect();
    assert!(gone.is_empty(), "docs/operations.md explains what is never reported: {gone:#?}");
}

#[test]
fn every_line_that_an_operator_can_meet_is_explained() {
    let page = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut files = Vec::new();
    for part in ["register/src", "confsync/src", "common/src"] {
        sources(&workspace().join(part), &mut files);
    }
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for opens in [".status(", ".unconfirmed(", "report_trouble(", "format!(\"drain", ".remind("]
        {
            let message = text.split(opens).skip(1);
            let opened = if opens.ends_with('(') { "" } else { "\"drain" };
            lines.extend(message.filter_map(|rest| literals(&format!("{opened}{rest}")).pop()));
        }
        for opens in ["tracing::warn!(", "tracing::error!("] {
            lines.extend(text.split(opens).skip(1).filter_map(|rest| literals(rest).pop()));
        }
    }
    for (file, from, to) in WORDS {
        let text = fs::read_to_string(workspace().join(file)).unwrap();
        let (_, rest) = text.split_once(from).unwrap();
        let (body, _) = rest.split_once(to).unwrap();
        lines.extend(literals(&format!("({body}")));
    }
    assert!(lines.len() > 60, "the sources were read");
    let missing: Vec<_> = lines.iter().filter(|line| !page.contains(fixed(line))).collect();
    assert!(missing.is_empty(), "docs/operations.md does not explain {missing:#?}");
}
