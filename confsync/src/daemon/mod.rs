//! `confsync run`: puts store, sets, member key, child and surface together, and
//! takes them apart in order.

mod early;
mod end;
mod join;
pub mod once;
mod reload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::claim::KeyStatus;
use common::handshake::{Bookkeeping, Consumes};
use common::model::format_span;
use common::registrar;
use common::runtime::{Exit, Gate, Heartbeat, Liveness, Reminder, ServiceManager, Signals};
use common::startup::wait_for_etcd;
use common::store::Etcd;
use common::tls::follow_expiry;
use common::watch::{self, Options, Start};
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use early::explain;
use early::{EndedEarly, start_without_etcd};
use join::consumed_by;

use crate::acks::members::LoadBalancerKeys;
use crate::acks::pace::paced;
use crate::agent::{Agent, Parts};
use crate::apply::pipeline::Pipeline;
use crate::backends::known::KnownBackends;
use crate::config::load::{Loaded, load};
use crate::config::reload_group::ReloadGroup;
use crate::config::run::RunConfig;
use crate::proxy::Proxy;
use crate::proxy::child::Child;
use crate::proxy::driver::Driver;
use crate::proxy::nginx::Argv;
use crate::status::state::{GroupState, States};
use crate::status::{self, About, PageClients};

/// A round of the main loop, a new confdir or the end included: agents finish what
/// they are at.
const CHORE: Duration = Duration::from_secs(330);

/// Runs until a signal, or until the child ends.
///
/// # Errors
/// When the confdir is bad at the start, or etcd refuses us.
pub async fn run(config: RunConfig, signals: Signals) -> anyhow::Result<Exit> {
    let manager = ServiceManager::default();
    let loaded = load(&config.confdir, &config.globals)?;
    loaded.say_notes();
    let child = (!config.command.is_empty()).then(|| Child::new(config.command.clone()));
    tokio::spawn(async {
        if let Err(error) = crate::proxy::command::reap_as_init().await {
            tracing::warn!(%error, "orphans are not reaped");
        }
    });
    let daemon = Daemon::start(config, signals, manager, child, loaded).await?;
    daemon.work().await
}

struct Daemon {
    config: RunConfig,
    signals: Signals,
    manager: ServiceManager,
    child: Option<Child>,
    argv: Option<Argv>,
    store: Etcd,
    members: LoadBalancerKeys,
    registrar: JoinHandle<()>,
    report: channel::Receiver<registrar::RegistrarReport>,
    running: Vec<RunningGroup>,
    states: channel::Sender<States>,
    about: channel::Sender<About>,
    liveness: Liveness,
    heartbeat: Heartbeat,
    ready: bool,
    /// What the member key is to name once the files of the new confdir are live.
    then_consumed: Option<Vec<Consumes>>,
}

struct RunningGroup {
    set: ReloadGroup,
    agent: JoinHandle<BTreeMap<String, KnownBackends>>,
    stop: CancellationToken,
    again: Arc<Notify>,
    state: channel::Receiver<GroupState>,
}

impl Daemon {
    async fn start(
        config: RunConfig,
        signals: Signals,
        manager: ServiceManager,
        child: Option<Child>,
        loaded: Loaded,
    ) -> anyhow::Result<Self> {
        let argv = Argv::read(&config.command);
        let (states, published) = channel::channel(States::new());
        let (about, told) =
            channel::channel(About::new(config.name.clone(), config.confdir.clone()));
        let (liveness, page_clients) = (Liveness::default(), PageClients::default());
        let certificate = follow_expiry(&config.connection.tls, signals.abort.clone());
        if let Some(server) = config.status.clone() {
            let sources = status::Sources {
                certificate,
                states: published,
                about: told,
                liveness: liveness.clone(),
                manager: manager.clone(),
                stopping: signals.drain.clone(),
                page_clients: page_clients.clone(),
            };
            status::serve(server, sources, signals.abort.clone())?;
        }
        let early = start_without_etcd(&manager, &signals, child.as_ref(), argv.as_ref(), &loaded);
        let store = tokio::select! {
            store = wait_for_etcd(&config.connection, &manager, &signals.drain, &liveness) => store,
            error = early => return Err(error),
        };
        let store = match store {
            Some(store) => store,
            None => anyhow::bail!(EndedEarly),
        };
        let bookkeeping = Bookkeeping::below(&config.bookkeeping)?;
        let members = LoadBalancerKeys::new(config.name.clone(), instance_id(), bookkeeping);
        page_clients.follow(store.clone(), members.bookkeeping().clone(), signals.abort.clone());
        let wants = paced(members.wants());
        let (report, registrar) =
            registrar::start(store.clone(), config.ttl, wants, CancellationToken::new());
        let mut daemon = Self {
            config,
            signals,
            manager,
            child,
            argv,
            store,
            members,
            registrar,
            report,
            running: Vec::new(),
            states,
            about,
            heartbeat: liveness.heartbeat("the main loop", CHORE),
            liveness,
            ready: false,
            then_consumed: None,
        };
        let joined = daemon.join(consumed_by(&loaded.sets)).await;
        daemon.expect(&loaded.sets).await;
        for set in loaded.sets {
            daemon.begin(set, BTreeMap::new(), None, &joined).await?;
        }
        Ok(daemon)
    }

    /// A child that is not started yet is to find the files of all of them.
    async fn expect(&self, sets: &[ReloadGroup]) {
        if let Some(child) = &self.child {
            child.expect(sets.iter().map(|set| set.name.clone())).await;
        }
    }

    async fn begin(
        &mut self,
        set: ReloadGroup,
        known_backends: BTreeMap<String, KnownBackends>,
        before: Option<GroupState>,
        joined: &Gate,
    ) -> anyhow::Result<()> {
        let proxy = Proxy::of(&set, self.child.as_ref(), self.argv.as_ref()).await?;
        let targets =
            set.programs.iter().map(crate::config::program::CompiledResource::target).collect();
        let driver = Driver::of(&set, &proxy);
        let pipeline = Pipeline::new(set.name.clone(), proxy, targets, set.min_reload_interval())?
            .with_driver(driver);
        let stop = CancellationToken::new();
        let reason = "nothing is read before this load balancer is registered";
        let start = Some(Start { gate: joined.clone(), reason });
        let ignored = Some(self.config.bookkeeping.clone().into());
        let resync = self.config.reconcile;
        let options = Options { resync, start, ignored, ..Options::default() };
        let view = watch::follow(self.store.clone(), set.trees(), options, stop.clone());
        let (publish, state) = channel::channel(GroupState::empty(&set.name));
        let again = Arc::new(Notify::new());
        let parts = Parts {
            set: set.clone(),
            pipeline,
            view,
            store: self.store.clone(),
            bookkeeping: self.members.bookkeeping().clone(),
            members: Some(self.members.clone()),
            publish,
            liveness: self.liveness.clone(),
            again: Arc::clone(&again),
            known_backends,
            before,
        };
        let agent = tokio::spawn(Agent::new(parts).run(stop.clone()));
        self.running.push(RunningGroup { set, agent, stop, again, state });
        Ok(())
    }

    async fn work(mut self) -> anyhow::Result<Exit> {
        let mut hangups = self.signals.hangups.clone();
        let drain = self.signals.drain.clone();
        let every = self.manager.watchdog_interval().unwrap_or(Duration::from_secs(10));
        let mut beat = tokio::time::interval(every.min(Duration::from_secs(10)));
        let mut wait = Reminder::default();
        loop {
            self.heartbeat.beat(CHORE);
            self.tell().await;
            if !self.ready {
                wait.remind(&self.manager.last_status());
            }
            let child = self.child.clone();
            let left = async {
                match &child {
                    Some(child) => child.left().await,
                    None => std::future::pending().await,
                }
            };
            let changed = any_changed(&mut self.running);
            tokio::select! {
                () = drain.cancelled() => return Ok(self.end(None).await),
                code = left => return Ok(self.end(Some(code)).await),
                () = changed => {}
                () = report_changed(&mut self.report) => {}
                Ok(()) = hangups.changed() => self.reload().await,
                _ = beat.tick() => self.watchdog(),
            }
        }
    }

    /// One stuck agent is as bad as a stuck process: then the service manager is no
    /// longer told that all is well.
    fn watchdog(&self) {
        let late = self.liveness.late(tokio::time::Instant::now());
        if late.is_empty() {
            self.manager.watchdog();
        }
        for late in late {
            tracing::error!(overdue = %format_span(late.by), "{} is stuck", late.name);
        }
    }

    /// What is known of the process itself.
    fn tell_about(&mut self) {
        let report = self.report.borrow_and_update().clone();
        let key = self.members.member_as_wanted().map(|(key, _)| key);
        let standing = key.and_then(|key| report.keys.get(&key));
        let joined = matches!(standing, Some(KeyStatus::Owned { .. }));
        let requests = (report.requests, report.failures);
        self.about.send_if_modified(|about| {
            // The counters alone wake nobody.
            let changed = about.joined != joined;
            (about.joined, about.requests) = (joined, requests);
            changed
        });
    }

    /// Publishes what stands; READY=1 when every set was applied once.
    async fn tell(&mut self) {
        self.tell_about();
        let states: States = self
            .running
            .iter_mut()
            .map(|running| (running.set.name.clone(), running.state.borrow_and_update().clone()))
            .collect();
        let words: Vec<String> = states.values().map(GroupState::words).collect();
        self.manager.status(&words.join(" | "));
        if !self.ready && states.values().all(|state| state.live.is_some()) {
            self.ready = true;
            self.manager.ready();
            tracing::info!("ready");
        }
        if states.values().all(|state| state.in_sync && state.quiesced == state.applied)
            && let Some(consumed) = self.then_consumed.take()
        {
            self.members.consume(consumed);
        }
        self.states.send_replace(states);
    }
}

/// Resolves when the registrar tells something new.
async fn report_changed(report: &mut channel::Receiver<registrar::RegistrarReport>) {
    if report.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn any_changed(running: &mut [RunningGroup]) {
    let waits = running.iter_mut().map(|set| Box::pin(set.state.changed()));
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() {
        return std::future::pending().await;
    }
    let (changed, _, _) = futures_util::future::select_all(waits).await;
    if changed.is_err() {
        // An agent is gone; its end is dealt with where it was asked for.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Names this run of the process.
fn instance_id() -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:08x}", now.as_millis(), fastrand::u32(..))
}
