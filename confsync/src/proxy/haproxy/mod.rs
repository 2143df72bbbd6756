//! HAProxy by name: is this candidate good, take it, and is it what you run now?
//!
//! * [`Haproxy::check`] gives HAProxy all its files with the staged ones in the place of
//!   their dests, before anything live is touched.
//! * [`Haproxy::load`] has the master reload and watches its workers until a new one
//!   serves and no old one takes connections. The old ones are waited for by others.
//!
//! What must hold: an exit code proves nothing, only workers do; no signal goes to a
//! process that is not proven to be a master; nothing waits without a deadline.
//!
//! What proves a reload is asked of the master's socket (`-S`), where it has one: it says
//! which worker is of which generation, and each worker whether it is stopping. Without
//! it, the signals that the kernel shows of each process have to do.

mod answers;
mod argv;
mod check;
mod conf;
mod master;
mod reload;
mod socket;

use std::path::PathBuf;
use std::time::Duration;

pub use argv::Argv;
pub use master::{Master, MasterError};
use reload::ReloadError;

use crate::config::confdir;
use crate::proxy::nginx::ProcessId;
use crate::proxy::{Live, NotLoaded, Old};

/// Where HAProxy's own pid file is on Debian, and by its manual.
const PID_FILE: &str = "/run/haproxy.pid";

/// A name that does not resolve takes its time.
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// What is known about HAProxy before it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The program; looked for in `PATH` if it is a bare name.
    pub binary: PathBuf,
    /// Its files and folders (`-f`), in order.
    pub conf: Vec<PathBuf>,
    /// The folder that relative names are resolved against (`-C`).
    pub directory: Option<PathBuf>,
    /// The pid file; `None`: what the configuration says.
    pub pid_file: Option<PathBuf>,
    /// How long a check may take.
    pub check_deadline: Duration,
    /// How long a new worker may take to serve.
    pub deadline: Duration,
    /// With more old workers than this, the next reload waits.
    pub max_old_generations: usize,
}

/// One HAProxy.
#[derive(Debug, Clone)]
pub struct Haproxy {
    settings: Settings,
}

impl Haproxy {
    /// HAProxy as it is configured.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// HAProxy as a resource knows it.
    #[must_use]
    pub fn of(told: &confdir::Haproxy) -> Self {
        Self::new(Settings {
            binary: told.binary.clone(),
            conf: told.conf.clone(),
            directory: None,
            pid_file: told.pid_file.clone(),
            check_deadline: CHECK_DEADLINE,
            deadline: told.deadline,
            max_old_generations: told.max_old_generations,
        })
    }

    /// Where the master writes its number, by what its configuration says now.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        let told = self.settings.pid_file.clone();
        let by_conf = || conf::global(&conf::files(&self.settings.conf, &[])).pid_file;
        told.or_else(by_conf).unwrap_or_else(|| PID_FILE.into())
    }

    /// The master that the pid file names, proven to be one.
    ///
    /// # Errors
    /// When there is none.
    pub fn master(&self) -> Result<Master, MasterError> {
        Master::from_pid_file(&self.pid_file())
    }

    /// Whether a master runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.master().is_ok()
    }

    /// Whether so many old workers are alive that a reload should wait.
    #[must_use]
    pub fn crowded(&self) -> Option<usize> {
        let workers = self.master().ok()?.workers(&[]).ok()?;
        let old = workers.len().saturating_sub(1);
        (old > self.settings.max_old_generations).then_some(old)
    }

    /// Has the installed files loaded, and waits for the proof.
    ///
    /// # Errors
    /// [`NotLoaded`].
    pub async fn load(&self) -> Result<Live, NotLoaded> {
        let master = self.master().map_err(|error| NotLoaded::NobodyThere(error.to_string()))?;
        let old = self.reload(&master).await?;
        Ok(Live { old: Old::Processes(old), master: Some(master.id()) })
    }

    async fn reload(&self, master: &Master) -> Result<Vec<ProcessId>, NotLoaded> {
        match reload::reload(master, self.settings.deadline).await {
            Ok(old) => Ok(old),
            Err(error @ ReloadError::Rejected) => {
                let why = self.why_rejected().await;
                let why = why.unwrap_or_else(|| "its log has the reason".to_owned());
                Err(NotLoaded::RejectedValue(format!("{error}: {why}")))
            }
            Err(error @ ReloadError::TimedOut { .. }) => Err(NotLoaded::Broken(error.to_string())),
            Err(error) => Err(NotLoaded::Unproven(error.to_string())),
        }
    }
}
