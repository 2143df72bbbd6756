//! The documentation is true: its table of flags is that of the real parsers, what it
//! names is there, and there is no command in it that no test runs ([`super::docs_commands`]
//! does).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page whose commands and names are tried, by its name below the repository.
pub(super) fn pages() -> Vec<(String, String)> {
    let mut names = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "fleet-units/README.md"]
        .map(str::to_owned)
        .to_vec();
    below("docs", &mut names);
    names.sort();
    let read = |name: String| {
        let text = fs::read_to_string(docs().join(&name)).unwrap();
        (name, text)
    };
    names.into_iter().map(read).collect()
}

fn below(folder: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(docs().join(folder)).unwrap().map(|entry| entry.unwrap()) {
        let name = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            below(&name, names);
        } else if name.ends_with(".md") {
            names.push(name);
        }
    }
}

/// A page is read in a terminal and reviewed line by line.
const WIDTH: usize = 100;

#[test]
fn no_line_of_a_page_is_too_long() {
    let mut all = pages();
    for name in ["CHANGELOG.md", "fleet-units/docker/README.md"] {
        all.push((name.to_owned(), fs::read_to_string(docs().join(name)).unwrap()));
    }
    let long = |(name, text): &(String, String)| {
        let lines = text.lines().enumerate();
        // The address of a link cannot be broken.
        let broken = |line: &str| line.trim().contains(' ') || !line.contains("](http");
        let long = lines.filter(|(_, line)| line.chars().count() > WIDTH && broken(line));
        long.map(|(nth, line)| format!("{name}:{}: {line}", nth + 1)).collect::<Vec<_>>()
    };
    let long: Vec<String> = all.iter().flat_map(long).collect();
    assert!(long.is_empty(), "more than {WIDTH} characters:\n{}", long.join("\n"));
}

/// The version, and whether there is a release, as the changelog has it.
#[test]
fn the_readme_has_the_status_of_today() {
    let changes = fs::read_to_string(docs().join("CHANGELOG.md")).unwrap();
    let is_released = changes.lines().any(|line| line.starts_with("## 0"));
    let readme = fs::read_to_string(docs().join("README.md")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(readme.contains(&format!("\nVersion {version}")), "not the version {version}");
    assert_eq!(readme.contains("not released yet"), !is_released);
}

/// The targets of a page's links, without those that lead out of the repository.
fn links(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        inside ^= line.trim_start().starts_with("```");
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(targets.filter(|_| !inside).map(str::to_owned));
    }
    found.retain(|target| !target.contains("://"));
    found
}

/// The anchors of a page: its headings as forges and renderers spell them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let line = line.trim_start_matches('#').trim().to_lowercase();
        let kept = line.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for (name, text) in pages() {
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = docs().join(&name).parent().unwrap().to_owned();
            let path = if file.is_empty() { docs().join(&name) } else { folder.join(file) };
            assert!(path.exists(), "{name}: {link} leads nowhere");
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&path).unwrap());
                assert!(there.contains(&anchor.to_owned()), "{name}: no heading for {link}");
            }
        }
    }
}

/// The index names every page of its folder.
#[test]
fn the_index_leads_to_every_page() {
    let index = fs::read_to_string(docs().join("docs/README.md")).unwrap();
    let links = links(&index);
    for (name, _) in pages() {
        let Some(name) = name.strip_prefix("docs/") else { continue };
        let there = links.iter().any(|link| link.split('#').next() == Some(name));
        assert!(there || name == "README.md", "docs/README.md does not lead to {name}");
    }
}

/// The oldest Rust is in Cargo.toml alone: a second place would be forgotten.
#[test]
fn no_page_repeats_the_oldest_rust() {
    let version = env!("CARGO_PKG_RUST_VERSION");
    for (name, text) in pages() {
        assert!(!text.contains(&format!("Rust {version}")), "{name}: say it in Cargo.toml alone");
    }
}

/// `docs/flags.md` as the parsers have it.
fn flags() -> String {
    let mut text = "# Flags\n\n\
        A flag beats its variable in the environment, and that beats a file. Spans are written `500ms`,\n\
        `30s`, `2m`. This page is made from the programs: `UPDATE_DOCS=1 cargo test -p tests docs::flags`\n\
        writes it anew.\n"
        .to_owned();
    for program in [register::cli::command(), confsync::cli::args::command()] {
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            write!(text, "\n## {} {}\n", program.get_name(), command.get_name()).unwrap();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            write!(text, "\n{about}.\n\n{}", list(command)).unwrap();
        }
    }
    text
}

/// One item for each flag: its names, its default, what it says.
fn list(command: &Command) -> String {
    let mut text = String::new();
    let hidden = |arg: &&clap::Arg| {
        arg.is_hide_set() || ["help", "version"].contains(&arg.get_id().as_str())
    };
    for arg in command.get_arguments().filter(|arg| !hidden(arg)) {
        let value = arg.get_value_names().unwrap_or_default().first();
        let value = value.filter(|_| arg.get_action().takes_values()).map(|name| name.to_string());
        let name = match (arg.get_long(), value) {
            (Some(long), Some(value)) => format!("--{long} {value}"),
            (Some(long), None) => format!("--{long}"),
            (None, value) if arg.is_last_set() => format!("-- {}…", value.unwrap_or_default()),
            (None, value) => value.unwrap_or_default(),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
        // Settings that files know too have their default in words.
        let (help, worded) =
            match help.rsplit_once(" [default: ").or(help.rsplit_once(" [default span: ")) {
                Some((help, default)) => {
                    (help.to_owned(), Some(default.trim_end_matches(']').to_owned()))
                }
                None => (help, None),
            };
        let given =
            arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let default = given.filter(|_| arg.get_action().takes_values()).or(worded);
        let env = arg.get_env().map(|env| format!("`{}`", env.to_string_lossy()));
        let default = default.map(|default| format!("default `{}`", default.trim_matches('`')));
        let beside: Vec<String> = env.into_iter().chain(default).collect();
        let beside = match beside.is_empty() {
            true => String::new(),
            false => format!(" ({})", beside.join("; ")),
        };
        text.push_str(&item(&format!("`{name}`{beside}: {help}.")));
    }
    text
}

/// An item of a list, wrapped.
fn item(text: &str) -> String {
    let mut lines = String::from("*");
    let mut width = 1;
    for word in text.split(' ') {
        let more = word.chars().count() + 1;
        if width + more > WIDTH - 4 {
            lines.push_str("\n ");
            width = 1;
        }
        lines.push(' ');
        lines.push_str(word);
        width += more;
    }
    lines.push('\n');
    lines
}

#[test]
fn flags_are_those_of_the_programs() {
    let file = docs().join("docs/flags.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, flags()).unwrap();
    }
    let page = fs::read_to_string(&file).unwrap();
    assert_eq!(page, flags(), "docs/flags.md is old: run with UPDATE_DOCS=1");
}

/// Names in capitals with an underscore that are alone in quotes in a program's source.
fn variables(source: &str, found: &mut BTreeSet<String>) {
    // What comes behind is tests.
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let shouted = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let is_name = |word: &&str| {
        let begins = word.starts_with(|c: char| c.is_ascii_uppercase());
        begins && word.contains('_') && word.chars().all(shouted)
    };
    found.extend(source.split('"').filter(is_name).map(str::to_owned));
}

fn variables_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if path.is_dir() {
            variables_below(&path, found);
        } else if name.ends_with(".rs") && !name.contains("tests") {
            variables(&fs::read_to_string(&path).unwrap(), found);
        }
    }
}

#[test]
fn every_variable_that_is_read_is_documented() {
    let mut found = BTreeSet::new();
    for package in ["common", "register", "confsync"] {
        variables_below(&docs().join(package).join("src"), &mut found);
    }
    found.remove("CARGO_PKG_VERSION");
    assert!(found.contains("ETCDCTL_PEERS") && found.contains("NO_COLOR"), "{found:?}");
    let pages = ["docs/environment.md", "docs/flags.md"]
        .map(|name| fs::read_to_string(docs().join(name)).unwrap());
    let there = |name: &String| pages.iter().any(|page| page.contains(&format!("`{name}`")));
    let missing: Vec<&String> = found.iter().filter(|name| !there(name)).collect();
    assert!(missing.is_empty(), "in neither page: {missing:?}");
}

/// Blocks of these kinds hold no command. `console` is run by `docs_commands`; `hbs`, `text` and
/// `error` of handlebars.md by `confsync/tests/docs.rs`.
const KINDS: [&str; 10] =
    ["console", "console machine", "hbs", "text", "error", "json", "toml", "ini", "yaml", "go"];
/// Pages for developers, whose commands build and test: what runs them is what they run.
const FOR_DEVELOPERS: [&str; 1] = ["CONTRIBUTING.md"];

#[test]
fn no_block_hides_a_command_that_nobody_runs() {
    for (name, text) in pages() {
        let mut inside = false;
        let mut before = "";
        for (nth, line) in text.lines().enumerate() {
            let place = format!("{name}:{}: {line}", nth + 1);
            if let Some(kind) = line.trim_start().strip_prefix("```") {
                let developers = kind == "sh" && FOR_DEVELOPERS.contains(&name.as_str());
                let known = KINDS.contains(&kind.trim()) || developers;
                assert!(inside || known, "{place}: a block of what kind?");
                inside = !inside;
            } else if !inside {
                let indented = line.starts_with("    ") && before.is_empty();
                assert!(!indented, "{place}: a block without fences is never run");
                before = line;
            }
        }
        assert!(!inside, "{name}: a block without an end");
    }
}

/// What a page writes between single backticks, each in one line.
pub(super) fn spans(text: &str) -> Vec<String> {
    let mut outside = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            outside.push_str(line);
            outside.push('\n');
        }
    }
    let odd = |(nth, part): (usize, &str)| (nth % 2 == 1).then(|| part.replace('\n', " "));
    outside.split('`').enumerate().filter_map(odd).collect()
}

/// Flags of others, and of confd, which `confsync` understands in a way of its own.
const NOT_OURS: [&str; 16] = [
    "--no-block",
    "--data-root",
    "--publish",
    "--pid",
    "--cap-add",
    "--keep-stage-file",
    "--ttl",
    "--enable-v2",
    "--batch-interval",
    "--debounce",
    "--check-cmd-timeout",
    "--reload-cmd-timeout",
    "--check-config",
    "--validate",
    "--mock-data",
    "--resource",
];

#[test]
fn every_flag_and_subcommand_that_prose_names_is_there() {
    let programs = [register::cli::command(), confsync::cli::args::command()];
    let flags_of = |command: &Command| -> Vec<String> {
        let names = |arg: &clap::Arg| {
            let mut all: Vec<String> = arg.get_long().map(str::to_owned).into_iter().collect();
            all.extend(arg.get_all_aliases().unwrap_or_default().iter().map(|a| (*a).to_owned()));
            all
        };
        let mut all: Vec<String> = command.get_arguments().flat_map(names).collect();
        all.extend(["help".to_owned(), "version".to_owned()]);
        all
    };
    let all: Vec<String> =
        programs.iter().flat_map(|p| p.get_subcommands().flat_map(flags_of)).collect();
    for (name, text) in pages().iter().filter(|(name, _)| name != "docs/flags.md") {
        for span in spans(text) {
            let mut words = span.split_whitespace();
            let first = words.clone().next().unwrap_or_default();
            let program = programs.iter().find(|p| p.get_name() == first);
            let known = match program {
                None => None,
                Some(program) => {
                    words.next();
                    let sub = words.clone().next().unwrap_or_default();
                    let is_word = sub.chars().all(|c| c.is_ascii_lowercase()) && !sub.is_empty();
                    let found = program.find_subcommand(sub);
                    assert!(!is_word || found.is_some(), "{name}: `{span}`: no such subcommand");
                    found.map(&flags_of)
                }
            };
            // Behind `--` is another's command line.
            for word in words.take_while(|word| *word != "--") {
                let Some(flag) = word.strip_prefix("--") else { continue };
                let flag = flag.split(['=', ',', ':', '…']).next().unwrap_or_default();
                let there = known.as_ref().unwrap_or(&all).iter().any(|known| known == flag);
                let other =
                    program.is_none() && (NOT_OURS.contains(&word) || !span.starts_with("--"));
                assert!(there || other || flag.is_empty(), "{name}: `{span}`: no flag --{flag}");
            }
        }
    }
}
