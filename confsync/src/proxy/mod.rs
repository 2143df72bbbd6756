//! How the files of one reload group are checked, loaded and proven active: by nginx, by HAProxy,
//! or by the operator's commands. The pipeline uses this and nothing below it.

mod by_command;
pub mod child;
pub mod command;
pub mod driver;
pub mod haproxy;
pub mod membership;
pub mod nginx;
pub mod pools;
pub mod process;
pub mod traffic;

use std::time::Duration;

use tokio::time::Instant;

pub use by_command::ByCommand;

use crate::config::reload_group::{Loader, ReloadGroup};
use crate::install::{Digest, Proof, StagedFiles};
use crate::proxy::child::{Begun, Child, Knows, Life};
use crate::proxy::command::{Command, CommandError};
use crate::proxy::haproxy::Haproxy;
use crate::proxy::nginx::{
    Argv, Nginx, NginxCheckError, NginxMaster, NginxMasterError, NginxReloadError, ProcessId,
    ProvenReload, Settings,
};

/// What checks and loads a reload group.
#[derive(Debug)]
pub enum Proxy {
    /// nginx, which confsync knows.
    Nginx(Box<ByName>),
    /// HAProxy, which confsync knows.
    Haproxy(Box<Haproxy>),
    /// The operator's commands.
    Commands(Box<ByCommand>),
}

/// nginx, checked, signalled and observed by confsync.
#[derive(Debug)]
pub struct ByName {
    group: String,
    nginx: Nginx,
    /// The supervised program, if it is this nginx.
    child: Option<Child>,
    /// The supervised program, if it may be this nginx: its command line does not tell.
    unknown: Option<Child>,
    deadline: Duration,
    /// With more old generations than this, the next reload waits.
    pub max_old_generations: usize,
}

/// Why a candidate was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPassed {
    /// It is invalid; the reason as the proxy or the command reported it.
    RejectedValue(String),
    /// The check could not be made: worth another try soon.
    Unknown(String),
}

/// Why a load is not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLoaded {
    /// The installed files are rejected: put the previous ones back.
    RejectedValue(String),
    /// The installed files stopped the service, or may still do so: put the previous files back and
    /// load them at once.
    Broken(String),
    /// It may still succeed: the reload stays pending.
    Unproven(String),
    /// The program is not running; when it is started, it reads the files anyway.
    NobodyThere(String),
}

/// A load that is proven.
#[derive(Debug)]
pub struct ProvenLoad {
    /// What still works by the previous configuration.
    pub old: Old,
    /// The process that runs it, if its end must be watched for: one known by its pid file. When it
    /// ends, nothing is active.
    pub master: Option<ProcessId>,
}

/// What still works by the previous configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// These processes, until they are gone.
    Processes(Vec<ProcessId>),
    /// Unknown; it counts as done after this long.
    For(Duration),
    /// Nothing, once these commands have succeeded.
    Ask(Vec<Command>),
}

impl Proxy {
    /// Determines what loads `set`. With a child, nginx is the child.
    ///
    /// # Errors
    /// When nginx cannot be asked for its build settings.
    pub async fn of(
        set: &ReloadGroup,
        child: Option<&Child>,
        argv: Option<&Argv>,
    ) -> Result<Self, CommandError> {
        let (child, unknown) = match argv {
            Some(_) => (child.cloned(), None),
            None => (None, child.cloned()),
        };
        if let Loader::Haproxy(options) = &set.loader {
            return Ok(Self::Haproxy(Box::new(Haproxy::of(&set.name, options, unknown))));
        }
        let Loader::Nginx(options) = &set.loader else {
            let nginx = match argv {
                Some(argv) if child.is_some() => {
                    Some(Nginx::discover(Settings::default().with_argv(argv)).await?)
                }
                _ => None,
            };
            return Ok(Self::Commands(Box::new(ByCommand::of(set, child.or(unknown), nginx))));
        };
        let settings = Settings {
            binary: options.binary.clone(),
            conf: Some(options.conf.clone()),
            pid_file: options.pid_file.clone(),
            ..Settings::default()
        };
        let settings = argv.map_or(settings.clone(), |argv| settings.with_argv(argv));
        let nginx = Nginx::discover(settings).await?;
        Ok(Self::Nginx(Box::new(ByName {
            group: set.name.clone(),
            nginx,
            child,
            unknown,
            deadline: options.deadline,
            max_old_generations: options.max_old_generations,
        })))
    }

    /// The nginx, if it is one.
    #[must_use]
    pub fn nginx(&self) -> Option<&Nginx> {
        match self {
            Self::Nginx(by_name) => Some(&by_name.nginx),
            Self::Haproxy(_) | Self::Commands(_) => None,
        }
    }

    /// Whether confsync starts the proxy itself.
    #[must_use]
    pub fn is_child(&self) -> bool {
        matches!(self, Self::Nginx(by_name) if by_name.child.is_some() || by_name.unknown.is_some())
    }

    /// Removes what an earlier run of ours left beside nginx's files.
    pub fn clean_stale(&self) {
        if let Self::Nginx(by_name) = self
            && let Err(error) = by_name.nginx.clean_stale()
        {
            tracing::warn!(%error, "cannot remove files of an earlier run");
        }
    }

    /// Checks staged files before they replace anything.
    ///
    /// # Errors
    /// [`NotPassed`].
    pub async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        match self {
            Self::Nginx(by_name) => by_name.check(staged).await,
            Self::Haproxy(haproxy) => haproxy.check(staged).await,
            Self::Commands(commands) => commands.check(staged).await,
        }
    }

    /// Runs the checks that do not name the candidate, after the swap.
    ///
    /// # Errors
    /// The command's output.
    pub async fn check_installed(&self) -> Result<(), String> {
        match self {
            Self::Nginx(_) | Self::Haproxy(_) => Ok(()),
            Self::Commands(commands) => commands.check_installed().await,
        }
    }

    /// Loads the installed files and waits for the proof. `files` is their digest.
    ///
    /// # Errors
    /// [`NotLoaded`].
    pub async fn load(&self, files: Option<Digest>) -> Result<ProvenLoad, NotLoaded> {
        match self {
            Self::Nginx(by_name) => by_name.load(files).await,
            Self::Haproxy(haproxy) => haproxy.load(files).await,
            Self::Commands(commands) => {
                commands.load(files).await.map(|old| ProvenLoad { old, master: None })
            }
        }
    }

    /// The number of old generations, if they are so many that a reload should wait.
    #[must_use]
    pub fn crowded(&self) -> Option<usize> {
        let by_name = match self {
            Self::Nginx(by_name) => by_name,
            Self::Haproxy(haproxy) => return haproxy.crowded(),
            Self::Commands(_) => return None,
        };
        let workers = by_name.master().ok()?.workers(&[]).ok()?;
        let old = crate::proxy::nginx::old_generations(&workers);
        (old > by_name.max_old_generations).then_some(old)
    }

    /// Whether the program that loads the files runs: `false` only if it is known not to.
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self {
            Self::Nginx(by_name) => by_name.master().is_ok(),
            Self::Haproxy(haproxy) => haproxy.is_running(),
            Self::Commands(commands) => commands.is_running(),
        }
    }

    /// Whether the end of old requests is concluded from a span of time, not from evidence.
    #[must_use]
    pub fn is_assumed(&self) -> bool {
        matches!(self, Self::Commands(commands) if commands.is_assumed())
    }
}

impl ByName {
    async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        match self.nginx.check(staged).await {
            Ok(report) => {
                for warning in &report.warnings {
                    tracing::warn!("{warning}");
                }
                Ok(report.proof)
            }
            Err(NginxCheckError::RejectedValue(words)) => Err(NotPassed::RejectedValue(words)),
            Err(error) => Err(NotPassed::Unknown(error.to_string())),
        }
    }

    fn master(&self) -> Result<NginxMaster, NginxMasterError> {
        if let Some(pid) = self.child.as_ref().and_then(Child::pid) {
            return self.nginx.master_of(pid);
        }
        let by_file = self.nginx.master();
        match self.unknown.as_ref().and_then(Child::pid) {
            Some(pid) if by_file.is_err() => self.nginx.master_of(pid).or(by_file),
            _ => by_file,
        }
    }

    /// Starts the supervised program, unless it was started before. It then serves by the files in
    /// place.
    async fn start(&self, files: Option<Digest>) -> Result<Option<ProvenLoad>, NotLoaded> {
        let live = |master| ProvenLoad { old: Old::Processes(Vec::new()), master };
        if let Some(child) = self.child.as_ref().filter(|child| child.life() == Life::Waiting) {
            return match child.start(Some(self.nginx.clone()), self.deadline).await {
                Ok(Begun::Now) => Ok(Some(live(None))),
                Ok(Begun::Before) => Ok(None),
                Err(why) => Err(NotLoaded::RejectedValue(why)),
            };
        }
        let Some(child) = self.unknown.as_ref().filter(|child| child.life() == Life::Waiting)
        else {
            return Ok(None);
        };
        let ran = self.master().is_ok();
        let knows = child.placed(&self.group, files, None).await;
        match knows.map_err(NotLoaded::RejectedValue)? {
            Knows::ReadThem if !ran => {
                let master = self.serving(child.name()).await.map_err(NotLoaded::NobodyThere)?;
                Ok(Some(live(Some(master.id()))))
            }
            _ => Ok(None),
        }
    }

    /// Waits until the program that was started has become an nginx that serves, or has started
    /// one.
    async fn serving(&self, name: &str) -> Result<NginxMaster, String> {
        let until = Instant::now() + self.deadline;
        loop {
            match self.master() {
                Ok(master) if master.serves() => return Ok(master),
                Err(error) if Instant::now() >= until => {
                    return Err(format!("{name} was started, but is not an nginx yet: {error}"));
                }
                Ok(_) if Instant::now() >= until => {
                    return Err(format!("{name} was started, but no worker of its nginx serves"));
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn load(&self, files: Option<Digest>) -> Result<ProvenLoad, NotLoaded> {
        if let Some(live) = self.start(files).await? {
            return Ok(live);
        }
        let master = match self.master() {
            Ok(master) => master,
            Err(error) if self.child.is_none() => {
                return Err(NotLoaded::NobodyThere(error.to_string()));
            }
            Err(error) => return Err(NotLoaded::Unproven(error.to_string())),
        };
        match self.nginx.reload(&master, self.deadline).await {
            Ok(ProvenReload { old, .. }) => {
                let master = self.child.is_none().then(|| master.id());
                Ok(ProvenLoad { old: Old::Processes(old), master })
            }
            Err(error @ NginxReloadError::RejectedValue(_)) => {
                Err(NotLoaded::RejectedValue(error.to_string()))
            }
            // Even without a proof in time, the new configuration may still become active.
            Err(error @ (NginxReloadError::NoWorkers(_) | NginxReloadError::TimedOut { .. })) => {
                Err(NotLoaded::Broken(error.to_string()))
            }
            Err(error) => Err(NotLoaded::Unproven(error.to_string())),
        }
    }
}
