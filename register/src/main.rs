//! The program `register`: parse, configure, do, exit.

use std::process::ExitCode;

use clap::ArgMatches;
use common::runtime::{Exit, exit_on};
use common::settings::cli::{as_written, common_command, parse};
use register::{cli, commands};

fn main() -> ExitCode {
    let (program, words): (_, Vec<_>) = (cli::command(), std::env::args_os().collect());
    match parse(&program, words.clone()) {
        Ok(matches) => exit_on(as_written(&program, &words, dispatch(&matches))),
        Err(code) => code,
    }
}

fn dispatch(matches: &ArgMatches) -> anyhow::Result<Exit> {
    if let Some(exit) = common_command(cli::command(), matches, |_, script| script) {
        return Ok(exit);
    }
    // One thread: a sidekick shall cost next to nothing, and nothing here computes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(commands::dispatch(matches));
    // A hanging resolver must not delay the exit.
    runtime.shutdown_background();
    exit
}
