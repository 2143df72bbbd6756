//! The program `confsync`: parse, do, exit.

use std::process::ExitCode;

use clap::ArgMatches;
use common::runtime::{Exit, Usage, exit_on};
use common::settings::cli::{as_written, common_command, parse, subcommand_first};
use confsync::cli::args::command;
use confsync::cli::commands;
use confsync::cli::completion::with_resources;
use confsync::cli::confd_flags::confd_words;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let program = command();
    let written: Vec<_> = std::env::args_os().collect();
    let words = match confd_words(subcommand_first(&program, written.clone())) {
        Ok(words) => words,
        Err(mistake) => return exit_on(Err(Usage(mistake).into())),
    };
    match parse(&program, words) {
        Ok(matches) => exit_on(as_written(&program, &written, run(&matches))),
        Err(code) => code,
    }
}

fn run(matches: &ArgMatches) -> anyhow::Result<Exit> {
    if let Some(exit) = common_command(command(), matches, with_resources) {
        return Ok(exit);
    }
    // One thread: what this program does is wait, and tasks on two threads that wake each other cost
    // more than they do. What takes long is given to threads of its own.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(commands::dispatch(matches));
    runtime.shutdown_background();
    exit
}
