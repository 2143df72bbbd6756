//! The program `register`: parse, configure, do, exit.

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, CommandFactory};
use common::runtime::{Exit, exit_on, printed};
use register::args::Cli;
use register::commands;

fn main() -> ExitCode {
    match Cli::command().try_get_matches() {
        Ok(matches) => exit_on(dispatch(&matches)),
        Err(mut error) => {
            // What stands behind `--` is a command, not a value.
            error.remove(ContextKind::Suggested);
            // Help and version come this way too; they are no errors.
            printed(error.print());
            let empty = ContextValue::String(String::new());
            if error.get(ContextKind::InvalidValue) == Some(&empty) {
                let hint = "a variable in the unit file that is unset leaves nothing behind";
                let _ = writeln!(std::io::stderr(), "\n  hint: {hint}");
            }
            if error.use_stderr() { Exit::Usage.into() } else { exit_on(Ok(Exit::Done)) }
        }
    }
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<Exit> {
    // One thread: a sidekick shall cost next to nothing, and nothing here computes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        match matches.subcommand() {
            Some(("run", matches)) => commands::run(matches).await,
            Some(("check", matches)) => commands::check(matches).await,
            Some(("remove", matches)) => register::remove::remove(matches).await,
            Some(("list", matches)) => commands::list(matches).await,
            _ => Err(common::runtime::Usage("give a command; see --help".into()).into()),
        }
    });
    // A resolver that hangs must not hold us back.
    runtime.shutdown_background();
    exit
}
