//! A reload, and the proof that it happened.
//!
//! The order is what makes the proof: the files are swapped; then the master is seen waiting for
//! work; then the workers are listed; then the signal is sent. A generation that appears after that
//! has read the new files, even if another process sent a signal too. And a master that waits
//! again, has taken the signal and has forked no worker, has rejected them.
//!
//! While the binary is upgraded, two masters have workers that accept connections. The old one does
//! not read its files again, so nothing is applied before its workers stop accepting.

use std::path::Path;
use std::time::Duration;

use common::model::format_span;
use rustix::process::Signal;
use tokio::time::Instant;

use super::error_log::{LogPositions, is_final};
use super::evidence::{Generation, has_new, judge};
use super::master::{NginxMaster, NginxMasterError, Role};
use super::{Nginx, NginxCheckError};
use crate::proxy::process::{PollInterval, ProcessId};

/// How long a master must be seen idle without new workers until that means a rejection. One look
/// is not enough: there is a moment between taking a signal and blocking it.
const IDLE: Duration = Duration::from_millis(50);

const SILENT: &str = "it gave no reason";

/// Why a reload is not proven.
#[derive(Debug, thiserror::Error)]
pub enum NginxReloadError {
    /// There is no master to signal.
    #[error(transparent)]
    Master(#[from] NginxMasterError),
    /// The master read the configuration and kept the old one. Its message.
    #[error("nginx keeps its old configuration: {0}")]
    Rejected(String),
    /// The master accepted the configuration, but the workers that it started cannot run with it.
    /// The old ones are shutting down, so nothing serves until a working configuration is loaded:
    /// put the previous one back and reload at once.
    #[error("nginx's new workers cannot run, and NO WORKER SERVES: {0}")]
    NoWorkers(String),
    /// No proof by the deadline: no new worker serves, or an old one still accepts.
    #[error("no new workers took over within {}: {messages}", format_span(*.deadline))]
    TimedOut {
        deadline: Duration,
        /// The master's messages.
        messages: String,
    },
    /// The new generation serves, and so do the workers of another master.
    #[error(
        "nginx's binary is being upgraded: the workers of another master (process {0}) accept \
         connections too, by the previous files; end the upgrade (`kill -QUIT {0}` when the new \
         one serves well)"
    )]
    OtherMaster(i32),
    /// The master ended.
    #[error("nginx's master ended during the reload: {0}")]
    Died(String),
}

impl Nginx {
    /// Sends the master SIGHUP and waits for the proof that a new generation serves, and that no
    /// old worker accepts. Returns the workers of before; those that are left finish their requests.
    ///
    /// # Errors
    /// When the master rejects the configuration, ends, or does not finish by `deadline`. The old
    /// configuration then keeps serving, except after [`NginxReloadError::Died`] and
    /// [`NginxReloadError::NoWorkers`].
    pub async fn reload(
        &self,
        master: &NginxMaster,
        deadline: Duration,
    ) -> Result<Vec<ProcessId>, NginxReloadError> {
        let until = Instant::now() + deadline;
        let logs = self.mark_logs();
        if !is_idle_by(master, until).await {
            let messages = self.explain(&logs, master, "it is busy with something else").await;
            return Err(NginxReloadError::TimedOut { deadline, messages });
        }
        let logs = self.mark_logs();
        let before: Vec<_> = master.workers(&[])?.iter().map(|worker| worker.id).collect();
        master.signal(Signal::HUP)?;
        let wait = Wait { master, before: &before, logs: &logs, pid_file: &self.pid_file() };
        match wait.until(until).await? {
            ReloadOutcome::Applied { others } => Ok(before.into_iter().chain(others).collect()),
            ReloadOutcome::OtherMaster(pid) => Err(NginxReloadError::OtherMaster(pid)),
            ReloadOutcome::Rejected => {
                Err(NginxReloadError::Rejected(self.explain(&logs, master, SILENT).await))
            }
            ReloadOutcome::NoWorkers => {
                let messages = logs.messages_of_all();
                let messages =
                    if messages.is_empty() { SILENT.into() } else { messages.join("\n") };
                Err(NginxReloadError::NoWorkers(messages))
            }
            ReloadOutcome::Died => {
                Err(NginxReloadError::Died(self.explain(&logs, master, SILENT).await))
            }
            ReloadOutcome::TimedOut => {
                let messages = self.explain(&logs, master, SILENT).await;
                Err(NginxReloadError::TimedOut { deadline, messages })
            }
        }
    }

    /// The master's messages since the mark, or else what a check of the files reports, or else
    /// `otherwise`.
    async fn explain(&self, logs: &LogPositions, master: &NginxMaster, otherwise: &str) -> String {
        let messages = logs.messages(master.id().pid);
        if !messages.is_empty() {
            return messages.join("\n");
        }
        match self.check_current().await {
            Err(NginxCheckError::Rejected(messages)) => messages,
            Ok(_) | Err(_) => otherwise.to_owned(),
        }
    }
}

enum ReloadOutcome {
    /// With the workers of other masters that are finishing their requests.
    Applied {
        others: Vec<ProcessId>,
    },
    OtherMaster(i32),
    Rejected,
    NoWorkers,
    Died,
    TimedOut,
}

struct Wait<'a> {
    master: &'a NginxMaster,
    /// The workers that existed when the signal was sent.
    before: &'a [ProcessId],
    logs: &'a LogPositions,
    pid_file: &'a Path,
}

impl Wait<'_> {
    async fn until(&self, until: Instant) -> Result<ReloadOutcome, NginxMasterError> {
        let (master, before) = (self.master, self.before);
        let mut pace = PollInterval::new();
        let mut idle_since = None;
        loop {
            pace.wait().await;
            let now = match master.workers(before) {
                Ok(now) if master.is_alive() => now,
                Ok(_) | Err(NginxMasterError::NotRunning(_)) => return Ok(ReloadOutcome::Died),
                Err(e) => return Err(e),
            };
            let late = Instant::now() >= until;
            let gave_up = gave_up(self.logs, master);
            if judge(before, &now) >= Generation::Applied && !gave_up {
                match self.others() {
                    Ok(others) => return Ok(ReloadOutcome::Applied { others }),
                    Err(pid) if late => return Ok(ReloadOutcome::OtherMaster(pid)),
                    Err(_) => continue,
                }
            }
            let idle = master.is_waiting() == Some(true) && (!has_new(before, &now) || gave_up);
            let since = *idle_since.get_or_insert_with(Instant::now);
            if !idle {
                idle_since = None;
            } else if since.elapsed() >= IDLE {
                let serves = now.iter().any(|worker| worker.role == Role::Serving);
                return Ok(if serves { ReloadOutcome::Rejected } else { ReloadOutcome::NoWorkers });
            }
            if late {
                return Ok(ReloadOutcome::TimedOut);
            }
        }
    }

    /// The workers of other masters on these sockets, which are finishing their requests; or a
    /// master with a worker that still accepts.
    fn others(&self) -> Result<Vec<ProcessId>, i32> {
        let mut finishing = Vec::new();
        for other in self.master.others(self.pid_file) {
            for worker in other.workers(&[]).unwrap_or_default() {
                match worker.role {
                    Role::Serving | Role::Starting => return Err(other.id().pid),
                    Role::ShuttingDown => finishing.push(worker.id),
                    Role::Other => {}
                }
            }
        }
        Ok(finishing)
    }
}

/// A worker that crashed and was started again looks like a new generation; the master's last
/// message then shows that it was not.
fn gave_up(logs: &LogPositions, master: &NginxMaster) -> bool {
    logs.messages(master.id().pid).iter().any(|line| is_final(line))
}

/// Another process may have started a reload, which may not read what we swapped in.
async fn is_idle_by(master: &NginxMaster, until: Instant) -> bool {
    let mut pace = PollInterval::new();
    while master.is_alive() && master.is_waiting() == Some(false) {
        if Instant::now() >= until {
            return false;
        }
        pace.wait().await;
    }
    true
}
