//! HAProxy's processes: the master, which reloads, and its workers, as /proc shows them.
//!
//! A master is known by the signal it catches: SIGUSR2 makes it reload, and would end a
//! HAProxy that has no master. What it waits with is seen in its masks: it blocks its
//! signals while it reads its configuration, from the signal on until the new worker
//! is forked and the old ones are told.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::argv::Argv;
use crate::proxy::nginx::process::{ProcessId, Stat, is_alive};

const USR1: u64 = 1 << 9;
const USR2: u64 = 1 << 11;

/// Why there is no master to signal.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// HAProxy does not run, or writes another file.
    #[error("cannot read HAProxy's pid file {}: {why}; is it running, and is `pid_file` right?",
        .path.display())]
    NoPidFile {
        /// The pid file.
        path: PathBuf,
        /// What the system said, or what is in it.
        why: String,
    },
    /// The process is gone.
    #[error("HAProxy is not running: there is no process {0}")]
    NotRunning(i32),
    /// Something else; nothing was sent to it.
    #[error("process {pid} is `{name}`, not HAProxy; the pid file is stale")]
    NotHaproxy {
        /// The process.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// A reload would end it.
    #[error(
        "process {0} is a HAProxy without a master, which cannot be reloaded; start it with -W or \
         -Ws, or set `master-worker` in its global section"
    )]
    NoMaster(i32),
    /// The system refuses.
    #[error("cannot {doing} process {pid}: {source}; run confsync as root, or give it CAP_KILL")]
    System {
        /// What was tried.
        doing: &'static str,
        /// The process.
        pid: i32,
        /// What the system said.
        source: std::io::Error,
    },
}

/// HAProxy's master process, proven to be one.
#[derive(Debug)]
pub struct Master {
    id: ProcessId,
    pidfd: OwnedFd,
    name: String,
}

impl Master {
    /// The master whose number is in a file.
    ///
    /// # Errors
    /// When the file names none.
    pub fn from_pid_file(path: &Path) -> Result<Self, MasterError> {
        let bad = |why: String| MasterError::NoPidFile { path: path.to_owned(), why };
        let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let number = text.lines().next().unwrap_or_default().trim();
        let pid = number.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
        Self::from_pid(pid.ok_or_else(|| bad(format!("it holds `{}`", number.escape_debug())))?)
    }

    /// The master with this number.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pid(pid: Pid) -> Result<Self, MasterError> {
        let raw = pid.as_raw_nonzero().get();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => MasterError::NotRunning(raw),
            errno => MasterError::System { doing: "open", pid: raw, source: errno.into() },
        })?;
        let stat = Stat::read(raw).ok_or(MasterError::NotRunning(raw))?;
        let name = name(raw).unwrap_or_default();
        if !name.starts_with("haproxy") {
            return Err(MasterError::NotHaproxy { pid: raw, name });
        }
        let master = Self { id: ProcessId { pid: raw, start: stat.start }, pidfd, name };
        let has_master = Argv::of_process(raw).is_some_and(|argv| argv.has_master);
        // While it reads its configuration it catches nothing yet, and blocks all.
        let catches =
            Masks::of(raw).is_some_and(|masks| (masks.caught | masks.blocked) & USR2 != 0);
        if has_master || catches { Ok(master) } else { Err(MasterError::NoMaster(raw)) }
    }

    /// Which process it is.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        is_alive(self.id)
    }

    /// Makes it read its configuration again.
    ///
    /// # Errors
    /// When it is gone or the system refuses.
    pub fn reload(&self) -> Result<(), MasterError> {
        self.signal(Signal::USR2)
    }

    /// Sends it a signal, and never to another process.
    ///
    /// # Errors
    /// When it is gone or the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), MasterError> {
        let pid = self.id.pid;
        pidfd_send_signal(&self.pidfd, signal).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => MasterError::NotRunning(pid),
            errno => MasterError::System { doing: "signal", pid, source: errno.into() },
        })
    }

    /// Its workers now, of all generations. `known` are looked at one by one as well,
    /// because the kernel's list may leave one out while another exits. A `program` of the
    /// configuration is none.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn workers(&self, known: &[ProcessId]) -> Result<Vec<ProcessId>, MasterError> {
        let pid = self.id.pid;
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let list = list.map_err(|source| match source.kind() {
            ErrorKind::NotFound => MasterError::NotRunning(pid),
            _ => MasterError::System { doing: "list the children of", pid, source },
        })?;
        let mut pids: Vec<i32> = list.split_whitespace().flat_map(str::parse).collect();
        pids.extend(known.iter().map(|id| id.pid));
        pids.sort_unstable();
        pids.dedup();
        let worker = |child: i32| {
            let stat = Stat::read(child).filter(|stat| stat.parent == pid)?;
            let same = name(child)? == self.name;
            same.then_some(ProcessId { pid: child, start: stat.start })
        };
        Ok(pids.into_iter().filter_map(worker).collect())
    }

    /// Whether it waits for work and has taken every SIGUSR2 sent to it. `None` if that
    /// cannot be told.
    #[must_use]
    pub fn is_waiting(&self) -> Option<bool> {
        let masks = Masks::of(self.id.pid)?;
        Some(masks.caught & USR2 != 0 && (masks.blocked | masks.pending) & USR2 == 0)
    }

    /// The socket that `-S` of its command line names.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        Argv::of_process(self.id.pid)?.master_socket
    }
}

/// Whether a worker has begun to work: it catches the signal that ends it gently.
#[must_use]
pub(super) fn works(worker: ProcessId) -> bool {
    Masks::of(worker.pid).is_some_and(|masks| masks.caught & USR1 != 0 && masks.blocked & USR1 == 0)
        && is_alive(worker)
}

/// Whether a worker has taken the signal to finish, if one was sent.
#[must_use]
pub(super) fn has_taken_its_signals(worker: ProcessId) -> bool {
    Masks::of(worker.pid).is_none_or(|masks| (masks.blocked | masks.pending) & USR1 == 0)
}

fn name(pid: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// What a process does with its signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Masks {
    caught: u64,
    blocked: u64,
    pending: u64,
}

impl Masks {
    fn of(pid: i32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn read(status: &str) -> Option<Self> {
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        let pending = mask("SigPnd:")? | mask("ShdPnd:")?;
        Some(Self { caught: mask("SigCgt:")?, blocked: mask("SigBlk:")?, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_haproxy_is_refused() {
        let own = Pid::from_raw(std::process::id().cast_signed()).unwrap();
        assert!(matches!(Master::from_pid(own), Err(MasterError::NotHaproxy { .. })));
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Master::from_pid_file(file.path());
        assert!(matches!(refused, Err(MasterError::NoPidFile { .. })), "{refused:?}");
    }

    /// As recorded of HAProxy 2.6: a master that waits, and one that reads.
    #[test]
    fn masks_of_a_master() {
        let status = |blocked: &str, caught: &str| {
            format!(
                "Name:\thaproxy\nSigPnd:\t0\nShdPnd:\t0\nSigBlk:\t{blocked}\nSigIgn:\t0\nSigCgt:\t{caught}\n"
            )
        };
        let waits = Masks::read(&status("0000000000000000", "0000000100716a03")).unwrap();
        assert!(waits.caught & USR2 != 0 && waits.blocked & USR2 == 0);
        let reads = Masks::read(&status("0000000000310a01", "0000000100000000")).unwrap();
        assert!(reads.caught & USR2 == 0 && reads.blocked & USR2 != 0);
        let worker = Masks::read(&status("0000000000000000", "0000000100702205")).unwrap();
        assert!(worker.caught & USR2 == 0 && worker.caught & USR1 != 0);
        assert_eq!(Masks::read("Name:\tx\n"), None);
    }
}
