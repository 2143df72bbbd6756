//! A program that confsync controls by the operator's commands alone.

use std::collections::BTreeSet;
use std::time::Duration;

use super::child::{Child, FilesRead};
use super::command::{Command, CommandError};
use super::nginx::Nginx;
use super::{NotLoaded, NotPassed, Old};
use crate::config::confdir::{self, Resource};
use crate::config::reload_group::ReloadGroup;
use crate::config::substitute::{check_line, names_src, substitute};
use crate::install::{Digest, Proof, StagedFiles};

/// The timeout of a command that may be for a program which has not been started yet.
const BEFORE_START: Duration = Duration::from_secs(5);

/// The commands, and how long after success old requests count as done.
#[derive(Debug)]
pub struct ByCommand {
    group: String,
    /// The supervised program, which may be what the commands are for.
    child: Option<Child>,
    /// The nginx that it is, if it is one.
    nginx: Option<Nginx>,
    checks: Vec<CheckCommand>,
    reloads: Vec<confdir::ShellCommand>,
    verifies: Vec<confdir::ShellCommand>,
    quiesces: Vec<confdir::ShellCommand>,
    /// The longest that any resource of the set asks for.
    pub quiesce_after: Duration,
}

#[derive(Debug)]
struct CheckCommand {
    dest: std::path::PathBuf,
    command: confdir::ShellCommand,
    /// Whether it checks the candidate; else it checks what is in place.
    names_src: bool,
}

impl ByCommand {
    pub(super) fn of(set: &ReloadGroup, child: Option<Child>, nginx: Option<Nginx>) -> Self {
        let resources = || set.programs.iter().map(|program| &program.resource);
        // After the swap, the candidate is dest itself. Identical lines run once.
        let once = |pick: fn(&Resource) -> &Option<confdir::ShellCommand>| {
            let line = |resource: &Resource| {
                let command = pick(resource).clone()?;
                let text = substitute(&command.text, &resource.target.dest, &resource.target.dest);
                Some(confdir::ShellCommand { text, ..command })
            };
            let all: BTreeSet<_> = resources().filter_map(line).collect();
            all.into_iter().collect()
        };
        let check = |resource: &Resource| {
            let command = resource.check.clone()?;
            let names_src = names_src(&command.text);
            Some(CheckCommand { dest: resource.target.dest.clone(), command, names_src })
        };
        Self {
            group: set.name.clone(),
            child,
            nginx,
            checks: resources().filter_map(check).collect(),
            reloads: once(|resource| &resource.reload),
            verifies: once(|resource| &resource.verify),
            quiesces: once(|resource| &resource.quiesce),
            quiesce_after: resources().map(|r| r.quiesce_after).max().unwrap_or_default(),
        }
    }

    pub(super) async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        for check in self.checks.iter().filter(|check| check.names_src) {
            let Some(file) = staged.files().iter().find(|file| file.dest() == check.dest) else {
                continue;
            };
            let line = check_line(&check.command.text, file.path(), file.dest())
                .map_err(|error| NotPassed::Rejected(format!("check_cmd: {error}")))?;
            match Command::shell(&line, check.command.timeout).run().await {
                Ok(_) => {}
                Err(error @ CommandError::Failed { .. }) => {
                    return Err(NotPassed::Rejected(format!("check_cmd: {error}")));
                }
                Err(error) => return Err(NotPassed::Unknown(format!("check_cmd: {error}"))),
            }
        }
        // Checks that do not name the candidate are run after the swap.
        Proof::passed_by_commands(staged).map_err(|error| NotPassed::Rejected(error.to_string()))
    }

    pub(super) async fn check_installed(&self) -> Result<(), String> {
        for check in self.checks.iter().filter(|check| !check.names_src) {
            let line = check_line(&check.command.text, &check.dest, &check.dest)
                .map_err(|error| format!("check_cmd: {error}"))?;
            let run = Command::shell(&line, check.command.timeout).run().await;
            run.map_err(|error| format!("check_cmd: {error}"))?;
        }
        Ok(())
    }

    /// Whether the program that loads the files runs, as far as that is known.
    pub(super) fn is_running(&self) -> bool {
        !self.child.as_ref().is_some_and(|child| child.is_to_start())
    }

    pub(super) fn is_assumed(&self) -> bool {
        self.quiesces.is_empty()
    }

    /// A reload command must not prevent the start of a program that confsync has yet to start: the
    /// command may be for it. `files` are those in place.
    pub(super) async fn load(&self, files: Option<Digest>) -> Result<Old, NotLoaded> {
        let waiting = self.child.as_ref().filter(|child| child.is_to_start());
        let loaded = self.run_all(waiting.map(|_| BEFORE_START)).await;
        if let Some(child) = &self.child
            && (waiting.is_some() || self.reloads.is_empty())
        {
            let (group, nginx) = (&self.group, self.nginx.clone());
            let read = child.placed(group, files, nginx).await.map_err(NotLoaded::Rejected)?;
            self.judge(child, read, loaded.as_ref().err())?;
        }
        loaded.map_err(NotLoaded::Unproven)?;
        Ok(match self.quiesces.is_empty() {
            true => Old::For(self.quiesce_after),
            false => Old::Ask(self.quiesces.iter().map(|quiesce| shell(quiesce, None)).collect()),
        })
    }

    /// What the commands have done, beside what the child has read at its start.
    fn judge(
        &self,
        child: &Child,
        read: FilesRead,
        error: Option<&String>,
    ) -> Result<(), NotLoaded> {
        let name = child.name();
        let no_command = self.reloads.is_empty() && self.verifies.is_empty();
        let why = match (read, error) {
            (FilesRead::NotStarted, Some(error)) => return Err(NotLoaded::Unproven(error.clone())),
            (FilesRead::NotStarted, None) if no_command => {
                format!("{name} is started when all files are in place")
            }
            (FilesRead::These | FilesRead::Others, Some(error)) => {
                format!("{error}; {name} was started meanwhile, and the command is run again")
            }
            (FilesRead::Others, None) if no_command => format!(
                "no command reloads {name}; set a reload_cmd (`true` if it reads the file \
                 by itself), or an [nginx] table if it is an nginx"
            ),
            (_, None) => return Ok(()),
        };
        Err(NotLoaded::Deferred(why))
    }

    async fn run_all(&self, most: Option<Duration>) -> Result<(), String> {
        for (name, commands) in [("reload_cmd", &self.reloads), ("verify_cmd", &self.verifies)] {
            for command in commands {
                let run = shell(command, most).run().await;
                run.map_err(|error| format!("{name}: {error}"))?;
            }
        }
        Ok(())
    }
}

fn shell(command: &confdir::ShellCommand, most: Option<Duration>) -> Command {
    let deadline = most.map_or(command.timeout, |most| most.min(command.timeout));
    Command::shell(&command.text, deadline)
}
