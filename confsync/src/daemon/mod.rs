//! `confsync run`: puts store, reload groups, member key, child and status together, and takes
//! them apart in order.
//!
//! ```text
//! Registration ─joined─► ReloadGroups ─states─► ProcessPublication ─► service manager, status page
//!      ▲                      │                        │
//!      └── all quiesced ──────┴──────── Daemon ◄───────┘     signals, child, confdir
//! ```

mod early;
mod end;
mod groups;
mod instance;
mod locks;
mod name;
mod nothing_found;
pub mod once;
mod publication;
mod registration;
mod reload;
mod startup;

use std::time::Duration;

use common::handshake::{Bookkeeping, Consumes};
use common::model::format_span;
use common::runtime::{Exit, Heartbeat, Liveness, ServedStatus, Signals, orphans};
use common::store::Etcd;
use rustix::process::Signal;
use tokio::time::{Instant, interval_at, sleep_until};

pub(crate) use early::explain;
use early::{EarlyChild, EndedEarly, exited};
use groups::{GroupEnvironment, ReloadGroups};
use instance::Instance;
use locks::is_held;
use publication::{ProcessPublication, is_all_quiesced};
use registration::{Registration, consumed_by, introduction};
use startup::Startup;

use crate::config::load::Loaded;
use crate::config::run::RunConfig;
use crate::proxy::child::Child;
use crate::proxy::nginx::NginxArgv;

/// The longest round of the main loop, a new confdir or the end included: agents finish their
/// steps.
const CHORE: Duration = Duration::from_secs(330);

/// Runs until a signal, or until the child ends.
///
/// # Errors
/// When the confdir is bad at the start, or etcd refuses us.
pub async fn run(config: RunConfig, signals: Signals) -> anyhow::Result<Exit> {
    let child = (!config.command.is_empty()).then(|| Child::new(config.command.clone()));
    tokio::spawn(async {
        if let Err(error) = orphans::reap_as_init().await {
            tracing::warn!(%error, "cannot reap orphaned processes");
        }
    });
    let (by, patience) = (child.clone(), config.stop_timeout);
    match Daemon::start(config, signals, child).await {
        Ok(daemon) => daemon.work().await,
        Err(error) => {
            if let Some(child) = by.filter(|_| error.is::<EndedEarly>()) {
                let signal = if child.runs_nginx() { Signal::QUIT } else { Signal::TERM };
                child.stop(signal, patience).await;
            }
            Err(error)
        }
    }
}

struct Daemon {
    /// Locked for life.
    _instance: Instance,
    _served: Option<ServedStatus>,
    config: RunConfig,
    signals: Signals,
    child: Option<Child>,
    groups: ReloadGroups,
    registration: Registration,
    publication: ProcessPublication,
    liveness: Liveness,
    heartbeat: Heartbeat,
    /// What is wrong with the confdir, if that was logged at an earlier pass.
    confdir_error: Option<String>,
}

impl Daemon {
    async fn start(
        mut config: RunConfig,
        signals: Signals,
        child: Option<Child>,
    ) -> anyhow::Result<Self> {
        let startup = Startup::begin(&config, &signals)?;
        let early = EarlyChild { child: child.as_ref(), argv: NginxArgv::read(&config.command) };
        let loaded = startup.load(&config, &signals, &early).await?;
        if config.name.is_empty() {
            config.name = name::default_name(&loaded.sets);
            startup.publication.about.send_modify(|about| about.name.clone_from(&config.name));
        }
        let store = startup.reach_etcd(&config, &signals, &early, &loaded).await?;
        let argv = early.argv;
        let mut daemon = Self::assemble(startup, store, config, signals, child, argv, &loaded)?;
        daemon.begin(loaded).await?;
        Ok(daemon)
    }

    fn assemble(
        startup: Startup,
        store: Etcd,
        config: RunConfig,
        signals: Signals,
        child: Option<Child>,
        argv: Option<NginxArgv>,
        loaded: &Loaded,
    ) -> anyhow::Result<Self> {
        let Startup { publication, liveness, page_clients, traffic, served } = startup;
        let instance = Instance::begin(loaded.dests());
        let bookkeeping = Bookkeeping::below(&config.bookkeeping)?;
        let members = instance.load_balancer_keys(&config.name, &bookkeeping);
        page_clients.follow(store.clone(), bookkeeping, signals.abort.clone());
        let groups = ReloadGroups::new(GroupEnvironment {
            child: child.clone(),
            argv,
            store: store.clone(),
            connection: config.connection.clone(),
            members: members.clone(),
            bookkeeping: config.bookkeeping.clone(),
            resync: config.reconcile,
            liveness: liveness.clone(),
            about: publication.about.clone(),
            traffic,
        });
        let (api, introduction) = (store.api(), introduction(&config));
        Ok(Self {
            _instance: instance,
            _served: served,
            registration: Registration::start((store, api), members, config.ttl, introduction),
            config,
            signals,
            child,
            groups,
            publication,
            heartbeat: liveness.heartbeat("the main loop", CHORE),
            liveness,
            confdir_error: None,
        })
    }

    async fn begin(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let consumed: Vec<Consumes> = loaded.sets.iter().flat_map(consumed_by).collect();
        let joined = self.registration.join(consumed).await;
        self.groups.expect(&loaded.sets).await;
        let begun = self.groups.begin_all(loaded.sets, &joined).await;
        if begun.as_ref().is_err_and(is_held) {
            // The process that writes the files has a member key of its own.
            self.registration.withdraw().await;
        }
        begun
    }

    async fn work(mut self) -> anyhow::Result<Exit> {
        let mut hangups = self.signals.hangups.clone();
        let drain = self.signals.drain.clone();
        let every = self.publication.manager.watchdog_interval().unwrap_or(Duration::from_secs(10));
        let mut beat = tokio::time::interval(every.min(Duration::from_secs(10)));
        let pass = self.config.reconcile;
        let mut passes = interval_at(Instant::now() + pass, pass);
        loop {
            self.heartbeat.beat(CHORE);
            self.publish();
            let child = self.child.clone();
            let begin = sleep_until_some(self.groups.next_begin());
            tokio::select! {
                () = drain.cancelled() => return Ok(self.end(None).await),
                code = exited(child.as_ref()) => return Ok(self.end(Some(code)).await),
                () = self.groups.changed() => {}
                () = self.registration.changed() => {}
                Ok(()) = hangups.changed() => self.reload().await,
                _ = beat.tick() => self.watchdog(),
                () = begin => self.groups.begin_again().await,
                _ = passes.tick(), if self.config.reread => self.reread().await,
            }
        }
    }

    fn publish(&mut self) {
        let states = self.groups.states();
        if is_all_quiesced(&states) {
            self.registration.all_quiesced();
        }
        self.publication.publish(states, self.registration.status());
    }

    /// One stuck agent is as bad as a stuck process: then no
    /// WATCHDOG=1 is sent.
    fn watchdog(&self) {
        let late = self.liveness.late(Instant::now());
        if late.is_empty() {
            self.publication.manager.watchdog();
        }
        for late in late {
            tracing::error!(overdue = %format_span(late.by), "{} is stuck", late.name);
        }
    }
}

async fn sleep_until_some(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
