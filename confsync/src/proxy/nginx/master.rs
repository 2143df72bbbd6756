//! nginx's master process and its workers.

use std::path::Path;

use rustix::process::{Pid, Signal};

use crate::proxy::process::{
    PidFileError, ProcessError, ProcessHandle, ProcessId, ProcessStat, SignalMasks, children,
    is_alive, pid_in_file, title, until_ended,
};

/// SIGHUP, in a signal mask.
const HUP: u64 = 1;

/// The role of a child of the master, by its title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A worker that accepts connections.
    Serving,
    /// A worker that finishes its requests and accepts no connections.
    ShuttingDown,
    /// Just forked, without a title of its own.
    Starting,
    /// Cache manager, cache loader, privileged agent: serves no request.
    Other,
}

/// A child of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    pub id: ProcessId,
    pub role: Role,
}

/// Why there is no master to signal.
#[derive(Debug, thiserror::Error)]
pub enum NginxMasterError {
    /// The pid file names no process.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// The process has ended.
    #[error("nginx is not running: {}", ProcessError::Gone(*.0))]
    NotRunning(i32),
    /// The process is something else; nothing was sent to it.
    #[error("process {pid} is `{title}`, not an nginx master; the pid file is stale")]
    NotNginx {
        /// The process.
        pid: i32,
        title: String,
    },
    /// It cannot be observed or signalled.
    #[error(transparent)]
    Process(ProcessError),
}

impl From<ProcessError> for NginxMasterError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Gone(pid) => Self::NotRunning(pid),
            error => Self::Process(error),
        }
    }
}

/// nginx's master process, proven to be one.
#[derive(Debug)]
pub struct NginxMaster(ProcessHandle);

impl NginxMaster {
    /// The master whose number is in a file.
    ///
    /// # Errors
    /// When the file names none.
    pub fn from_pid_file(path: &Path) -> Result<Self, NginxMasterError> {
        Self::from_pid(pid_in_file(path)?)
    }

    /// The master with this number.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pid(pid: Pid) -> Result<Self, NginxMasterError> {
        let process = ProcessHandle::open(pid)?;
        let pid = process.id().pid;
        let title = title(pid);
        if Self::is_title(&title) {
            return Ok(Self(process));
        }
        Err(NginxMasterError::NotNginx { pid, title })
    }

    /// The master that is `root` or a descendant of it: a program that comes before nginx in a
    /// command line may keep running.
    ///
    /// # Errors
    /// When there is none (yet).
    pub fn below(root: Pid) -> Result<Self, NginxMasterError> {
        /// An init, a script, a shell in it, and one to spare.
        const DEEPEST: usize = 4;
        let error = match Self::from_pid(root) {
            Err(error @ NginxMasterError::NotNginx { .. }) => error,
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

    /// Whether it is `root` or a descendant of it.
    pub fn is_below(&self, root: Pid) -> bool {
        let root = root.as_raw_nonzero().get();
        let parent = |pid: &i32| ProcessStat::read(*pid).map(|stat| stat.parent);
        std::iter::successors(Some(self.id().pid), parent).take(16).any(|pid| pid == root)
    }

    /// `nginx: master process …`; openresty and angie differ in the first word.
    fn is_title(title: &str) -> bool {
        title.split_once(": ").is_some_and(|(_, rest)| rest.starts_with("master process"))
    }

    pub fn id(&self) -> ProcessId {
        self.0.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        is_alive(self.id())
    }

    /// Its parent now: the process that started it, or the one that it was re-parented to.
    pub fn parent(&self) -> Option<i32> {
        let stat = ProcessStat::read(self.id().pid).filter(|stat| stat.start == self.id().start)?;
        Some(stat.parent)
    }

    /// Waits until it is gone; for a master that is not our child.
    pub async fn until_ended(&self) {
        until_ended(self.id()).await;
    }

    /// Sends it a signal, and never to another process.
    ///
    /// # Errors
    /// When it is gone or the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), NginxMasterError> {
        Ok(self.0.signal(signal)?)
    }

    /// Its workers and helper processes now. `known` are examined too, because the kernel's list
    /// may omit one while another exits.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn workers(&self, known: &[ProcessId]) -> Result<Vec<Worker>, NginxMasterError> {
        let pids = self.0.child_pids(known)?;
        let workers = pids.into_iter().filter_map(|child| Worker::read(child, self.id().pid));
        Ok(workers.filter(|worker| !worker.is_master()).collect())
    }

    /// The masters that accept on the same sockets: while the binary is upgraded (USR2), the
    /// one of the new binary is a child of the old one, whose number is in `PIDFILE.oldbin`.
    pub fn others(&self, pid_file: &Path) -> Vec<Self> {
        let mut old = pid_file.as_os_str().to_owned();
        old.push(".oldbin");
        let started = children(self.id().pid).into_iter().chain(self.parent());
        let started = started.filter_map(Pid::from_raw).filter_map(|pid| Self::from_pid(pid).ok());
        let mut found: Vec<Self> = Vec::new();
        for master in started.chain(Self::from_pid_file(Path::new(&old)).ok()) {
            let known =
                master.id() == self.id() || found.iter().any(|other| other.id() == master.id());
            // A worker of ours that was forked just now still has the title of a master.
            if !known && master.workers(&[]).is_ok_and(|workers| !workers.is_empty()) {
                found.push(master);
            }
        }
        found
    }

    /// Whether a worker of it serves.
    pub fn serves(&self) -> bool {
        let workers = self.workers(&[]).unwrap_or_default();
        workers.iter().any(|worker| worker.role == Role::Serving)
    }

    /// Whether the master waits for work: it is not reading a configuration, and has
    /// taken every SIGHUP sent to it. `None` if that cannot be determined.
    ///
    /// nginx blocks its signals while it works and unblocks them only to wait for one
    /// (`sigsuspend` in `ngx_master_process_cycle`), and /proc shows the mask.
    pub fn is_waiting(&self) -> Option<bool> {
        let masks = SignalMasks::of(self.id().pid)?;
        Some((masks.pending | masks.blocked) & HUP == 0)
    }
}

impl Worker {
    /// A worker begins with the title of a master; only a master has children.
    fn is_master(&self) -> bool {
        self.role == Role::Starting && !children(self.id.pid).is_empty()
    }

    fn read(pid: i32, master: i32) -> Option<Self> {
        let stat = ProcessStat::read(pid).filter(|stat| stat.parent == master)?;
        let role = Role::of(&title(pid));
        Some(Self { id: ProcessId { pid, start: stat.start }, role })
    }
}

impl Role {
    fn of(title: &str) -> Self {
        match title.split_once(": ").map_or("", |(_, rest)| rest) {
            rest if rest.starts_with("master process") => Self::Starting,
            rest if !rest.starts_with("worker process") => Self::Other,
            // Truncated where nginx was started with hardly any environment.
            rest if rest.starts_with("worker process is") => Self::ShuttingDown,
            _ => Self::Serving,
        }
    }
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
        assert!(NginxMaster::is_title("nginx: master process /usr/sbin/nginx"));
        assert!(!NginxMaster::is_title("vim nginx: notes"));
        assert!(!NginxMaster::is_title("nginx: worker process"));
    }

    #[test]
    fn a_process_that_is_no_master_is_refused() {
        let own = Pid::from_raw(std::process::id().cast_signed()).unwrap();
        assert!(matches!(NginxMaster::from_pid(own), Err(NginxMasterError::NotNginx { .. })));
    }
}
