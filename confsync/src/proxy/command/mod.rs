//! Runs programs, each with a deadline, a process group of its own and a bound on the output that
//! is kept.
//!
//! Invariants:
//! * a call ends at its deadline at the latest (and [`GRACE`]), whatever the program
//!   and its children do; then its whole group is killed;
//! * no more than the bound is kept of its output, the rest is read and counted;
//! * a shell is used only where the user wrote a shell command (`check_cmd`,
//!   `reload_cmd`);
//! * dropping a running call kills the group.
//!
//! A child that the program leaves behind after it has exited in time is not killed:
//! a reload command may start a daemon. Such a daemon must redirect its output, as
//! daemons do; ours is closed when the command exits.
//!
//! This module knows nothing of nginx or of files to install.

mod output;
mod supervise;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, ErrorKind};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout_at};

pub use common::runtime::ProcessExit;
use common::runtime::{ProcessGroup, group_leader};
pub use output::Output;
use output::{Bounded, drain};
pub use supervise::{Supervised, Tail};

/// The time between SIGTERM and SIGKILL once the deadline has passed.
pub const GRACE: Duration = Duration::from_millis(250);
/// The default bound on the output that is kept.
const KEEP: usize = 16 * 1024;

/// A program to be run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    argv: Vec<OsString>,
    shown: String,
    deadline: Duration,
}

/// A program that ended with exit code 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output and standard error, in the order they came.
    pub output: Output,
    /// How long it ran.
    pub took: Duration,
}

/// Why a program did not end with exit code 0.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It ended by itself with another code, or by a signal.
    #[error("`{command}` failed ({}){output}", *.exit)]
    Failed {
        /// The command as written.
        command: String,
        /// How it ended.
        exit: ProcessExit,
        output: Output,
    },
    /// It was still running at its deadline and was killed with all its children.
    #[error(
        "`{command}` was still running after {} and was killed{output}",
        common::model::format_span(*.after)
    )]
    TimedOut {
        /// The command as written.
        command: String,
        /// The deadline.
        after: Duration,
        /// Its output up to then.
        output: Output,
    },
    /// There is no such program in `PATH` that this user may run.
    #[error("there is no program `{0}` for this user; install it, or give its full path")]
    NotFound(String),
    /// It could not be started or waited for.
    #[error("cannot run `{command}`: {source}")]
    Spawn {
        /// The command as written.
        command: String,
        /// The system's error.
        source: io::Error,
    },
}

impl Command {
    /// A line for a shell: run by `/bin/sh -c`, as confd does.
    pub fn shell(line: &str, deadline: Duration) -> Self {
        let argv = ["/bin/sh", "-c", line].map(OsString::from).to_vec();
        Self { argv, shown: line.to_owned(), deadline }
    }

    /// A program and its arguments, without a shell.
    #[must_use]
    pub fn argv<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        deadline: Duration,
    ) -> Self {
        let mut argv = vec![program.as_ref().to_owned()];
        argv.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        let shown = argv.iter().map(|a| a.to_string_lossy()).collect::<Vec<_>>().join(" ");
        Self { argv, shown, deadline }
    }

    /// Runs it until it ends or its deadline passes.
    ///
    /// # Errors
    /// When it does not end with exit code 0.
    pub async fn run(&self) -> Result<Outcome, CommandError> {
        let begun = Instant::now();
        let spawned = self.spawn();
        let (mut running, mut pipe) = spawned.map_err(|e| self.not_started(e))?;
        let mut output = Bounded::new(KEEP);
        let ended = timeout_at(begun + self.deadline, async {
            tokio::select! {
                status = running.child.wait() => status,
                () = drain(&mut pipe, &mut output) => running.child.wait().await,
            }
        })
        .await;
        match ended {
            Ok(status) => {
                running.group.forget();
                output.take_what_is_there(&pipe);
                let status = status.map_err(|source| self.lost(source))?;
                let (output, command) = (output.finish(), self.shown.clone());
                if status.success() {
                    Ok(Outcome { output, took: begun.elapsed() })
                } else {
                    Err(CommandError::Failed { command, exit: status.into(), output })
                }
            }
            Err(_) => {
                running.end().await;
                output.take_what_is_there(&pipe);
                let (output, command) = (output.finish(), self.shown.clone());
                Err(CommandError::TimedOut { command, after: self.deadline, output })
            }
        }
    }

    fn spawn(&self) -> io::Result<(Running, tokio::net::unix::pipe::Receiver)> {
        let (program, arguments) = self.argv.split_first().ok_or(ErrorKind::InvalidInput)?;
        let (read, write) = io::pipe()?;
        let mut command = group_leader(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write)
            .kill_on_drop(true);
        let (child, group) = ProcessGroup::start(&mut command)?;
        let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into())?;
        Ok((Running { child, group }, pipe))
    }

    fn not_started(&self, source: io::Error) -> CommandError {
        not_started(&self.argv, &self.shown, source)
    }

    fn lost(&self, source: io::Error) -> CommandError {
        CommandError::Spawn { command: self.shown.clone(), source }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A started program. If it is dropped before its end, its group is killed.
struct Running {
    child: Child,
    group: ProcessGroup,
}

impl Running {
    /// The leader is not reaped before its group is killed, so that the number of the group cannot
    /// be reused.
    async fn end(&mut self) {
        self.group.signal(Signal::TERM);
        sleep(GRACE).await;
        self.group.signal(Signal::KILL);
        self.group.forget();
        // It was killed, so this returns; the only error would be that another part reaped it.
        let _ = self.child.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.signal(Signal::KILL);
    }
}

fn not_started(argv: &[OsString], command: &str, source: io::Error) -> CommandError {
    let program = argv.first().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    match source.kind() {
        ErrorKind::NotFound => CommandError::NotFound(program),
        // For a bare name it means that one folder of `PATH` is not readable for us.
        ErrorKind::PermissionDenied if !program.contains('/') => CommandError::NotFound(program),
        _ => CommandError::Spawn { command: command.to_owned(), source },
    }
}

#[cfg(test)]
mod tests;
