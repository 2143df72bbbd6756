//! The program `register`: parse, configure, do, exit.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory};
use register::args::Cli;
use register::check;
use register::config::{Sources, UsageErrors, prepare};

/// Bad usage, as `sysexits.h` has it.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match Cli::command().try_get_matches_from(std::env::args_os().collect::<Vec<OsString>>()) {
        Ok(matches) => dispatch(&matches),
        Err(error) => {
            // Help and version come this way too; they are no errors.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

fn dispatch(matches: &ArgMatches) -> ExitCode {
    let done = match matches.subcommand() {
        Some(("check", matches)) => run_check(matches),
        _ => {
            eprintln!("register: only `check` is in this build");
            return ExitCode::FAILURE;
        }
    };
    done.unwrap_or_else(|errors| {
        eprintln!("{errors}");
        ExitCode::from(USAGE)
    })
}

fn run_check(matches: &ArgMatches) -> Result<ExitCode, UsageErrors> {
    let sources = Sources::new(matches, |name| std::env::var(name).ok(), hostname());
    let config = sources.load()?;
    for note in &config.notes {
        eprintln!("note: {note}");
    }
    let probes = prepare(&config.services)?;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("register: cannot start: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let lines = runtime.block_on(check::ask(&config.services, &probes));
    // A resolver that hangs must not hold us back.
    runtime.shutdown_background();
    print!("{}", check::render(&lines));
    Ok(if check::healthy(&lines) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `{hostname}` stands for.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
