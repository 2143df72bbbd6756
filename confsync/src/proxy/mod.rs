//! How the files of one reload group are checked, loaded and proven active: by nginx, by HAProxy,
//! or by the operator's commands. The pipeline uses this and nothing below it.

mod by_command;
mod by_name;
pub mod child;
pub mod command;
pub mod driver;
pub mod haproxy;
pub mod membership;
pub mod nginx;
pub mod pools;
pub mod process;
pub mod traffic;
mod warning;

use std::path::Path;
use std::time::Duration;

pub use by_command::ByCommand;
pub use by_name::NginxByName;
pub use warning::Warning;

use crate::config::reload_group::{Loader, ReloadGroup};
use crate::install::{Digest, Proof, StagedFiles, StagedPaths};
use crate::proxy::child::Child;
use crate::proxy::command::{Command, CommandError};
use crate::proxy::haproxy::Haproxy;
use crate::proxy::nginx::{Nginx, NginxArgv, NginxSettings, ProcessId};

/// What checks and loads a reload group.
#[derive(Debug)]
pub enum Proxy {
    /// nginx, which confsync knows.
    Nginx(Box<NginxByName>),
    /// HAProxy, which confsync knows.
    Haproxy(Box<Haproxy>),
    /// The operator's commands.
    Commands(Box<ByCommand>),
}

/// Why a candidate was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPassed {
    /// It is invalid; the reason as the proxy or the command reported it.
    Rejected(String),
    /// The check could not be made: worth another try soon.
    Unknown(String),
}

/// Why a load is not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLoaded {
    /// The installed files are rejected: put the previous ones back.
    Rejected(String),
    /// The installed files stopped the service, or may still do so: put the previous files back and
    /// load them at once.
    Broken(String),
    /// It may still succeed: the reload stays pending.
    Unproven(String),
    /// It cannot be loaded now: the program is not running, and reads the files when it is started; or
    /// it is not known how it reads them.
    Deferred(String),
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
        argv: Option<&NginxArgv>,
    ) -> Result<Self, CommandError> {
        match &set.loader {
            Loader::Nginx(options) => {
                let nginx = NginxByName::of(&set.name, options, child, argv).await?;
                Ok(Self::Nginx(Box::new(nginx)))
            }
            Loader::Haproxy(options) => {
                let child = child.filter(|_| argv.is_none()).cloned();
                Ok(Self::Haproxy(Box::new(Haproxy::of(&set.name, options, child))))
            }
            Loader::Command(_) | Loader::None(_) => {
                let nginx = match argv.filter(|_| child.is_some()) {
                    Some(argv) => {
                        Some(Nginx::discover(NginxSettings::default().with_argv(argv)).await?)
                    }
                    None => None,
                };
                Ok(Self::Commands(Box::new(ByCommand::of(set, child.cloned(), nginx))))
            }
        }
    }

    /// The nginx, if it is one.
    pub fn nginx(&self) -> Option<&Nginx> {
        match self {
            Self::Nginx(by_name) => Some(by_name.nginx()),
            Self::Haproxy(_) | Self::Commands(_) => None,
        }
    }

    /// Whether confsync starts the proxy itself.
    pub fn is_child(&self) -> bool {
        matches!(self, Self::Nginx(by_name) if by_name.is_child())
    }

    /// Removes what an earlier run of ours left beside nginx's files.
    pub fn clean_stale(&self) {
        if let Some(Err(error)) = self.nginx().map(Nginx::clean_stale) {
            tracing::warn!(%error, "cannot remove files of an earlier run");
        }
    }

    /// Checks staged files before they replace anything.
    pub async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        match self {
            Self::Nginx(by_name) => by_name.check(staged).await,
            Self::Haproxy(haproxy) => haproxy.check(staged).await,
            Self::Commands(commands) => commands.check(staged).await,
        }
    }

    /// Has the proxy check candidates that lie anywhere, in the places of their dests; its warnings.
    /// Commands are not run for it.
    pub(crate) async fn check_candidates(
        &self,
        candidates: Vec<StagedPaths>,
    ) -> Result<Vec<Warning>, NotPassed> {
        match self {
            Self::Nginx(by_name) => by_name.check_candidates(candidates).await,
            Self::Haproxy(haproxy) => haproxy.check_candidates(&candidates).await,
            Self::Commands(_) => Ok(Vec::new()),
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
    pub fn crowded(&self) -> Option<usize> {
        match self {
            Self::Nginx(by_name) => by_name.crowded(),
            Self::Haproxy(haproxy) => haproxy.crowded(),
            Self::Commands(_) => None,
        }
    }

    /// Whether the program that loads the files runs: `false` only if it is known not to.
    pub fn is_running(&self) -> bool {
        match self {
            Self::Nginx(by_name) => by_name.is_running(),
            Self::Haproxy(haproxy) => haproxy.is_running(),
            Self::Commands(commands) => commands.is_running(),
        }
    }

    /// Why it could not be started by the files in place, as far as that is seen without a check:
    /// its own main file is not there.
    pub fn missing_conf(&self) -> Option<String> {
        match self {
            Self::Nginx(by_name) => unreadable("[nginx] conf", &[by_name.nginx().conf()]),
            Self::Haproxy(haproxy) => {
                let conf: Vec<&Path> = haproxy.conf().collect();
                unreadable("[haproxy] conf", &conf)
            }
            Self::Commands(_) => None,
        }
    }

    /// Whether the end of old requests is concluded from a span of time, not from evidence.
    pub fn is_assumed(&self) -> bool {
        matches!(self, Self::Commands(commands) if commands.is_assumed())
    }
}

fn unreadable(what: &str, files: &[&Path]) -> Option<String> {
    files.iter().find_map(|file| {
        let error = std::fs::metadata(file).err()?;
        Some(format!("{what}: cannot read {}: {error}", file.display()))
    })
}
