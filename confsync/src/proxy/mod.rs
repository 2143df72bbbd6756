//! How the files of one set are checked, loaded and proven: nginx by name, or the
//! operator's commands. The pipeline speaks to this and to nothing below.

pub mod child;
pub mod command;
pub mod driver;
pub mod membership;
pub mod nginx;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::confdir::{self, Resource};
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::config::substitute::{check_line, names_src, substitute};
use crate::install::{Proof, StagedFiles};
use crate::proxy::child::{Begun, Child, Life};
use crate::proxy::command::{Command, CommandError};
use crate::proxy::nginx::{
    Applied, Argv, CheckError, Master, MasterError, Nginx, ProcessId, ReloadError, Settings,
};

/// Who checks and loads a set.
#[derive(Debug)]
pub enum Proxy {
    /// nginx, by name.
    Nginx(Box<ByName>),
    /// The operator's commands.
    Commands(ByCommand),
}

/// nginx, whose check, signal and evidence are ours.
#[derive(Debug)]
pub struct ByName {
    nginx: Nginx,
    child: Option<Child>,
    deadline: Duration,
    /// With more old generations than this, the next reload waits.
    pub max_old_generations: usize,
}

/// Commands, and how long after success old requests are taken to be done.
#[derive(Debug)]
pub struct ByCommand {
    checks: Vec<Check>,
    reloads: Vec<confdir::Command>,
    verifies: Vec<confdir::Command>,
    quiesces: Vec<confdir::Command>,
    /// The longest that any resource of the set asks for.
    pub quiesce_after: Duration,
}

#[derive(Debug)]
struct Check {
    dest: std::path::PathBuf,
    command: confdir::Command,
}

/// Why a candidate was not passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotPassed {
    /// It is bad; the words of who said so.
    RejectedValue(String),
    /// Nobody could say: worth another try soon.
    Unknown(String),
}

/// Why loading is not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLoaded {
    /// What is installed will not do: put the previous files back.
    RejectedValue(String),
    /// What is installed stopped the service, or may do so yet: put the previous
    /// files back and load them at once.
    Broken(String),
    /// It may yet: the reload stays owed.
    Unproven(String),
    /// Nobody is there to load it; whoever starts reads the files anyway.
    NobodyThere(String),
}

/// A load that is proven.
#[derive(Debug)]
pub struct Live {
    /// Who still works by what was live before.
    pub old: Old,
    /// Who runs it, where its end is not ours to hear of otherwise: nginx by its pid
    /// file. When it ends, nothing is live.
    pub master: Option<Arc<Master>>,
}

/// Who still works by what was live before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// These processes, until they are gone.
    Processes(Vec<ProcessId>),
    /// Unknown; taken to be done after this long.
    For(Duration),
    /// Nobody, once these commands have succeeded.
    Ask(Vec<Command>),
}

impl Proxy {
    /// Finds out what loads `set`. With a child, nginx is the child.
    ///
    /// # Errors
    /// When nginx cannot be asked what it is.
    pub async fn of(
        set: &ReloadGroup,
        child: Option<&Child>,
        argv: Option<&Argv>,
    ) -> Result<Self, CommandError> {
        let Loader::Nginx(told) = &set.loader else {
            return Ok(Self::Commands(ByCommand::of(set)));
        };
        let settings = Settings {
            binary: told.binary.clone(),
            conf: Some(told.conf.clone()),
            pid_file: told.pid_file.clone(),
            ..Settings::default()
        };
        let settings = argv.map_or(settings.clone(), |argv| settings.with_argv(argv));
        let nginx = Nginx::discover(settings).await?;
        Ok(Self::Nginx(Box::new(ByName {
            nginx,
            child: child.cloned().filter(|_| argv.is_some()),
            deadline: told.deadline,
            max_old_generations: told.max_old_generations,
        })))
    }

    /// nginx, if it is.
    #[must_use]
    pub fn nginx(&self) -> Option<&Nginx> {
        match self {
            Self::Nginx(by_name) => Some(&by_name.nginx),
            Self::Commands(_) => None,
        }
    }

    /// Removes what an earlier run of ours left beside nginx's files.
    pub fn clean_stale(&self) {
        if let Self::Nginx(by_name) = self
            && let Err(error) = by_name.nginx.clean_stale()
        {
            tracing::warn!(%error, "left-overs of an earlier run stay");
        }
    }

    /// Checks staged files before they replace anything.
    ///
    /// # Errors
    /// [`NotPassed`].
    pub async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        match self {
            Self::Nginx(by_name) => by_name.check(staged).await,
            Self::Commands(commands) => commands.check(staged).await,
        }
    }

    /// Checks that cannot look at a candidate, after the swap.
    ///
    /// # Errors
    /// In the command's words.
    pub async fn check_installed(&self) -> Result<(), String> {
        match self {
            Self::Nginx(_) => Ok(()),
            Self::Commands(commands) => commands.check_installed().await,
        }
    }

    /// Has the installed files loaded, and waits for the proof.
    ///
    /// # Errors
    /// [`NotLoaded`].
    pub async fn load(&self) -> Result<Live, NotLoaded> {
        match self {
            Self::Nginx(by_name) => by_name.load().await,
            Self::Commands(commands) => commands.load().await.map(|old| Live { old, master: None }),
        }
    }

    /// Whether so many old generations are alive that a reload should wait.
    #[must_use]
    pub fn crowded(&self) -> Option<usize> {
        let Self::Nginx(by_name) = self else { return None };
        let workers = by_name.master().ok()?.workers(&[]).ok()?;
        let old = crate::proxy::nginx::old_generations(&workers);
        (old > by_name.max_old_generations).then_some(old)
    }

    /// Whether whoever loads the files runs: `false` only if it is known not to.
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self {
            Self::Nginx(by_name) => by_name.master().is_ok(),
            Self::Commands(_) => true,
        }
    }

    /// Whether what is said of old requests rests on a span of time, not on evidence.
    #[must_use]
    pub fn is_assumed(&self) -> bool {
        matches!(self, Self::Commands(commands) if commands.quiesces.is_empty())
    }

    /// Whether this is nginx as our child, not started yet.
    #[must_use]
    pub fn awaits_start(&self) -> bool {
        match self {
            Self::Nginx(by_name) => {
                by_name.child.as_ref().is_some_and(|child| child.life() == Life::Waiting)
            }
            Self::Commands(_) => false,
        }
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
            Err(CheckError::RejectedValue(words)) => Err(NotPassed::RejectedValue(words)),
            Err(error) => Err(NotPassed::Unknown(error.to_string())),
        }
    }

    fn master(&self) -> Result<Master, MasterError> {
        match self.child.as_ref().and_then(Child::pid) {
            Some(pid) => self.nginx.master_of(pid),
            None => self.nginx.master(),
        }
    }

    async fn load(&self) -> Result<Live, NotLoaded> {
        if let Some(child) = &self.child
            && child.life() == Life::Waiting
        {
            match child.start(Some(self.nginx.clone()), self.deadline).await {
                Ok(Begun::Now) => {
                    return Ok(Live { old: Old::Processes(Vec::new()), master: None });
                }
                Ok(Begun::Before) => {}
                Err(why) => return Err(NotLoaded::RejectedValue(why)),
            }
        }
        let master = match self.master() {
            Ok(master) => master,
            Err(error) if self.child.is_none() => {
                return Err(NotLoaded::NobodyThere(error.to_string()));
            }
            Err(error) => return Err(NotLoaded::Unproven(error.to_string())),
        };
        match self.nginx.reload(&master, self.deadline).await {
            Ok(Applied { old, .. }) => {
                let master = self.child.is_none().then(|| Arc::new(master));
                Ok(Live { old: Old::Processes(old), master })
            }
            Err(error @ ReloadError::RejectedValue(_)) => {
                Err(NotLoaded::RejectedValue(error.to_string()))
            }
            // Without a proof in time the new configuration may still come to life.
            Err(error @ (ReloadError::NoWorkers(_) | ReloadError::TimedOut { .. })) => {
                Err(NotLoaded::Broken(error.to_string()))
            }
            Err(error) => Err(NotLoaded::Unproven(error.to_string())),
        }
    }
}

impl ByCommand {
    fn of(set: &ReloadGroup) -> Self {
        let resources = || set.programs.iter().map(|program| &program.resource);
        // After the swap the candidate is dest itself. The same line runs once.
        let once = |pick: fn(&Resource) -> &Option<confdir::Command>| {
            let line = |resource: &Resource| {
                let command = pick(resource).clone()?;
                let text = substitute(&command.text, &resource.dest, &resource.dest);
                Some(confdir::Command { text, ..command })
            };
            let all: BTreeSet<_> = resources().filter_map(line).collect();
            all.into_iter().collect()
        };
        let check = |resource: &Resource| {
            let command = resource.check.clone()?;
            Some(Check { dest: resource.dest.clone(), command })
        };
        Self {
            checks: resources().filter_map(check).collect(),
            reloads: once(|resource| &resource.reload),
            verifies: once(|resource| &resource.verify),
            quiesces: once(|resource| &resource.quiesce),
            quiesce_after: resources().map(|r| r.quiesce_after).max().unwrap_or_default(),
        }
    }

    async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        for check in self.checks.iter().filter(|check| names_src(&check.command.text)) {
            let Some(file) = staged.files().iter().find(|file| file.dest() == check.dest) else {
                continue;
            };
            let line = check_line(&check.command.text, file.path(), file.dest())
                .map_err(|error| NotPassed::RejectedValue(format!("check_cmd: {error}")))?;
            match Command::shell(&line, check.command.timeout).run().await {
                Ok(_) => {}
                Err(error @ CommandError::RejectedValue { .. }) => {
                    return Err(NotPassed::RejectedValue(format!("check_cmd: {error}")));
                }
                Err(error) => return Err(NotPassed::Unknown(format!("check_cmd: {error}"))),
            }
        }
        // Those that do not look at the candidate are asked after the swap.
        Ok(Proof::nothing_to_ask(staged))
    }

    async fn check_installed(&self) -> Result<(), String> {
        for check in self.checks.iter().filter(|check| !names_src(&check.command.text)) {
            let line = check_line(&check.command.text, &check.dest, &check.dest)
                .map_err(|error| format!("check_cmd: {error}"))?;
            let run = Command::shell(&line, check.command.timeout).run().await;
            run.map_err(|error| format!("check_cmd: {error}"))?;
        }
        Ok(())
    }

    async fn load(&self) -> Result<Old, NotLoaded> {
        let named = [("reload_cmd", &self.reloads), ("verify_cmd", &self.verifies)];
        for (name, commands) in named {
            for command in commands {
                let run = shell(command).run().await;
                run.map_err(|error| NotLoaded::Unproven(format!("{name}: {error}")))?;
            }
        }
        Ok(match self.quiesces.is_empty() {
            true => Old::For(self.quiesce_after),
            false => Old::Ask(self.quiesces.iter().map(shell).collect()),
        })
    }
}

fn shell(command: &confdir::Command) -> Command {
    Command::shell(&command.text, command.timeout)
}
