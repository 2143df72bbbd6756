//! nginx's processes, as /proc shows them.
//!
//! A process is known by its number and its start time, so that a number given away
//! again is not taken for it; the master is signalled through a pidfd for the same
//! reason.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How often it is looked whether a master that is not our child still runs.
const GONE_PACE: Duration = Duration::from_millis(100);

/// One process for as long as the machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId {
    /// The process number.
    pub pid: i32,
    /// When it started, in the kernel's ticks (10 ms) since boot.
    pub start: u64,
}

impl ProcessId {
    /// The process that has this number now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self { pid, start: stat.start })
    }
}

/// What a child of the master does, by its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker that takes connections.
    Serving,
    /// A worker that finishes its requests and takes no connection.
    ShuttingDown,
    /// Just forked, without a title of its own.
    Starting,
    /// Cache manager, cache loader, privileged agent: serves no request.
    Other,
}

/// A child of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Which process.
    pub id: ProcessId,
    /// What it does.
    pub role: Role,
}

/// Why there is no master to speak to.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// No pid file: nginx does not run, or writes another one.
    #[error("there is no pid file {}; is nginx running, and is `pid_file` right?", .0.display())]
    NoPidFile(PathBuf),
    /// The pid file cannot be read.
    #[error("cannot read the pid file {}: {source}", .path.display())]
    Unreadable {
        /// The pid file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The pid file holds no process number; `nginx -t` leaves an empty one.
    #[error(
        "the pid file {} holds `{}` instead of a process number; `nginx -t` makes an empty one \
         when nginx does not run", .path.display(), .text.escape_debug()
    )]
    NotANumber {
        /// The pid file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// The process is gone.
    #[error(
        "nginx is not running: there is no process {0} (if it runs in another container, share its \
         process namespace)"
    )]
    NotRunning(i32),
    /// The process is something else; nothing was sent to it.
    #[error("process {pid} is `{title}`, not an nginx master; the pid file is stale")]
    NotNginx {
        /// The process.
        pid: i32,
        /// Its title.
        title: String,
    },
    /// The system refuses.
    #[error("cannot {doing} process {pid}: {source}{}", right(.source))]
    System {
        /// What was tried.
        doing: &'static str,
        /// The process.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
}

fn right(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => "; run confsync as nginx's master does, or give it CAP_KILL",
        _ => "",
    }
}

/// nginx's master process, proven to be one.
#[derive(Debug)]
pub struct Master {
    id: ProcessId,
    pidfd: OwnedFd,
}

impl Master {
    /// The master whose number is in a file.
    ///
    /// # Errors
    /// When the file names none.
    pub fn from_pid_file(path: &Path) -> Result<Self, MasterError> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => MasterError::NoPidFile(path.into()),
            _ => MasterError::Unreadable { path: path.into(), source },
        })?;
        let pid = text.trim().parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| MasterError::NotANumber {
            path: path.into(),
            text: text.chars().take(40).collect(),
        })?;
        Self::from_pid(pid)
    }

    /// The master with this number.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pid(pid: Pid) -> Result<Self, MasterError> {
        let raw = pid.as_raw_nonzero().get();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| match e {
            rustix::io::Errno::SRCH => MasterError::NotRunning(raw),
            e => MasterError::System { doing: "open", pid: raw, source: e.into() },
        })?;
        // Opened first and looked at after: what is read is of this process, or it is gone.
        let stat = Stat::read(raw).ok_or(MasterError::NotRunning(raw))?;
        let title = title(raw);
        let (master, id) = (Self::is_title(&title), ProcessId { pid: raw, start: stat.start });
        if master { Ok(Self { id, pidfd }) } else { Err(MasterError::NotNginx { pid: raw, title }) }
    }

    /// The master that is `root`, or that it or a program of its own has started: what
    /// comes before nginx in a command line may stay.
    ///
    /// # Errors
    /// When there is none (yet).
    pub fn below(root: Pid) -> Result<Self, MasterError> {
        /// An init, a script, a shell in it, and one to spare.
        const DEEPEST: usize = 4;
        let error = match Self::from_pid(root) {
            Err(error @ MasterError::NotNginx { .. }) => error,
            answer => return answer,
        };
        let mut level = vec![root.as_raw_nonzero().get()];
        for _ in 0..DEEPEST {
            level = level.into_iter().flat_map(children).collect();
            let masters = level.iter().filter_map(|pid| Pid::from_raw(*pid));
            if let Some(master) = masters.filter_map(|pid| Self::from_pid(pid).ok()).next() {
                return Ok(master);
            }
        }
        Err(error)
    }

    /// Whether it is `root`, or comes from it.
    #[must_use]
    pub fn is_below(&self, root: Pid) -> bool {
        let root = root.as_raw_nonzero().get();
        let parent = |pid: &i32| Stat::read(*pid).map(|stat| stat.parent);
        std::iter::successors(Some(self.id.pid), parent).take(16).any(|pid| pid == root)
    }

    /// `nginx: master process …`; openresty and angie differ in the first word.
    fn is_title(title: &str) -> bool {
        title.split_once(": ").is_some_and(|(_, rest)| rest.starts_with("master process"))
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

    /// Who started it, or whoever took it over since.
    #[must_use]
    pub fn parent(&self) -> Option<i32> {
        let stat = Stat::read(self.id.pid).filter(|stat| stat.start == self.id.start)?;
        Some(stat.parent)
    }

    /// Waits until it is gone; for a master that is not our child, whose end nobody
    /// tells us.
    pub async fn gone(&self) {
        gone(self.id).await;
    }

    /// Sends it a signal, and never to another process.
    ///
    /// # Errors
    /// When it is gone or the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), MasterError> {
        let pid = self.id.pid;
        pidfd_send_signal(&self.pidfd, signal).map_err(|e| match e {
            rustix::io::Errno::SRCH => MasterError::NotRunning(pid),
            e => MasterError::System { doing: "signal", pid, source: e.into() },
        })
    }

    /// Its children now. `known` are looked at one by one as well, because the
    /// kernel's list may leave one out while another exits.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn workers(&self, known: &[ProcessId]) -> Result<Vec<Worker>, MasterError> {
        let pid = self.id.pid;
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let list = list.map_err(|source| match source.kind() {
            ErrorKind::NotFound => MasterError::NotRunning(pid),
            _ => MasterError::System { doing: "list the children of", pid, source },
        })?;
        let mut pids: BTreeSet<i32> = list.split_whitespace().flat_map(str::parse).collect();
        pids.extend(known.iter().map(|id| id.pid));
        let workers = pids.into_iter().filter_map(|child| Worker::read(child, pid));
        Ok(workers.filter(|worker| !worker.is_master()).collect())
    }

    /// The masters that accept on the same sockets: while the binary is upgraded (USR2), the
    /// one of the new binary is a child of the old one, whose number is in `PIDFILE.oldbin`.
    #[must_use]
    pub fn others(&self, pid_file: &Path) -> Vec<Self> {
        let mut old = pid_file.as_os_str().to_owned();
        old.push(".oldbin");
        let started = children(self.id.pid).into_iter().chain(self.parent());
        let started = started.filter_map(Pid::from_raw).filter_map(|pid| Self::from_pid(pid).ok());
        let mut found: Vec<Self> = Vec::new();
        for master in started.chain(Self::from_pid_file(Path::new(&old)).ok()) {
            let known = master.id == self.id || found.iter().any(|other| other.id == master.id);
            // One of ours that was forked just now bears the title as well.
            if !known && master.workers(&[]).is_ok_and(|workers| !workers.is_empty()) {
                found.push(master);
            }
        }
        found
    }

    /// Whether a worker of it serves.
    #[must_use]
    pub fn serves(&self) -> bool {
        let workers = self.workers(&[]).unwrap_or_default();
        workers.iter().any(|worker| worker.role == Role::Serving)
    }

    /// Whether the master waits for work: it is not reading a configuration, and has
    /// taken every SIGHUP sent to it. `None` if that cannot be told.
    ///
    /// nginx blocks its signals while it works and unblocks them only to wait for one
    /// (`sigsuspend` in `ngx_master_process_cycle`), and /proc shows the mask.
    #[must_use]
    pub fn is_waiting(&self) -> Option<bool> {
        const HUP: u64 = 1;
        let status = fs::read_to_string(format!("/proc/{}/status", self.id.pid)).ok()?;
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        let taken = (mask("SigPnd:")? | mask("ShdPnd:")?) & HUP == 0;
        Some(taken && mask("SigBlk:")? & HUP == 0)
    }
}

impl Worker {
    /// A worker begins with the title of a master; only a master has children.
    fn is_master(&self) -> bool {
        self.role == Role::Starting && !children(self.id.pid).is_empty()
    }

    fn read(pid: i32, master: i32) -> Option<Self> {
        let stat = Stat::read(pid).filter(|stat| stat.parent == master)?;
        let role = Role::of(&title(pid));
        Some(Self { id: ProcessId { pid, start: stat.start }, role })
    }
}

impl Role {
    fn of(title: &str) -> Self {
        match title.split_once(": ").map_or("", |(_, rest)| rest) {
            rest if rest.starts_with("master process") => Self::Starting,
            rest if !rest.starts_with("worker process") => Self::Other,
            // Cut short where nginx was started with hardly an environment.
            rest if rest.starts_with("worker process is") => Self::ShuttingDown,
            _ => Self::Serving,
        }
    }
}

/// Waits until a process is gone that is not our child.
pub async fn gone(id: ProcessId) {
    while is_alive(id) {
        tokio::time::sleep(GONE_PACE).await;
    }
}

/// Whether this very process still runs.
#[must_use]
pub fn is_alive(id: ProcessId) -> bool {
    Stat::read(id.pid).is_some_and(|stat| stat.start == id.start)
}

/// What the kernel says of a process.
pub(in crate::proxy) struct Stat {
    pub(in crate::proxy) parent: i32,
    pub(in crate::proxy) start: u64,
}

impl Stat {
    /// `None` for one that is gone or waits only to be reaped.
    pub(in crate::proxy) fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&text)
    }

    /// The name in the second field may hold anything, `)` included.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        (!matches!(state, "Z" | "X" | "x")).then_some(Self { parent, start })
    }
}

/// The children of all its threads.
fn children(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect()
}

fn title(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\0', " ");
    text.trim().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_by_title() {
        for (title, role) in [
            ("nginx: worker process", Role::Serving),
            ("nginx: worker process is shutting down", Role::ShuttingDown),
            ("nginx: worker process is shu", Role::ShuttingDown),
            ("angie: worker process #3", Role::Serving),
            ("nginx: cache manager process", Role::Other),
            ("nginx: cache loader process", Role::Other),
            ("nginx: privileged agent process", Role::Other),
            ("nginx: master process nginx -g daemon off;", Role::Starting),
            ("sh -c echo nginx", Role::Other),
            ("", Role::Other),
        ] {
            assert_eq!(Role::of(title), role, "{title}");
        }
        assert!(Master::is_title("nginx: master process /usr/sbin/nginx"));
        assert!(!Master::is_title("vim nginx: notes"));
        assert!(!Master::is_title("nginx: worker process"));
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let line = "7 (a) S) (b) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.start), (3, 98765));
        assert!(Stat::parse("7 (a) Z 3 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 98765").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn a_process_that_is_no_master_is_refused() {
        let own = Pid::from_raw(std::process::id().cast_signed()).unwrap();
        assert!(matches!(Master::from_pid(own), Err(MasterError::NotNginx { .. })));
    }
}
