//! The frame of a program: from arguments to matches, and the commands that every program
//! has. Flags may be written before the subcommand as well as after it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};
pub use clap_complete::Shell;

use crate::runtime::{Exit, Usage, exit_on, print, print_error, printed};

/// With `version` and `completion`, whose names every tool of this kind has.
pub fn with_common_commands(program: Command) -> Command {
    let shell = Arg::new("shell")
        .value_name("SHELL")
        .required(true)
        .value_parser(clap::value_parser!(Shell))
        .help("Shell that the script is for");
    let example = format!("Example:\n  . <({} completion bash)", program.get_name());
    program
        .version(crate::VERSION)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("version").about("Print the version"))
        .subcommand(
            Command::new("completion")
                .about("Print a shell completion script")
                .after_help(example)
                .arg(shell),
        )
}

/// What was asked for; or how the program ends: with help, or by a mistake.
///
/// # Errors
/// The exit code, when everything has been printed.
pub fn parse(program: &Command, words: Vec<OsString>) -> Result<ArgMatches, ExitCode> {
    let words = subcommand_first(program, words);
    match program.clone().try_get_matches_from(&words) {
        Ok(matches) => Ok(matches),
        Err(mut error) => {
            // What is behind `--` is a command, not a value.
            error.remove(ContextKind::Suggested);
            // Help and version come this way too; they are no errors.
            if !error.use_stderr() {
                printed(error.print());
                return Err(exit_on(Ok(Exit::Done)));
            }
            match error.kind() {
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => printed(error.print()),
                _ => {
                    let text = mistake(program, &words, &error);
                    print_error(with_written_names(program, &words, &text));
                }
            }
            Err(Exit::Usage.into())
        }
    }
}

/// A mistake on one line, which is what a journal shows and a log collector keeps: what clap
/// has in paragraphs, and the command whose help goes on from there.
fn mistake(program: &Command, words: &[OsString], error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let lines = rendered.lines().map(str::trim);
    let lines =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let mut text = String::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let between = match text.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) => "; ",
        };
        let line = line.trim_start_matches("tip: ").trim_matches(['[', ']']);
        text = format!("{text}{between}{line}");
    }
    let empty = ContextValue::String(String::new());
    if error.get(ContextKind::InvalidValue) == Some(&empty) {
        text.push_str("; is a variable in the unit file unset?");
    }
    // etcdctl has it.
    let password = ContextValue::String("--password".to_owned());
    if error.get(ContextKind::InvalidArg) == Some(&password) {
        text.push_str(
            "; everybody can read arguments: set $ETCD_PASSWORD, or --etcd-password-file",
        );
    }
    let mut words = words.iter().map(|word| word.to_string_lossy());
    let command = words.find_map(|word| program.find_subcommand(&*word));
    if let Some(variable) = command.and_then(|command| variable_at_fault(command, words, error)) {
        text.push_str(&format!("; it comes from ${variable}"));
    }
    let command = command.map(|command| format!(" {}", command.get_name())).unwrap_or_default();
    format!("{text}; see {}{command} --help", program.get_name())
}

/// The variable that a value comes from which a flag does not take, if no flag was given: clap
/// names the flag alone.
fn variable_at_fault<'w>(
    command: &Command,
    mut words: impl Iterator<Item = Cow<'w, str>>,
    error: &clap::Error,
) -> Option<String> {
    let ContextValue::String(flag) = error.get(ContextKind::InvalidArg)? else { return None };
    let name = flag.strip_prefix("--")?.split([' ', '=', '[']).next()?;
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name))?;
    let variable = arg.get_env().filter(|variable| std::env::var_os(variable).is_some())?;
    let others = arg.get_all_aliases().unwrap_or_default();
    let is_flag = |word: Cow<'w, str>| {
        let word = word.split('=').next().unwrap_or_default().trim_start_matches('-').to_owned();
        word == name || others.contains(&&*word)
    };
    (!words.any(is_flag)).then(|| variable.to_string_lossy().into_owned())
}

/// Mistakes by the names of the flags as given in `words`: an operator who wrote `--cacert` looks
/// for that, not for `--etcd-ca`.
pub fn as_written<T>(
    program: &Command,
    words: &[OsString],
    outcome: anyhow::Result<T>,
) -> anyhow::Result<T> {
    outcome.map_err(|error| match error.downcast::<Usage>() {
        Ok(Usage(text)) => Usage(with_written_names(program, words, &text)).into(),
        Err(error) => error,
    })
}

/// The text with a flag's other name where that, and not its own, is among the words.
fn with_written_names(program: &Command, words: &[OsString], text: &str) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let flags: Vec<&str> = words
        .iter()
        .take_while(|word| **word != "--")
        .filter(|word| word.starts_with('-'))
        .map(|word| word.split_once('=').map_or(&**word, |(flag, _)| flag))
        .collect();
    let command = words.iter().find_map(|word| program.find_subcommand(&**word));
    // A command line of confd has none.
    let commands = program
        .get_subcommands()
        .filter(|one| command.is_none_or(|command| command.get_name() == one.get_name()));
    let mut text = text.to_owned();
    for arg in commands.flat_map(Command::get_arguments) {
        let Some(own) = arg.get_long() else { continue };
        let others = arg.get_all_aliases().unwrap_or_default();
        let names = |flag: &str, name: &str| flag.trim_start_matches('-') == name;
        let written = |flag: &&&str| others.iter().any(|other| names(flag, other));
        if let Some(written) = flags.iter().find(written)
            && !flags.iter().any(|flag| names(flag, own))
        {
            text = with_flag(&text, &format!("--{own}"), written);
        }
    }
    text
}

/// The text with another flag for this one; a longer flag that begins alike stays.
fn with_flag(text: &str, flag: &str, other: &str) -> String {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let (mut new, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(flag) {
        let is_it = !before.ends_with(goes_on) && !after.starts_with(goes_on);
        new.push_str(before);
        new.push_str(if is_it { other } else { flag });
        rest = after;
    }
    new + rest
}

/// What a program adds to the completion of a shell.
pub type Completed = fn(Shell, String) -> String;

/// The script that completes commands and flags.
pub fn completion(mut program: Command, shell: Shell, completed: Completed) -> String {
    let (name, mut script) = (program.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut program, name, &mut script);
    completed(shell, String::from_utf8_lossy(&script).into_owned())
}

/// Carries out a command that every program has. `None`: it is none of them.
pub fn common_command(
    program: Command,
    matches: &ArgMatches,
    completed: Completed,
) -> Option<Exit> {
    match matches.subcommand()? {
        ("version", _) => print(format_args!("{} {}\n", program.get_name(), crate::VERSION)),
        ("completion", matches) => {
            let shell = *matches.get_one::<Shell>("shell")?;
            print(completion(program, shell, completed));
        }
        _ => return None,
    }
    Some(Exit::Done)
}

/// Moves flags that are written before the subcommand behind it: people who know other
/// tools write them there.
pub fn subcommand_first(program: &Command, words: Vec<OsString>) -> Vec<OsString> {
    let mut words = words.into_iter().peekable();
    let mut first: Vec<OsString> = words.next().into_iter().collect();
    let mut flags = Vec::new();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        if program.find_subcommand(&text).is_some() {
            first.push(word);
            break;
        }
        let own = ["-h", "--help", "-V", "--version"].contains(&&*text);
        if own || !text.starts_with('-') || text == "--" {
            // Not valid here; clap reports what is wrong with it.
            flags.push(word);
            break;
        }
        flags.push(word);
        if takes_a_value(program, &text) {
            flags.extend(words.next());
        }
    }
    first.extend(flags);
    first.extend(words);
    first
}

/// Whether the argument after this flag is its value, as far as any subcommand knows it.
fn takes_a_value(program: &Command, flag: &str) -> bool {
    let name = flag.trim_start_matches('-');
    let is_it = |arg: &&Arg| match name.chars().count() {
        1 => arg.get_short().is_some_and(|short| name.starts_with(short)),
        // With one dash, as confd's are written.
        _ => {
            arg.get_long() == Some(name)
                || arg.get_all_aliases().unwrap_or_default().contains(&name)
        }
    };
    let mut all = program.get_subcommands().flat_map(Command::get_arguments);
    all.find(is_it).is_some_and(|arg| {
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        arg.get_action().takes_values() && !optional
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Group, Setting, with_settings};
    use super::*;

    static PORT: Setting = Setting::new("the_port", "", "PORT", "").formerly(&["old_port"]);
    static QUICK: Setting = Setting::new("quick", "", "", "");
    static GROUP: Group = Group { heading: "", settings: &[&PORT, &QUICK] };

    fn program() -> Command {
        let run = with_settings(Command::new("run"), &[&GROUP]);
        with_common_commands(Command::new("x").subcommand(run.arg(Arg::new("rest").last(true))))
    }

    fn sorted(line: &str) -> String {
        let words = subcommand_first(&program(), line.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_may_come_before_the_subcommand() {
        assert_eq!(
            sorted("x --the-port 1 --quick run --quick"),
            "x run --the-port 1 --quick --quick"
        );
        assert_eq!(sorted("x --old-port run run"), "x run --old-port run");
        assert_eq!(sorted("x --the-port=1 run -- run"), "x run --the-port=1 -- run");
        for line in ["x", "x --help", "x -V", "x run --quick", "x nosuch run", "x --odd 1 run"] {
            assert_eq!(sorted(line), line);
        }
    }

    #[test]
    fn a_mistake_is_one_line() {
        let message = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let mut error = program().try_get_matches_from(&words).unwrap_err();
            error.remove(ContextKind::Suggested);
            mistake(&program(), &words, &error)
        };
        for (line, text) in [
            (
                "x rum",
                "unrecognized subcommand 'rum'; a similar subcommand exists: 'run'; see x --help",
            ),
            (
                "x run --the-prot 1",
                "unexpected argument '--the-prot' found; a similar argument exists: '--the-port'; \
                 see x run --help",
            ),
            (
                "x run --password s3cret",
                "unexpected argument '--password' found; everybody can read arguments: set \
                 $ETCD_PASSWORD, or --etcd-password-file; see x run --help",
            ),
            (
                "x run --the-port",
                "a value is required for '--the-port <PORT>' but none was supplied; is a variable \
                 in the unit file unset?; see x run --help",
            ),
            (
                "x completion",
                "the following required arguments were not provided: <SHELL>; see x completion --help",
            ),
            (
                "x completion ksh",
                "invalid value 'ksh' for '<SHELL>'; possible values: bash, elvish, fish, powershell, \
                 zsh; a similar value exists: 'zsh'; see x completion --help",
            ),
        ] {
            assert_eq!(message(line), format!("error: {text}"));
        }
    }

    #[test]
    fn a_mistake_is_reported_by_the_name_that_was_written() {
        let of = |line: &str, text: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            with_written_names(&program(), &words, text)
        };
        let text = "--the-port is `x`; --the-port-2 and a--the-port are others (--the-port)";
        let other = "--old-port is `x`; --the-port-2 and a--the-port are others (--old-port)";
        assert_eq!(of("x run --old-port x", text), other);
        assert_eq!(of("x --old-port=x run", text), other);
        assert_eq!(of("x -old-port x", "--the-port"), "-old-port", "as confd has them");
        for line in ["x run --the-port x", "x run", "x run -- --old-port x"] {
            assert_eq!(of(line, text), text, "{line}");
        }
        let words = ["x", "run", "--old-port", "x"].map(OsString::from);
        let outcome = |error: anyhow::Error| as_written(&program(), &words, Err::<(), _>(error));
        let usage = outcome(Usage("--the-port is bad".to_owned()).into()).unwrap_err();
        assert_eq!(usage.downcast::<Usage>().unwrap(), Usage("--old-port is bad".to_owned()));
        let other = outcome(anyhow::anyhow!("--the-port is open")).unwrap_err();
        assert_eq!(other.to_string(), "--the-port is open");
    }

    #[test]
    fn a_variable_at_fault_is_named_unless_the_flag_was_written() {
        static SET: Setting = Setting::new("one_of", "PATH", "X", "").choices(&["yes", "no"]);
        static ALL: Group = Group { heading: "", settings: &[&SET] };
        let run = with_settings(Command::new("run"), &[&ALL]);
        let program = with_common_commands(Command::new("x").subcommand(run));
        for (line, is_named) in [("x run", true), ("x run --one-of z", false)] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let error = program.clone().try_get_matches_from(&words).unwrap_err();
            let text = mistake(&program, &words, &error);
            assert_eq!(
                text.contains("; it comes from $PATH; see x run --help"),
                is_named,
                "{text}"
            );
        }
    }

    #[test]
    fn every_program_prints_its_version_and_completes() {
        program().debug_assert();
        let matches = program().try_get_matches_from(["x", "version"]).unwrap();
        assert_eq!(common_command(program(), &matches, |_, script| script), Some(Exit::Done));
        let matches = program().try_get_matches_from(["x", "run"]).unwrap();
        assert_eq!(common_command(program(), &matches, |_, script| script), None);
    }
}
