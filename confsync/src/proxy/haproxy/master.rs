//! HAProxy's processes: the master, which reloads, and its workers, as /proc shows them.
//!
//! A master is recognised by the signal that it catches: SIGUSR2 makes it reload, and would end a
//! HAProxy that has no master. Its signal masks show whether it waits for work: it blocks its
//! signals while it reads its configuration, from the signal until the new worker is forked and
//! the old ones are signalled.

use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use super::argv::HaproxyArgv;
use crate::proxy::process::{
    PidFileError, ProcessError, ProcessHandle, ProcessId, ProcessStat, SignalMasks, is_alive, name,
    pid_in_file,
};

/// Signals, in a signal mask.
const USR1: u64 = 1 << 9;
const USR2: u64 = 1 << 11;

/// Why there is no master to signal.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyMasterError {
    /// The pid file names no process.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// The process has ended.
    #[error("HAProxy is not running: {}", ProcessError::Gone(*.0))]
    NotRunning(i32),
    /// The process is something else; nothing was sent to it.
    #[error("process {pid} is `{name}`, not HAProxy; the pid file is stale")]
    NotHaproxy {
        /// The process.
        pid: i32,
        name: String,
    },
    /// A reload would end it.
    #[error(
        "process {0} is a HAProxy without a master, which cannot be reloaded; start it with -W or \
         -Ws, or set `master-worker` in its global section"
    )]
    NoMaster(i32),
    /// It cannot be observed or signalled.
    #[error(transparent)]
    Process(ProcessError),
}

impl From<ProcessError> for HaproxyMasterError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Gone(pid) => Self::NotRunning(pid),
            error => Self::Process(error),
        }
    }
}

/// HAProxy's master process, proven to be one.
#[derive(Debug)]
pub struct Master {
    process: ProcessHandle,
    name: String,
}

impl Master {
    /// The master whose number is in a file.
    ///
    /// # Errors
    /// When the file names none.
    pub fn from_pid_file(path: &Path) -> Result<Self, HaproxyMasterError> {
        Self::from_pid(pid_in_file(path)?)
    }

    /// The master with this number.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pid(pid: Pid) -> Result<Self, HaproxyMasterError> {
        let process = ProcessHandle::open(pid)?;
        let pid = process.id().pid;
        let name = name(pid).unwrap_or_default();
        if !name.starts_with("haproxy") {
            return Err(HaproxyMasterError::NotHaproxy { pid, name });
        }
        let has_master = HaproxyArgv::of_process(pid).is_some_and(|argv| argv.has_master);
        // While it reads its configuration it catches nothing yet, and blocks all.
        let catches =
            SignalMasks::of(pid).is_some_and(|masks| (masks.caught | masks.blocked) & USR2 != 0);
        if !has_master && !catches {
            return Err(HaproxyMasterError::NoMaster(pid));
        }
        Ok(Self { process, name })
    }

    pub fn id(&self) -> ProcessId {
        self.process.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        is_alive(self.id())
    }

    /// Makes it read its configuration again.
    ///
    /// # Errors
    /// When it is gone or the system refuses.
    pub fn reload(&self) -> Result<(), HaproxyMasterError> {
        self.signal(Signal::USR2)
    }

    /// Sends it a signal, and never to another process.
    ///
    /// # Errors
    /// When it is gone or the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), HaproxyMasterError> {
        Ok(self.process.signal(signal)?)
    }

    /// Its workers now, of all generations. `known` are examined too, because the kernel's list
    /// may omit one while another exits. A `program` of the configuration is not a worker.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn workers(&self, known: &[ProcessId]) -> Result<Vec<ProcessId>, HaproxyMasterError> {
        let worker = |child: i32| {
            let stat = ProcessStat::read(child).filter(|stat| stat.parent == self.id().pid)?;
            let same = name(child)? == self.name;
            same.then_some(ProcessId { pid: child, start: stat.start })
        };
        Ok(self.process.child_pids(known)?.into_iter().filter_map(worker).collect())
    }

    /// Whether it waits for work and has taken every SIGUSR2 sent to it. `None` if that
    /// cannot be determined.
    pub fn is_waiting(&self) -> Option<bool> {
        let masks = SignalMasks::of(self.id().pid)?;
        Some(masks.caught & USR2 != 0 && (masks.blocked | masks.pending) & USR2 == 0)
    }

    /// The socket that `-S` of its command line names.
    pub fn socket(&self) -> Option<PathBuf> {
        HaproxyArgv::of_process(self.id().pid)?.master_socket
    }
}

/// Whether a worker has started to work: it catches the signal for a graceful end.
pub(super) fn works(worker: ProcessId) -> bool {
    SignalMasks::of(worker.pid)
        .is_some_and(|masks| masks.caught & USR1 != 0 && masks.blocked & USR1 == 0)
        && is_alive(worker)
}

/// Whether a worker has taken the signal to finish, if one was sent.
pub(super) fn has_taken_its_signals(worker: ProcessId) -> bool {
    SignalMasks::of(worker.pid).is_none_or(|masks| (masks.blocked | masks.pending) & USR1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_haproxy_is_refused() {
        let own = Pid::from_raw(std::process::id().cast_signed()).unwrap();
        assert!(matches!(Master::from_pid(own), Err(HaproxyMasterError::NotHaproxy { .. })));
    }

    /// As recorded of HAProxy 2.6: a master that waits, and one that reads.
    #[test]
    fn masks_of_a_master() {
        let status = |blocked: &str, caught: &str| {
            format!(
                "Name:\thaproxy\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t{blocked}\nSigIgn:\t0\nSigCgt:\t{caught}\n"
            )
        };
        let waits = SignalMasks::parse(&status("0000000000000000", "0000000100716a03")).unwrap();
        assert!(waits.caught & USR2 != 0 && waits.blocked & USR2 == 0);
        let reads = SignalMasks::parse(&status("0000000000310a01", "0000000100000000")).unwrap();
        assert!(reads.caught & USR2 == 0 && reads.blocked & USR2 != 0);
        let worker = SignalMasks::parse(&status("0000000000000000", "0000000100702205")).unwrap();
        assert!(worker.caught & USR2 == 0 && worker.caught & USR1 != 0);
        assert_eq!(SignalMasks::parse("Name:\tx\n"), None);
    }
}
