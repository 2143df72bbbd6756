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

use std::time::Duration;

use common::handshake::{Bookkeeping, Consumes};
use common::model::format_span;
use common::runtime::{
    Exit, Gate, Heartbeat, Liveness, Reminder, ServiceManager, Signals, orphans,
};
use common::startup::wait_for_etcd;
use common::tls::follow_expiry;
use rustix::process::Signal;
use tokio::sync::watch as channel;
use tokio::time::{Instant, interval_at, sleep_until};

pub(crate) use early::explain;
use early::{EndedEarly, end_start, start_without_etcd, wait_for_confdir};
use groups::{GroupEnvironment, ReloadGroups};
use instance::Instance;
use publication::{ProcessPublication, is_all_quiesced};
use registration::{Registration, consumed_by};

use crate::acks::members::LoadBalancerKeys;
use crate::config::load::{Loaded, load};
use crate::config::run::RunConfig;
use crate::proxy::child::Child;
use crate::proxy::nginx::Argv;
use crate::status::state::States;
use crate::status::traffic::TrafficMonitor;
use crate::status::{self, About, PageClients};

/// A round of the main loop, a new confdir or the end included: agents finish what
/// they are at.
const CHORE: Duration = Duration::from_secs(330);

/// Runs until a signal, or until the child ends.
///
/// # Errors
/// When the confdir is bad at the start, or etcd refuses us.
pub async fn run(config: RunConfig, signals: Signals) -> anyhow::Result<Exit> {
    let child = (!config.command.is_empty()).then(|| Child::new(config.command.clone()));
    tokio::spawn(async {
        if let Err(error) = orphans::reap_as_init().await {
            tracing::warn!(%error, "orphans are not reaped");
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

/// What is there before etcd answers.
struct Surroundings {
    publication: ProcessPublication,
    liveness: Liveness,
    page_clients: PageClients,
    traffic: TrafficMonitor,
}

impl Surroundings {
    /// Serves the status page from the first moment on.
    fn start(config: &RunConfig, signals: &Signals) -> anyhow::Result<Self> {
        let manager = ServiceManager::default();
        let (states, published) = channel::channel(States::new());
        let (about, published_about) =
            channel::channel(About::new(config.name.clone(), config.confdir.clone()));
        let (liveness, page_clients) = (Liveness::default(), PageClients::default());
        let traffic = TrafficMonitor::default();
        let certificate = follow_expiry(&config.connection.tls, signals.abort.clone());
        if let Some(server) = config.status.clone() {
            let sources = status::Sources {
                certificate,
                states: published,
                about: published_about,
                liveness: liveness.clone(),
                manager: manager.clone(),
                stopping: signals.drain.clone(),
                page_clients: page_clients.clone(),
                traffic: traffic.clone(),
            };
            status::serve(server, sources, signals.abort.clone())?;
        }
        let (ready, reminder) = (Gate::default(), Reminder::default());
        tokio::spawn(end_start(manager.clone(), config.start_within, ready.clone()));
        let publication = ProcessPublication { manager, states, about, ready, reminder };
        Ok(Self { publication, liveness, page_clients, traffic })
    }
}

impl Daemon {
    async fn start(
        mut config: RunConfig,
        signals: Signals,
        child: Option<Child>,
    ) -> anyhow::Result<Self> {
        let Surroundings { publication, liveness, page_clients, traffic } =
            Surroundings::start(&config, &signals)?;
        let manager = &publication.manager;
        let argv = Argv::read(&config.command);
        let loaded = match load(&config.confdir, &config.globals) {
            Ok(loaded) => loaded,
            Err(error) => {
                let supervised = child.as_ref().zip(argv.as_ref());
                wait_for_confdir(&config, manager, &signals, supervised, error).await?
            }
        };
        loaded.say_notes();
        if config.name.is_empty() {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            config.name = name::default_name(&host, &loaded.sets);
            publication.about.send_modify(|about| about.name.clone_from(&config.name));
        }
        let early = start_without_etcd(manager, &signals, child.as_ref(), argv.as_ref(), &loaded);
        let store = tokio::select! {
            store = wait_for_etcd(&config.connection, manager, &signals.drain, &liveness) => store,
            error = early => return Err(error),
        };
        let Some(store) = store else { anyhow::bail!(EndedEarly) };
        let dests = loaded.sets.iter().flat_map(|group| &group.programs);
        let instance = Instance::begin(dests.map(|program| &*program.resource.dest));
        let bookkeeping = Bookkeeping::below(&config.bookkeeping)?;
        let (name, id, ended) = (config.name.clone(), instance.id.clone(), instance.ended.clone());
        let members = LoadBalancerKeys::new(name, id, ended, bookkeeping.clone());
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
        let mut daemon = Self {
            _instance: instance,
            registration: Registration::start(store, members, &config),
            config,
            signals,
            child,
            groups,
            publication,
            heartbeat: liveness.heartbeat("the main loop", CHORE),
            liveness,
            confdir_error: None,
        };
        daemon.begin(loaded).await?;
        Ok(daemon)
    }

    async fn begin(&mut self, loaded: Loaded) -> anyhow::Result<()> {
        let consumed: Vec<Consumes> = loaded.sets.iter().flat_map(consumed_by).collect();
        let joined = self.registration.join(consumed).await;
        self.groups.expect(&loaded.sets).await;
        self.groups.begin_all(loaded.sets, &joined).await
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
            let left = async {
                match &child {
                    Some(child) => child.left().await,
                    None => std::future::pending().await,
                }
            };
            let begin = sleep_until_some(self.groups.next_begin());
            tokio::select! {
                () = drain.cancelled() => return Ok(self.end(None).await),
                code = left => return Ok(self.end(Some(code)).await),
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

    /// One stuck agent is as bad as a stuck process: then the service manager is no
    /// longer told that all is well.
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
