//! Before etcd answers, or while the confdir cannot be used: the child is started with the files that are
//! in place.

use std::time::Duration;

use common::runtime::{Exit, ServiceManager, Signals, Usage};

use crate::config::confdir::ConfdirError;
use crate::config::load::{Loaded, load};
use crate::config::reload_group::{Loader, ReloadGroup};
use crate::config::run::RunConfig;
use crate::install::current;
use crate::proxy::Proxy;
use crate::proxy::child::{Child, START};
use crate::proxy::nginx::{Nginx, NginxArgv, NginxSettings};

/// How long etcd may take before we go on without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a confdir that cannot be used is read again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// SIGTERM came before there was anything to shut down.
#[derive(Debug, thiserror::Error)]
#[error("ended before etcd was reached")]
pub(super) struct EndedEarly;

/// The child ended while we were still waiting.
#[derive(Debug, thiserror::Error)]
#[error("the supervised command ended")]
struct ChildLeft(u8);

/// The supervised program, while nothing else of the daemon works.
pub(super) struct EarlyChild<'c> {
    pub(super) child: Option<&'c Child>,
    /// The nginx of its command line.
    pub(super) argv: Option<NginxArgv>,
}

impl EarlyChild<'_> {
    /// etcd is away at the start: with all files in place, the child is started with them.
    /// Resolves only when that went wrong for good.
    pub(super) async fn start_without_etcd(
        &self,
        manager: &ServiceManager,
        signals: &Signals,
        loaded: &Loaded,
    ) -> anyhow::Error {
        let Some(child) = self.child else { return std::future::pending().await };
        if signals.drain.run_until_cancelled(tokio::time::sleep(PATIENCE)).await.is_none() {
            return std::future::pending().await;
        }
        let there =
            |set: &ReloadGroup| set.programs.iter().all(|p| p.resource.target.dest.exists());
        if !loaded.sets.iter().all(there) {
            let name = child.name();
            tracing::info!("no files are in place: waiting for etcd before starting {name}");
            return std::future::pending().await;
        }
        tracing::warn!("etcd is unreachable: starting {} with the files in place", child.name());
        let nginx = match nginx_of(&loaded.sets, self.argv.as_ref()).await {
            Ok(nginx) => nginx,
            Err(error) => return error,
        };
        note_files(child, &loaded.sets).await;
        match child.start(nginx, START).await {
            Ok(_) => manager.status("serving with the files in place; waiting for etcd"),
            Err(why) => return anyhow::anyhow!("cannot start {}: {why}", child.name()),
        }
        let code = child.exited().await;
        anyhow::anyhow!("{} ended with code {code} while etcd was unreachable", child.name())
            .context(ChildLeft(code))
    }

    /// The nginx that can serve while the confdir cannot be used. Without one, a folder that is not
    /// there is a mistake of the command line.
    async fn supervised_nginx(
        &self,
        config: &RunConfig,
        error: &ConfdirError,
    ) -> anyhow::Result<Option<(&Child, Nginx)>> {
        match (self.child, &self.argv) {
            (Some(child), Some(argv)) => {
                Ok(Some((child, Nginx::discover(NginxSettings::default().with_argv(argv)).await?)))
            }
            _ if !config.confdir.join("conf.d").is_dir() => Err(Usage(error.to_string()).into()),
            _ => Ok(None),
        }
    }

    /// The confdir cannot be used at the start: it is read again until it can, because people
    /// correct files. A supervised nginx is started with what is in place meanwhile, as far as it
    /// accepts that.
    pub(super) async fn wait_for_confdir(
        &self,
        config: &RunConfig,
        manager: &ServiceManager,
        signals: &Signals,
        error: ConfdirError,
    ) -> anyhow::Result<Loaded> {
        let supervised = self.supervised_nginx(config, &error).await?;
        let child = supervised.as_ref().map(|(child, _)| *child);
        let mut hangups = signals.hangups.clone();
        let mut logged = String::new();
        let mut error = error.to_string();
        loop {
            if error != logged {
                report_confdir_error(manager, &error);
                logged = error;
            }
            if let Some((child, nginx)) =
                supervised.as_ref().filter(|(child, _)| child.is_to_start())
            {
                start_as_it_is(child, nginx).await?;
            }
            tokio::select! {
                end = ended(child, signals) => return Err(end),
                Ok(()) = hangups.changed() => {}
                () = tokio::time::sleep(READ_AGAIN) => {}
            }
            match load(&config.confdir, &config.globals) {
                Ok(loaded) => {
                    tracing::info!("the confdir is usable again");
                    return Ok(loaded);
                }
                Err(again) => error = again.to_string(),
            }
        }
    }
}

/// The exit code of the child, if there is one.
pub(super) async fn exited(child: Option<&Child>) -> u8 {
    match child {
        Some(child) => child.exited().await,
        None => std::future::pending().await,
    }
}

/// What ends the wait for a usable confdir.
async fn ended(child: Option<&Child>, signals: &Signals) -> anyhow::Error {
    tokio::select! {
        () = signals.drain.cancelled() => EndedEarly.into(),
        code = exited(child) => {
            let why = format!("the supervised command ended with code {code}");
            anyhow::anyhow!(why).context(ChildLeft(code))
        }
    }
}

fn report_confdir_error(manager: &ServiceManager, error: &str) {
    for mistake in error.lines() {
        tracing::error!("the confdir cannot be used; reading it again until it can: {mistake}");
    }
    let first = error.lines().next().unwrap_or_default();
    manager.status(&format!("waiting for a usable confdir: {first}"));
}

/// nginx with the files as they are, unless it would not accept them.
async fn start_as_it_is(child: &Child, nginx: &Nginx) -> anyhow::Result<()> {
    if let Err(error) = nginx.check_current().await {
        tracing::warn!("{} is not started until the confdir can be used: {error}", child.name());
        return Ok(());
    }
    tracing::warn!("starting {} with the files in place", child.name());
    match child.start(Some(nginx.clone()), START).await {
        Ok(_) => Ok(()),
        Err(why) => Err(anyhow::anyhow!("cannot start {}: {why}", child.name())),
    }
}

/// What is in place is what the child reads at its start.
async fn note_files(child: &Child, sets: &[ReloadGroup]) {
    for set in sets {
        let targets = set.targets();
        let files = current(&targets).ok().flatten();
        child.note(&set.name, files).await;
    }
}

pub(super) async fn nginx_of(
    sets: &[ReloadGroup],
    argv: Option<&NginxArgv>,
) -> anyhow::Result<Option<Nginx>> {
    let by_name = |set: &&ReloadGroup| matches!(set.loader, Loader::Nginx(_));
    match (sets.iter().find(by_name), argv) {
        (Some(set), _) => Ok(Proxy::of(set, None, argv).await?.nginx().cloned()),
        (None, Some(argv)) => {
            Ok(Some(Nginx::discover(NginxSettings::default().with_argv(argv)).await?))
        }
        (None, None) => Ok(None),
    }
}

/// What an error of the run means for the exit.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Result<Exit> {
    if error.is::<EndedEarly>() {
        return Ok(Exit::Done);
    }
    if let Some(ChildLeft(code)) = error.downcast_ref() {
        return Ok(Exit::Child(*code));
    }
    Err(error)
}
