//! The HAProxy driver: check a candidate, reload, verify the running generation.
//!
//! * [`Haproxy::check`] runs HAProxy's own check on all its files, with the staged ones in place of
//!   their dests, before anything that runs is affected.
//! * [`Haproxy::load`] reloads by the master and watches its workers until a new one serves and no
//!   old one accepts connections. The caller waits for the old ones to end.
//!
//! Invariants: an exit code proves nothing, only workers do; no signal goes to a process that is
//! not proven to be a master; nothing waits without a deadline.
//!
//! A reload is proven by the master's socket (`-S`), where there is one: it reports the generation
//! of each worker, and each worker whether it is stopping. Without it, the signal masks that the
//! kernel shows of each process are the proof.

mod answers;
mod argv;
mod arrange;
mod backend_servers;
mod check;
mod command;
mod conf;
mod departed;
mod leftover;
mod listing;
mod master;
mod options;
mod reload;
mod runtime;
mod servers;
mod socket;
mod statistics;
mod wanted;
mod worker;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

pub use argv::HaproxyArgv;
pub use arrange::arrange;
use master::works;
pub use master::{HaproxyMasterError, Master};
use reload::HaproxyReloadError;
pub use runtime::Runtime;
pub use servers::{ServersByName, member};
use socket::RuntimeSocket;
pub use statistics::traffic;

use crate::config::confdir;
use crate::install::Digest;
use crate::proxy::child::{Child, ChildState, FilesRead};
use crate::proxy::pools::PublishError;
use crate::proxy::process::{PollInterval, ProcessId};
use crate::proxy::{NotLoaded, Old, ProvenLoad};

/// HAProxy's own pid file on Debian, and in its manual.
const PID_FILE: &str = "/run/haproxy.pid";

/// A check resolves names, which may take long.
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// The HAProxy of a reload group.
#[derive(Debug, Clone)]
pub struct Haproxy {
    group: String,
    /// As configured, but for what the command line of a supervised one says; paths are absolute.
    options: confdir::HaproxyOptions,
    /// The folder that relative names are resolved against (`-C`).
    directory: Option<PathBuf>,
    /// The supervised program, if it is this HAProxy.
    child: Option<Child>,
}

impl Haproxy {
    /// The HAProxy of a resource. The command line of a supervised one takes precedence.
    pub fn of(group: &str, options: &confdir::HaproxyOptions, child: Option<Child>) -> Self {
        let mut options = options.clone();
        let argv = child.as_ref().and_then(|child| in_command(child.command()));
        let child = child.filter(|_| argv.is_some());
        let mut directory = None;
        if let Some(argv) = argv {
            options.binary = argv.binary;
            directory = argv.directory;
            if !argv.conf.is_empty() {
                options.conf = argv.conf;
            }
        }
        let base = directory.clone().unwrap_or_default();
        for path in &mut options.conf {
            let joined = base.join(&*path);
            *path = std::path::absolute(&joined).unwrap_or(joined);
        }
        Self { group: group.to_owned(), options, directory, child }
    }

    /// The master's pid file, by the present configuration.
    pub fn pid_file(&self) -> PathBuf {
        let configured = self.options.pid_file.clone();
        let by_conf = || conf::global(&conf::files(&self.options.conf, &[])).pid_file;
        configured.or_else(by_conf).unwrap_or_else(|| PID_FILE.into())
    }

    /// Its own files and folders, in order.
    pub fn conf(&self) -> impl Iterator<Item = &Path> {
        self.options.conf.iter().map(PathBuf::as_path)
    }

    /// The master that is our child or that the pid file names, proven to be one.
    ///
    /// # Errors
    /// When there is none.
    pub fn master(&self) -> Result<Master, HaproxyMasterError> {
        match self.child.as_ref().and_then(Child::pid) {
            Some(pid) => Master::from_pid(pid),
            None => Master::from_pid_file(&self.pid_file()),
        }
    }

    /// The admin socket of the worker that accepts connections.
    ///
    /// # Errors
    /// When there is no such socket, with what to add to the configuration.
    async fn runtime_socket(&self) -> Result<RuntimeSocket, PublishError> {
        let by_conf = || conf::global(&conf::files(&self.options.conf, &[])).socket;
        let weak = match self.options.socket.clone().map(|path| (path, true)).or_else(by_conf) {
            Some((path, true)) => return Ok(RuntimeSocket::at(&path)),
            Some((path, false)) => Some(path),
            None => None,
        };
        if let Ok(master) = self.master()
            && let Some(path) = master.socket()
        {
            // A master that has just started does not answer while it executes itself again.
            let asked = reload::processes(&path).await;
            let socket = asked.and_then(|(socket, processes)| {
                processes.workers.first().map(|worker| socket.of_worker(*worker))
            });
            let silent =
                || PublishError::Retry("HAProxy's master does not name its workers".into());
            return socket.ok_or_else(silent);
        }
        Err(PublishError::NeedsReload(match weak {
            Some(path) => format!(
                "HAProxy's socket {} has no `level admin`; add it to that `stats socket` line",
                path.display()
            ),
            None => "HAProxy has no admin socket; add `stats socket /run/haproxy/admin.sock level \
                     admin` to its global section"
                .to_owned(),
        }))
    }

    /// Whether a master runs.
    pub fn is_running(&self) -> bool {
        self.master().is_ok()
    }

    /// The number of old workers, if they are so many that a reload should wait.
    pub fn crowded(&self) -> Option<usize> {
        let workers = self.master().ok()?.workers(&[]).ok()?;
        let old = workers.len().saturating_sub(1);
        (old > self.options.max_old_generations).then_some(old)
    }

    /// Loads the installed files and waits for the proof. `files` is their digest.
    pub async fn load(&self, files: Option<Digest>) -> Result<ProvenLoad, NotLoaded> {
        if let Some(child) = self.child.as_ref().filter(|child| child.is_to_start())
            && let Some(old) = self.start(child, files).await?
        {
            return Ok(ProvenLoad { old: Old::Processes(old), master: None });
        }
        let master = self.master().map_err(|error| NotLoaded::Deferred(error.to_string()))?;
        let old = self.reload(&master).await?;
        let master = self.child.is_none().then(|| master.id());
        Ok(ProvenLoad { old: Old::Processes(old), master })
    }

    /// Starts the supervised one. If it serves by exactly these files: the processes of one that an
    /// earlier run has left.
    async fn start(
        &self,
        child: &Child,
        files: Option<Digest>,
    ) -> Result<Option<Vec<ProcessId>>, NotLoaded> {
        let argv = in_command(child.command()).unwrap_or_default();
        let left = leftover::leftovers(&argv);
        let read = child.placed(&self.group, files, None).await;
        let read = read.map_err(NotLoaded::Rejected)?;
        if read == FilesRead::NotStarted {
            let why = format!("{} is started when all files are in place", child.name());
            return Err(NotLoaded::Unproven(why));
        }
        let until = Instant::now() + self.options.deadline;
        self.wait_until_served(child, until).await?;
        let old = leftover::finish(&left);
        let mut pace = PollInterval::new();
        while !leftover::are_stopping(&old) && Instant::now() < until {
            pace.wait().await;
        }
        Ok((read == FilesRead::These).then_some(old))
    }

    async fn wait_until_served(&self, child: &Child, until: Instant) -> Result<(), NotLoaded> {
        let name = child.name();
        let mut pace = PollInterval::new();
        loop {
            let is_late = Instant::now() >= until;
            let why = match self.master().and_then(|master| master.workers(&[])) {
                Ok(workers) if workers.iter().any(|worker| works(*worker)) => return Ok(()),
                Ok(_) => format!("{name} was started, and none of its workers serves"),
                Err(error) => error.to_string(),
            };
            if matches!(child.state(), ChildState::Exited(_)) {
                return Err(NotLoaded::Rejected(format!("{name} ended at once")));
            }
            if is_late {
                return Err(NotLoaded::Deferred(why));
            }
            pace.wait().await;
        }
    }

    async fn reload(&self, master: &Master) -> Result<Vec<ProcessId>, NotLoaded> {
        match reload::reload(master, self.options.deadline).await {
            Ok(old) => Ok(old),
            Err(error @ HaproxyReloadError::Rejected) => {
                let why = self.why_rejected().await;
                let why = why.unwrap_or_else(|| "its log has the reason".to_owned());
                Err(NotLoaded::Rejected(format!("{error}: {why}")))
            }
            Err(error @ HaproxyReloadError::TimedOut { .. }) => {
                Err(NotLoaded::Broken(error.to_string()))
            }
            Err(error) => Err(NotLoaded::Unproven(error.to_string())),
        }
    }
}

/// The HAProxy in a command line that may begin with an entry point or `env`.
fn in_command(command: &[OsString]) -> Option<HaproxyArgv> {
    (0..command.len()).find_map(|from| HaproxyArgv::read(command.get(from..)?))
}
