//! Commands: processes that end by themselves, soon.

use std::time::Duration;

use super::{Exit, Process, Spec};

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started or does not end within `bound`; it is killed then.
pub async fn run(spec: Spec, bound: Duration) -> Output {
    try_run(spec, bound).await.unwrap_or_else(|why| panic!("{why}"))
}

/// As [`run`], where a command that does not end is one answer among others: of a server that
/// stands still, for example.
///
/// # Errors
/// When it does not end within `bound`; it is killed then.
pub async fn try_run(spec: Spec, bound: Duration) -> Result<Output, String> {
    let process = Process::spawn(spec);
    match process.ended(bound).await {
        Ok(exit) => Ok(Output { exit, process }),
        Err(why) => {
            process.kill().await;
            Err(format!("{why}: `{}`\n{}", process.line(), process.log()))
        }
    }
}

/// A command that has ended.
pub struct Output {
    /// How.
    pub exit: Exit,
    process: Process,
}

impl Output {
    /// Standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    /// Standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// Standard output of a command that must have succeeded.
    ///
    /// # Panics
    /// When it failed, with its output.
    #[track_caller]
    #[must_use]
    pub fn ok(&self) -> String {
        assert!(
            self.exit.success(),
            "`{}` ended with {}:\n{}",
            self.process.line(),
            self.exit,
            self.process.log()
        );
        self.stdout()
    }
}
