//! A reload by the master, and what it takes to say that it happened.
//!
//! The order makes the proof: the files are swapped; then the master is seen waiting for
//! work; then its workers are listed; then the signal goes. A worker that appears after
//! that has read the new files, whichever process signalled.

use std::path::Path;
use std::time::Duration;

use common::model::format_span;
use tokio::time::Instant;

use super::answers::{Info, Processes};
use super::master::{HaproxyMasterError, Master, has_taken_its_signals, works};
use super::socket::RuntimeSocket;
use crate::proxy::process::{PollInterval, ProcessId, is_alive};

/// Without the master's socket: how long a master must be seen waiting without a new
/// worker to have refused.
const IDLE: Duration = Duration::from_millis(300);

/// Why a reload is not proven.
#[derive(Debug, thiserror::Error)]
pub(super) enum HaproxyReloadError {
    /// There is no master to signal.
    #[error(transparent)]
    Master(#[from] HaproxyMasterError),
    /// The master could not use the configuration and keeps its old workers.
    #[error("HAProxy keeps its old configuration")]
    Rejected,
    /// No proof by the deadline.
    #[error("{what} within {}", format_span(*.deadline))]
    TimedOut {
        /// What has not happened.
        what: &'static str,
        deadline: Duration,
    },
    /// The master ended.
    #[error("HAProxy's master ended during the reload")]
    Died,
}

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Applied,
    Rejected,
    Pending(&'static str),
}

const NO_WORKER: &str = "no new worker of HAProxy took over";
const OLD_ACCEPTS: &str = "an old worker of HAProxy still took connections";

/// Sends the master SIGUSR2 and waits until a new worker serves and no old one takes
/// connections. The workers of before, which finish their requests.
///
/// # Errors
/// When the master refuses, ends, or does not get there by `deadline`.
pub(super) async fn reload(
    master: &Master,
    deadline: Duration,
) -> Result<Vec<ProcessId>, HaproxyReloadError> {
    let until = Instant::now() + deadline;
    let mut pace = PollInterval::new();
    // Another process's reload may be under way; what it reads is not what we swapped in.
    while master.is_waiting() == Some(false) && master.is_alive() {
        if Instant::now() >= until {
            let what = "the master of HAProxy was not done with another reload";
            return Err(HaproxyReloadError::TimedOut { what, deadline });
        }
        pace.wait().await;
    }
    let mut watch = ReloadObservation::begin(master).await?;
    master.reload()?;
    loop {
        pace.wait().await;
        if !master.is_alive() {
            return Err(HaproxyReloadError::Died);
        }
        match watch.look(master).await? {
            Course::Applied => return Ok(watch.before),
            Course::Rejected => return Err(HaproxyReloadError::Rejected),
            Course::Pending(what) if Instant::now() >= until => {
                return Err(HaproxyReloadError::TimedOut { what, deadline });
            }
            Course::Pending(_) => {}
        }
    }
}

/// What was there when the signal was sent.
struct ReloadObservation {
    before: Vec<ProcessId>,
    /// The master's socket, and how often it had reloaded; `None` if there is none that
    /// answers.
    socket: Option<(RuntimeSocket, u64)>,
    idle_since: Option<Instant>,
}

impl ReloadObservation {
    async fn begin(master: &Master) -> Result<Self, HaproxyReloadError> {
        let socket = match master.socket() {
            Some(path) => processes(&path).await,
            None => None,
        };
        let socket = socket.map(|(socket, processes)| (socket, processes.reloads));
        Ok(Self { before: master.workers(&[])?, socket, idle_since: None })
    }

    async fn look(&mut self, master: &Master) -> Result<Course, HaproxyReloadError> {
        let now = master.workers(&self.before)?;
        let new: Vec<ProcessId> =
            now.into_iter().filter(|worker| !self.before.contains(worker)).collect();
        match self.socket.clone() {
            Some((socket, reloads)) => Ok(self.ask(&socket, reloads, &new).await),
            None => Ok(self.by_signals(master, &new)),
        }
    }

    /// By what the master and each worker answer.
    async fn ask(&self, socket: &RuntimeSocket, reloads: u64, new: &[ProcessId]) -> Course {
        let answer = socket.ask(&"show proc").await.ok();
        let Some(processes) = answer.and_then(|answer| Processes::read(&answer)) else {
            // It is reading its configuration.
            return Course::Pending(NO_WORKER);
        };
        if processes.reloads <= reloads {
            return Course::Pending(NO_WORKER);
        }
        if processes.failed > 0 {
            return Course::Rejected;
        }
        let current = new.iter().find(|worker| processes.workers.contains(&worker.pid));
        let serves = match current {
            Some(worker) => info(socket, *worker).await.is_some_and(|info| !info.stopping),
            None => false,
        };
        if !serves {
            return Course::Pending(NO_WORKER);
        }
        for worker in &self.before {
            let stopping = info(socket, *worker).await.is_some_and(|info| info.stopping);
            if !stopping && is_alive(*worker) {
                return Course::Pending(OLD_ACCEPTS);
            }
        }
        Course::Applied
    }

    /// By what the kernel shows of their signals: the master waits again only after it has
    /// signalled the old workers to finish.
    fn by_signals(&mut self, master: &Master, new: &[ProcessId]) -> Course {
        if master.is_waiting() != Some(true) {
            self.idle_since = None;
            return Course::Pending(NO_WORKER);
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if new.iter().any(|worker| works(*worker)) {
            let taken = self.before.iter().all(|worker| has_taken_its_signals(*worker));
            return if taken { Course::Applied } else { Course::Pending(OLD_ACCEPTS) };
        }
        let rejected = new.is_empty() && since.elapsed() >= IDLE;
        if rejected { Course::Rejected } else { Course::Pending(NO_WORKER) }
    }
}

/// What the master says of its processes, if it has a socket that answers.
pub(super) async fn processes(path: &Path) -> Option<(RuntimeSocket, Processes)> {
    let socket = RuntimeSocket::at(path);
    match socket.ask(&"show proc").await {
        Ok(answer) => Some((socket, Processes::read(&answer)?)),
        Err(error) => {
            tracing::debug!(%error, "the master's socket is not used");
            None
        }
    }
}

async fn info(master: &RuntimeSocket, worker: ProcessId) -> Option<Info> {
    let answer = master.of_worker(worker.pid).ask(&"show info").await.ok()?;
    Info::read(&answer).filter(|info| info.pid == worker.pid)
}
