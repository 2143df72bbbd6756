//! Exit codes, and where an error becomes a message on stderr.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

/// How a process ends. The numbers are part of the contract with units and
/// scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed.
    Failed,
    /// 2: deregistered, but not every load balancer confirmed the drain.
    Unconfirmed,
    /// 3: deregistered, and some load balancer finished the drain without proof: it knows
    /// its proxy by commands alone.
    Assumed,
    /// 64: the command line is wrong (`EX_USAGE`).
    Usage,
    /// The code of a supervised child.
    Child(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Unconfirmed => 2,
            Exit::Assumed => 3,
            Exit::Usage => 64,
            Exit::Child(code) => code,
        })
    }
}

/// An error that the user corrects on the command line. Anywhere in an `anyhow` chain it turns
/// exit code 1 into 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Maps the outcome of a program to its exit code, and prints an error with its causes on one
/// line; several mistakes, a line for each. A program whose output could not be written has failed.
pub fn exit_on(outcome: anyhow::Result<Exit>) -> ExitCode {
    let unwritten = UNWRITTEN.get();
    if let Some(error) = unwritten {
        print_error(format_args!("error: cannot write the output: {error}"));
    }
    match outcome {
        Ok(Exit::Done) if unwritten.is_some() => Exit::Failed.into(),
        Ok(exit) => exit.into(),
        Err(error) => {
            for line in with_causes(&error).lines() {
                print_error(format_args!("error: {line}"));
            }
            let usage = error.chain().any(|cause| cause.is::<Usage>());
            if usage { Exit::Usage.into() } else { Exit::Failed.into() }
        }
    }
}

/// The error and its causes; one that the text above it has already is left out.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Prints a line to stderr. Unlike `eprintln!` it does not panic when stderr is closed.
pub fn print_error(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The first write error of stdout. Kept here, as C's streams keep theirs, so that no command
/// can forget to pass it on.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// Prints to stdout, as it is. Unlike `print!` it does not panic; [`exit_on`] reports an error.
pub fn print(text: impl fmt::Display) {
    let mut out = io::stdout().lock();
    printed(write!(out, "{text}").and_then(|()| out.flush()));
}

/// Prints bytes to stdout, as [`print()`] does.
pub fn print_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    printed(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Records how a write to stdout ended. A closed pipe, as `head` leaves it, is no error.
pub fn printed(outcome: io::Result<()>) {
    if let Err(error) = outcome
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Later ones follow from the first.
        let _ = UNWRITTEN.set(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_anywhere_in_the_chain_is_64() {
        let error = anyhow::Error::from(Usage("no host".into())).context("cannot start");
        assert_eq!(format!("{:?}", exit_on(Err(error))), format!("{:?}", ExitCode::from(64)));
        let other = anyhow::anyhow!("disk full");
        let caused = anyhow::anyhow!("disk full").context("cannot write a: disk full");
        assert_eq!(with_causes(&caused), "cannot write a: disk full");
        assert_eq!(with_causes(&caused.context("no init")), "no init: cannot write a: disk full");
        assert_eq!(format!("{:?}", exit_on(Err(other))), format!("{:?}", ExitCode::from(1)));
    }
}
