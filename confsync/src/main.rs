//! The program `confsync`: parse, do, exit.

use std::process::ExitCode;

use clap::Parser;
use common::runtime::{Exit, Usage, exit_on, printed};
use confsync::cli::args::{Cli, Command};
use confsync::cli::commands;
use confsync::cli::confd_flags::confd_words;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let words = match confd_words(std::env::args_os().collect()) {
        Ok(words) => words,
        Err(mistake) => return exit_on(Err(Usage(mistake).into())),
    };
    match Cli::try_parse_from(words) {
        Ok(cli) => exit_on(run(cli)),
        Err(error) => {
            // Help and version come this way too; they are no errors.
            printed(error.print());
            if error.use_stderr() { Exit::Usage.into() } else { exit_on(Ok(Exit::Done)) }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let mut runtime = match &cli.command {
        // While the daemon renders thousands of backends, nginx's signals and the page go on.
        Command::Run(args) if !args.once && !args.dry_run => Builder::new_multi_thread(),
        // The others do one thing after the other; a thread more is only memory more.
        _ => Builder::new_current_thread(),
    };
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    let exit = runtime.block_on(commands::dispatch(cli.command));
    runtime.shutdown_background();
    exit
}
