//! nginx, loaded by confsync itself: checked, started or signalled, and observed.

use std::time::Duration;

use tokio::time::Instant;

use super::child::{Child, FilesRead, StartOutcome};
use super::command::CommandError;
use super::nginx::{
    Nginx, NginxArgv, NginxCheckError, NginxMaster, NginxMasterError, NginxReloadError,
    NginxSettings, old_generations,
};
use super::process::PollInterval;
use super::{NotLoaded, NotPassed, Old, ProvenLoad, Warning};
use crate::config::confdir::NginxOptions;
use crate::install::{Digest, Proof, StagedFiles, StagedPaths};

/// nginx, checked, signalled and observed by confsync.
#[derive(Debug)]
pub struct NginxByName {
    group: String,
    nginx: Nginx,
    /// The supervised program, if it is this nginx.
    child: Option<Child>,
    /// The supervised program, if it may be this nginx: its command line does not show that.
    unknown: Option<Child>,
    deadline: Duration,
    /// With more old generations than this, the next reload waits.
    max_old_generations: usize,
}

impl NginxByName {
    /// The nginx of a reload group. With `argv`, the child is this nginx.
    pub(super) async fn of(
        group: &str,
        options: &NginxOptions,
        child: Option<&Child>,
        argv: Option<&NginxArgv>,
    ) -> Result<Self, CommandError> {
        let settings = NginxSettings {
            binary: options.binary.clone(),
            conf: Some(options.conf.clone()),
            pid_file: options.pid_file.clone(),
            ..NginxSettings::default()
        };
        let nginx = Nginx::discover(match argv {
            Some(argv) => settings.with_argv(argv),
            None => settings,
        });
        Ok(Self {
            group: group.to_owned(),
            nginx: nginx.await?,
            child: child.filter(|_| argv.is_some()).cloned(),
            unknown: child.filter(|_| argv.is_none()).cloned(),
            deadline: options.deadline,
            max_old_generations: options.max_old_generations,
        })
    }

    pub(super) fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    pub(super) fn is_child(&self) -> bool {
        self.child.is_some() || self.unknown.is_some()
    }

    pub(super) fn is_running(&self) -> bool {
        self.master().is_ok()
    }

    /// The number of old generations, if they are so many that a reload should wait.
    pub(super) fn crowded(&self) -> Option<usize> {
        let old = old_generations(&self.master().ok()?.workers(&[]).ok()?);
        (old > self.max_old_generations).then_some(old)
    }

    pub(super) async fn check(&self, staged: &StagedFiles) -> Result<Proof, NotPassed> {
        for warning in self.check_candidates(staged.paths()).await? {
            tracing::warn!("{warning}");
        }
        Ok(Proof::passed(staged))
    }

    /// The warnings about files that pass.
    pub(super) async fn check_candidates(
        &self,
        candidates: Vec<StagedPaths>,
    ) -> Result<Vec<Warning>, NotPassed> {
        // nginx has nothing against it, and a start would be waited for in vain.
        if let Some(why) = self.nginx.without_master() {
            return Err(NotPassed::Unknown(why));
        }
        if let Err(error) = std::fs::metadata(self.nginx.conf()) {
            let conf = self.nginx.conf().display();
            return Err(NotPassed::Unknown(format!(
                "nginx cannot be asked: its main file {conf} cannot be read: {error}; correct \
                 [nginx] conf, or put the file there"
            )));
        }
        match self.nginx.check_paths(candidates).await {
            Ok(warnings) => Ok(warnings),
            Err(NginxCheckError::Rejected(why)) => Err(NotPassed::Rejected(why)),
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
        if let Some(child) = self.child.as_ref().filter(|child| child.is_to_start()) {
            return match child.start(Some(self.nginx.clone()), self.deadline).await {
                Ok(StartOutcome::Started) => Ok(Some(live(None))),
                Ok(StartOutcome::AlreadyRunning) => Ok(None),
                Err(why) => Err(NotLoaded::Rejected(why)),
            };
        }
        let Some(child) = self.unknown.as_ref().filter(|child| child.is_to_start()) else {
            return Ok(None);
        };
        let ran = self.master().is_ok();
        let read = child.placed(&self.group, files, None).await;
        match read.map_err(NotLoaded::Rejected)? {
            FilesRead::These if !ran => {
                let master = self.serving(child.name()).await.map_err(NotLoaded::Deferred)?;
                Ok(Some(live(Some(master.id()))))
            }
            _ => Ok(None),
        }
    }

    /// Waits until the program that was started has become an nginx that serves, or has started
    /// one.
    async fn serving(&self, name: &str) -> Result<NginxMaster, String> {
        let until = Instant::now() + self.deadline;
        let mut pace = PollInterval::new();
        loop {
            match self.master() {
                Ok(master) if master.serves() => return Ok(master),
                Err(error) if Instant::now() >= until => {
                    return Err(format!("{name} was started, but is not an nginx yet: {error}"));
                }
                Ok(_) if Instant::now() >= until => {
                    return Err(format!("{name} was started, but no worker of its nginx serves"));
                }
                _ => pace.wait().await,
            }
        }
    }

    pub(super) async fn load(&self, files: Option<Digest>) -> Result<ProvenLoad, NotLoaded> {
        if let Some(live) = self.start(files).await? {
            return Ok(live);
        }
        let master = match self.master() {
            Ok(master) => master,
            Err(error) if self.child.is_none() => {
                return Err(NotLoaded::Deferred(error.to_string()));
            }
            Err(error) => return Err(NotLoaded::Unproven(error.to_string())),
        };
        match self.nginx.reload(&master, self.deadline).await {
            Ok(old) => {
                let master = self.child.is_none().then(|| master.id());
                Ok(ProvenLoad { old: Old::Processes(old), master })
            }
            Err(error @ NginxReloadError::Rejected(_)) => {
                Err(NotLoaded::Rejected(error.to_string()))
            }
            // Even without a proof in time, the new configuration may still become active.
            Err(error @ (NginxReloadError::NoWorkers(_) | NginxReloadError::TimedOut { .. })) => {
                Err(NotLoaded::Broken(error.to_string()))
            }
            Err(error) => Err(NotLoaded::Unproven(error.to_string())),
        }
    }
}
