//! The documentation is true: its table of flags is that of the real parsers, and its
//! commands run as shown.
//!
//! In a block marked `console`, a line after `$ ` is a command, `> ` continues it, and
//! what follows is its output: each line in that order, with others between allowed;
//! `…` stands for anything. All blocks of a file are one session of a shell in a folder of
//! its own, with an etcd of its own; 127.0.0.1 is an address that only the test has.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Command, CommandFactory};
use tests::process::{Spec, run};
use tests::{Etcd, Lab, bins};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `docs/flags.md` as the parsers have it.
fn flags() -> String {
    let mut text = "# Flags\n\nA flag beats its variable in the environment, and that beats a file. Spans are written \
         `500ms`, `30s`, `2m`.\nThis page is made from the programs: `UPDATE_DOCS=1 cargo test -p tests \
         docs::flags` writes it anew.\n"
        .to_owned();
    for program in [register::args::Cli::command(), confsync::args::Cli::command()] {
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            write!(text, "\n## {} {}\n", program.get_name(), command.get_name()).unwrap();
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            write!(text, "\n{about}.\n\n{}", table(command)).unwrap();
        }
    }
    text
}

fn table(command: &Command) -> String {
    let mut text =
        "| flag | environment | default | what it says |\n|---|---|---|---|\n".to_owned();
    for arg in
        command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
    {
        let value = arg.get_value_names().unwrap_or_default().first();
        let value = value.filter(|_| arg.get_action().takes_values()).map(|name| name.to_string());
        let name = match (arg.get_long(), value) {
            (Some(long), Some(value)) => format!("--{long} {value}"),
            (Some(long), None) => format!("--{long}"),
            (None, value) if arg.is_last_set() => format!("-- {}…", value.unwrap_or_default()),
            (None, value) => value.unwrap_or_default(),
        };
        let env = arg.get_env().map(|env| format!("`{}`", env.to_string_lossy()));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace('\n', " ").replace('|', "\\|");
        // Settings that files know too have their default in words.
        let (help, said) =
            match help.rsplit_once(" [default: ").or(help.rsplit_once(" [default span: ")) {
                Some((help, default)) => {
                    (help.to_owned(), Some(default.trim_end_matches(']').to_owned()))
                }
                None => (help, None),
            };
        let given =
            arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let default = given.filter(|_| arg.get_action().takes_values()).or(said);
        let default = default.map(|default| format!("`{}`", default.trim_matches('`')));
        let (env, default) = (env.unwrap_or_default(), default.unwrap_or_default());
        writeln!(text, "| `{name}` | {env} | {default} | {help} |").unwrap();
    }
    text
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

/// A command of a page and the output that it shows.
struct Shown {
    command: String,
    output: Vec<String>,
}

fn commands(page: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut inside = false;
    let mut indent = 0;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            indent = line.len() - line.trim_start().len();
        }
        let line = line.get(indent..).unwrap_or_default();
        match (line.starts_with("```"), inside) {
            (true, _) => inside = line.trim_end() == "```console",
            (false, false) => {}
            (false, true) => {
                match (line.strip_prefix("$ "), line.strip_prefix('>'), all.last_mut()) {
                    (Some(command), ..) => {
                        all.push(Shown { command: command.to_owned(), output: Vec::new() });
                    }
                    (None, Some(more), Some(last)) => {
                        last.command += "\n";
                        last.command += more.strip_prefix(' ').unwrap_or(more);
                    }
                    (None, None, Some(last)) => last.output.push(line.to_owned()),
                    (None, _, None) => panic!("output without a command: {line}"),
                }
            }
        }
    }
    all
}

fn matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    if !shown.contains('…') {
        return rest.is_empty();
    }
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || shown.ends_with('…')
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(matches("a … c", "a bb c") && matches("…", "x") && matches("a", "a"));
    assert!(!matches("a", "ab") && !matches("a … d", "a b c") && !matches("b…", "ab"));
}

async fn session(page: &Path) {
    let text = fs::read_to_string(page).unwrap();
    let all = commands(&text);
    if all.is_empty() {
        return;
    }
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let home = lab.folder("session");
    let mut script = "exec 2>&1\n".to_owned();
    for (nth, shown) in all.iter().enumerate() {
        let command = shown.command.replace("127.0.0.1", &lab.ip().to_string());
        writeln!(
            script,
            "echo '@@{nth}'\n{command}\nended=$?; [ $ended = 0 ] || echo \"@@failed $ended\""
        )
        .unwrap();
    }
    script += "kill $(jobs -p) 2>/dev/null\nwait\n";
    let folder = |bin: PathBuf| bin.parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{path}", folder(bins::register()), folder(bins::confsync()));
    let spec = Spec::new("the page's commands", "bash", &home)
        .args(["-c", &script])
        .env("PATH", path)
        .env("HOME", &home)
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", etcd.url())
        .env("ETCD_ENDPOINTS", etcd.url());
    let ended = run(spec, Duration::from_secs(120)).await;
    let said = ended.stdout();
    for (nth, shown) in all.iter().enumerate() {
        let from = said.split_once(&format!("@@{nth}\n")).map(|(_, rest)| rest);
        let from = from.unwrap_or_else(|| {
            panic!("{}: not reached: {}\n{said}", page.display(), shown.command)
        });
        let own = from.split_once(&format!("@@{}\n", nth + 1)).map_or(from, |(own, _)| own);
        let mut lines = own.lines();
        let place = || format!("{}: $ {}\n{own}", page.display(), shown.command);
        assert!(!own.contains("@@failed"), "{}", place());
        for wanted in &shown.output {
            assert!(
                lines.any(|line| matches(wanted, line)),
                "no `{wanted}` in order in {}",
                place()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_the_pages_run_as_shown() {
    let mut pages = vec![docs().join("README.md"), docs().join("fleet-units/README.md")];
    pages.extend(fs::read_dir(docs().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for page in
        pages.iter().filter(|page| page.extension().is_some_and(|e| e == "md") && page.exists())
    {
        session(page).await;
    }
}
