//! What all child processes of ours have in common: a group of their own, an environment without
//! our secrets, an entry that keeps the sweep for orphans away, and an exit in words. When one is
//! signalled or killed is decided by those who start it.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::orphans::{self, Ours};

/// Environment variables that children do not inherit: secrets, and the connection to the
/// service manager, which would take a child's READY=1 for ours.
pub const PRIVATE: [&str; 7] = [
    "ETCD_PASSWORD",
    "ETCDCTL_PASSWORD",
    // `name:password`, if its owner writes it so.
    "ETCDCTL_USER",
    "ETCDCTL_USERNAME",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessExit(ExitStatus);

impl ProcessExit {
    /// The code to exit with: its own, or 128 and the signal, as shells have it.
    pub fn code(self) -> u8 {
        let code = self.0.code().or_else(|| self.0.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
    }

    /// Whether a signal ended it.
    pub fn is_by_signal(self) -> bool {
        self.0.signal().is_some()
    }
}

impl From<ExitStatus> for ProcessExit {
    fn from(status: ExitStatus) -> Self {
        Self(status)
    }
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "killed by signal {signal}"),
            (None, None) => self.0.fmt(f),
        }
    }
}

/// A command that will lead a process group, without what is [`PRIVATE`] in its environment.
pub fn group_leader(program: impl AsRef<OsStr>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "deadlines are the callers'; the group is here")]
    let mut command = Command::new(program);
    command.process_group(0);
    for name in PRIVATE {
        command.env_remove(name);
    }
    command
}

/// The group of a child that was started as its leader.
#[derive(Debug)]
pub struct ProcessGroup {
    group: Option<Pid>,
    _ours: Ours,
}

impl ProcessGroup {
    /// Starts a [`group_leader`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> io::Result<(Child, Self)> {
        let (child, ours) = orphans::spawn(command)?;
        let group = pid_of(&child);
        Ok((child, Self { group, _ours: ours }))
    }

    /// Signals all of the group, if it is not empty.
    pub fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The only error is that the group is empty.
            let _ = kill_process_group(group, signal);
        }
    }

    /// The leader was waited for, so the number of the group may be reused: no signal may be sent
    /// to it any more.
    pub fn forget(&mut self) {
        self.group = None;
    }
}

/// The process number of a child, until it was waited for.
pub fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_a_code_and_a_text() {
        for (raw, code, words) in
            [(0, 0, "exit code 0"), (7 << 8, 7, "exit code 7"), (15, 143, "killed by signal 15")]
        {
            let exit = ProcessExit::from(ExitStatus::from_raw(raw));
            assert_eq!((exit.code(), exit.to_string().as_str()), (code, words));
        }
    }
}
