//! Processes as `/proc` shows them, and signals to them.
//!
//! A process is identified by its number and its start time, so that a reused number is not taken
//! for it; signals go through a pidfd for the same reason.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// The interval at which a process is checked for its end that the kernel does not report.
const END_INTERVAL: Duration = Duration::from_millis(100);

/// One process, unique until the machine is rebooted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// The process number.
    pub pid: i32,
    /// When it started, in the kernel's ticks (10 ms) since boot.
    pub start: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> Option<Self> {
        ProcessStat::read(pid).map(|stat| Self { pid, start: stat.start })
    }
}

/// Whether this very process still runs.
pub fn is_alive(id: ProcessId) -> bool {
    ProcessStat::read(id.pid).is_some_and(|stat| stat.start == id.start)
}

/// Waits for the end of a process that need not be our child: by a pidfd (Linux 5.3), or by polling
/// where there is none.
pub async fn until_ended(id: ProcessId) {
    // Opened before the look: it is of this process, or this process is gone already.
    let opened = Pid::from_raw(id.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    #[expect(deprecated, reason = "sound for an OwnedFd; what replaces it is unsafe for any")]
    let ended = opened.and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE).ok());
    if let Some(ended) = ended.filter(|_| is_alive(id)) {
        // An error is left to the looks that follow.
        ended.readable().await.ok();
    }
    while is_alive(id) {
        tokio::time::sleep(END_INTERVAL).await;
    }
}

/// Why a pid file names no process.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// The proxy does not run, or writes another file.
    #[error("there is no pid file {}; start the proxy, or correct `pid_file`", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read the pid file {}: {source}", .path.display())]
    Unreadable {
        /// The pid file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// It is not a process number; `nginx -t` leaves an empty file.
    #[error(
        "the pid file {} holds `{}` instead of a process number; start the proxy (`nginx -t` leaves \
         an empty one when nginx does not run)", .path.display(), .text.escape_debug()
    )]
    NotANumber {
        /// The pid file.
        path: PathBuf,
        /// Its content.
        text: String,
    },
}

/// The number in the first line of a pid file.
///
/// # Errors
/// When there is none.
pub(in crate::proxy) fn pid_in_file(path: &Path) -> Result<Pid, PidFileError> {
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => PidFileError::Missing(path.into()),
        _ => PidFileError::Unreadable { path: path.into(), source },
    })?;
    let number = text.lines().next().unwrap_or_default().trim();
    let pid = number.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    pid.ok_or_else(|| PidFileError::NotANumber {
        path: path.into(),
        text: number.chars().take(40).collect(),
    })
}

/// Why a process cannot be observed or signalled.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It has ended.
    #[error(
        "there is no process {0} (if it runs in another container, share its process namespace)"
    )]
    Gone(i32),
    /// The system refuses.
    #[error("cannot {doing} process {pid}: {source}{}", permission_hint(.source))]
    System {
        /// The step, as a verb.
        doing: &'static str,
        /// The process.
        pid: i32,
        /// The system's error.
        source: io::Error,
    },
}

fn permission_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            "; run confsync as the proxy's master does, or give it CAP_KILL"
        }
        _ => "",
    }
}

/// A process that signals can be sent to, and never to another one.
#[derive(Debug)]
pub(in crate::proxy) struct ProcessHandle {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl ProcessHandle {
    /// The process that has this number now.
    ///
    /// # Errors
    /// When there is none, or the system refuses.
    pub(in crate::proxy) fn open(pid: Pid) -> Result<Self, ProcessError> {
        let raw = pid.as_raw_nonzero().get();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => ProcessError::Gone(raw),
            errno => ProcessError::System { doing: "open", pid: raw, source: errno.into() },
        })?;
        // Opened before it is read: what is read later is about this process, or it is gone.
        let id = ProcessId::of(raw).ok_or(ProcessError::Gone(raw))?;
        Ok(Self { id, pidfd })
    }

    pub(in crate::proxy) fn id(&self) -> ProcessId {
        self.id
    }

    /// # Errors
    /// When it has ended, or the system refuses.
    pub(in crate::proxy) fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let pid = self.id.pid;
        pidfd_send_signal(&self.pidfd, signal).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => ProcessError::Gone(pid),
            errno => ProcessError::System { doing: "signal", pid, source: errno.into() },
        })
    }

    /// The numbers of its children, and of the processes in `known`: the kernel's list may omit a
    /// child while another one exits.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(in crate::proxy) fn child_pids(
        &self,
        known: &[ProcessId],
    ) -> Result<BTreeSet<i32>, ProcessError> {
        let pid = self.id.pid;
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let list = list.map_err(|source| match source.kind() {
            ErrorKind::NotFound => ProcessError::Gone(pid),
            _ => ProcessError::System { doing: "list the children of", pid, source },
        })?;
        let mut pids: BTreeSet<i32> = list.split_whitespace().flat_map(str::parse).collect();
        pids.extend(known.iter().map(|id| id.pid));
        Ok(pids)
    }
}

/// `/proc/PID/stat`.
pub(in crate::proxy) struct ProcessStat {
    pub(in crate::proxy) parent: i32,
    /// In the kernel's ticks (10 ms) since boot.
    pub(in crate::proxy) start: u64,
}

impl ProcessStat {
    /// `None` for a process that is gone, or has only to be reaped.
    pub(in crate::proxy) fn read(pid: i32) -> Option<Self> {
        // One call of the system, where reading to the end would be ten: it is read often.
        let mut text = [0; 1024];
        let bytes = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut text).ok()?;
        Self::parse(&String::from_utf8_lossy(text.get(..bytes)?))
    }

    /// The name in the second field may have any character, `)` included.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        (!matches!(state, "Z" | "X" | "x")).then_some(Self { parent, start })
    }
}

/// Which signals a process handles, blocks and has not taken yet, as bit masks: signal N is bit
/// N - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct SignalMasks {
    pub(in crate::proxy) caught: u64,
    pub(in crate::proxy) blocked: u64,
    pub(in crate::proxy) pending: u64,
}

impl SignalMasks {
    pub(in crate::proxy) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    pub(in crate::proxy) fn parse(status: &str) -> Option<Self> {
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        let pending = mask("SigPnd:")? | mask("ShdPnd:")?;
        Some(Self { caught: mask("SigCgt:")?, blocked: mask("SigBlk:")?, pending })
    }
}

/// The children of all threads of a process.
pub(in crate::proxy) fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

/// The name of a process: its program's file, unless it renamed itself.
pub(in crate::proxy) fn name(pid: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// Whether a process is a confsync, by its name.
pub(in crate::proxy) fn is_confsync(pid: i32) -> bool {
    let own = name(std::process::id().cast_signed());
    own.is_some() && name(pid) == own
}

/// The first 200 characters of a process's title: its command line, or what it wrote over it.
pub(in crate::proxy) fn title(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\0', " ");
    text.trim().chars().take(200).collect()
}

/// Waits between two looks at the processes of a proxy, of which nothing reports what they do: 2 ms
/// at first, then up to 20 ms, and once it takes long a twentieth of what it has taken. A look
/// costs some 30 µs.
pub(in crate::proxy) struct PollInterval {
    began: Instant,
    pause: Duration,
}

const LONGEST_POLL: Duration = Duration::from_millis(100);

impl PollInterval {
    pub(in crate::proxy) fn new() -> Self {
        Self { began: Instant::now(), pause: Duration::from_millis(2) }
    }

    pub(in crate::proxy) async fn wait(&mut self) {
        let share = self.began.elapsed() / 20;
        tokio::time::sleep(self.pause.max(share).min(LONGEST_POLL)).await;
        self.pause = (self.pause * 3 / 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let line = "7 (a) S) (b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        let stat = ProcessStat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.start), (3, 98765));
        let zombie = "7 (a) Z 3 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 98765";
        assert!(ProcessStat::parse(zombie).is_none());
        assert!(ProcessStat::parse("").is_none());
    }

    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    #[tokio::test]
    async fn the_end_of_a_process_is_reported() {
        let mut child = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        let ended = tokio::spawn(until_ended(id));
        tokio::task::yield_now().await;
        assert!(!ended.is_finished());
        child.kill().await.unwrap();
        ended.await.unwrap();
        until_ended(id).await;
        until_ended(ProcessId { start: id.start + 1, ..ProcessId::of(1).unwrap() }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_looked_at_less_often() {
        let (began, mut interval) = (Instant::now(), PollInterval::new());
        let mut pauses = Vec::new();
        while began.elapsed() < Duration::from_secs(10) {
            let before = began.elapsed();
            interval.wait().await;
            pauses.push((before, began.elapsed() - before));
        }
        let after = |at: u64| {
            let at = Duration::from_millis(at);
            pauses.iter().filter(move |(from, _)| *from >= at).map(|(_, pause)| *pause)
        };
        assert!(after(0).take(4).all(|pause| pause < Duration::from_millis(10)));
        assert!(after(2_000).all(|pause| pause == LONGEST_POLL));
        // No end is seen much later than it came.
        assert!(
            pauses.iter().all(|(from, pause)| *pause <= Duration::from_millis(20).max(*from / 10))
        );
    }

    #[test]
    fn a_pid_file_without_a_number_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(pid_in_file(file.path()), Err(PidFileError::NotANumber { .. })));
        assert!(matches!(pid_in_file(Path::new("/no/such")), Err(PidFileError::Missing(_))));
    }
}
