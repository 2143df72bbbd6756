//! `confsync run`: puts store, sets, member key, child and surface together, and
//! takes them apart in order.

mod early;
mod end;
mod instance;
mod join;
mod locks;
mod name;
mod nothing_found;
pub mod once;
mod reload;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::claim::KeyStatus;
use common::handshake::{Bookkeeping, Consumes, is_bookkeeping, may_be_bookkeeping};
use common::model::format_span;
use common::registrar;
use common::runtime::{
    Exit, Gate, Heartbeat, Liveness, Reminder, ServiceManager, Signals, orphans,
};
use common::startup::wait_for_etcd;
use common::store::Etcd;
use common::tls::follow_expiry;
use common::watch::{self, Ignored, Options, Start};
use rustix::process::Signal;
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at, sleep_until};
use tokio_util::sync::CancellationToken;

pub(crate) use early::explain;
use early::{EndedEarly, end_start, start_without_etcd, wait_for_confdir};
use instance::Instance;
use join::consumed_by;
use locks::{HANDED_OVER, lock_dests};
use name::NameOwner;
use nothing_found::say_where_keys_are;
use waiting::{NewGroup, WaitingGroup};

use crate::acks::members::LoadBalancerKeys;
use crate::acks::pace::paced;
use crate::agent::{Agent, Parts};
use crate::apply::LoadLimits;
use crate::apply::pipeline::Pipeline;
use crate::backends::known::KnownBackends;
use crate::config::load::load;
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::config::run::RunConfig;
use crate::install::Target;
use crate::proxy::Proxy;
use crate::proxy::child::Child;
use crate::proxy::driver::Driver;
use crate::proxy::nginx::Argv;
use crate::status::state::{GroupState, States};
use crate::status::traffic::{Monitored, TrafficMonitor};
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
    let child = (!config.command.is_empty()).then(|| Child::new(config.command.clone()));
    tokio::spawn(async {
        if let Err(error) = orphans::reap_as_init().await {
            tracing::warn!(%error, "orphans are not reaped");
        }
    });
    let (by, patience) = (child.clone(), config.stop_timeout);
    match Daemon::start(config, signals, manager, child).await {
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
    _instance: Instance,
    name_owner: channel::Receiver<NameOwner>,
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
    waiting: Vec<WaitingGroup>,
    states: channel::Sender<States>,
    about: channel::Sender<About>,
    liveness: Liveness,
    traffic: TrafficMonitor,
    heartbeat: Heartbeat,
    ready: bool,
    /// Cancelled when the service manager was told that we are ready.
    started: CancellationToken,
    /// What the member key is to name once the files of the new confdir are live.
    then_consumed: Option<Vec<Consumes>>,
    /// What is wrong with the confdir, if that was said at an earlier pass.
    unusable: Option<String>,
}

struct RunningGroup {
    set: ReloadGroup,
    agent: JoinHandle<BTreeMap<String, KnownBackends>>,
    stop: CancellationToken,
    again: Arc<Notify>,
    state: channel::Receiver<GroupState>,
    /// Its traffic is read for whoever watches.
    _monitored: Option<Monitored>,
}

impl Daemon {
    async fn start(
        mut config: RunConfig,
        signals: Signals,
        manager: ServiceManager,
        child: Option<Child>,
    ) -> anyhow::Result<Self> {
        let argv = Argv::read(&config.command);
        let (states, published) = channel::channel(States::new());
        let (about, told) =
            channel::channel(About::new(config.name.clone(), config.confdir.clone()));
        let (liveness, page_clients) = (Liveness::default(), PageClients::default());
        let traffic = TrafficMonitor::default();
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
                traffic: traffic.clone(),
            };
            status::serve(server, sources, signals.abort.clone())?;
        }
        let started = CancellationToken::new();
        tokio::spawn(end_start(manager.clone(), config.start_within, started.clone()));
        let loaded = match load(&config.confdir, &config.globals) {
            Ok(loaded) => loaded,
            Err(error) => {
                let kept = child.as_ref().zip(argv.as_ref());
                wait_for_confdir(&config, &manager, &signals, kept, error).await?
            }
        };
        loaded.say_notes();
        if config.name.is_empty() {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            config.name = name::default_name(&host, &loaded.sets);
            about.send_modify(|about| about.name.clone_from(&config.name));
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
        let dests = loaded.sets.iter().flat_map(|set| &set.programs);
        let instance = Instance::begin(dests.map(|program| &*program.resource.dest));
        let (name, id, ended) = (config.name.clone(), instance.id.clone(), instance.ended.clone());
        let members = LoadBalancerKeys::new(name, id, ended, bookkeeping);
        page_clients.follow(store.clone(), members.bookkeeping().clone(), signals.abort.clone());
        let tree = members.bookkeeping().members();
        let wants = paced(members.wants(), store.clone(), tree);
        let (report, registrar) =
            registrar::start(store.clone(), config.ttl, wants, CancellationToken::new());
        let (owner, name_owner) = channel::channel(NameOwner::default());
        tokio::spawn(name::keep(members.clone(), report.clone(), owner));
        let mut daemon = Self {
            _instance: instance,
            name_owner,
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
            waiting: Vec::new(),
            states,
            about,
            heartbeat: liveness.heartbeat("the main loop", CHORE),
            liveness,
            traffic,
            ready: false,
            started,
            then_consumed: None,
            unusable: None,
        };
        let joined = daemon.join(consumed_by(&loaded.sets)).await;
        daemon.expect(&loaded.sets).await;
        for set in loaded.sets {
            let new = NewGroup::of(set);
            // Without a program of ours that serves, the service manager tries again.
            match daemon.child {
                Some(_) => daemon.begin_or_wait(new, &joined).await,
                None => daemon.begin(new, &joined, HANDED_OVER).await?,
            }
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
        new: NewGroup,
        joined: &Gate,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let NewGroup { set, known_backends, before } = new;
        let proxy = Proxy::of(&set, self.child.as_ref(), self.argv.as_ref()).await?;
        let targets: Vec<Target> = set.programs.iter().map(CompiledResource::target).collect();
        let locks = lock_dests(&targets, patience).await?;
        let limits = LoadLimits { min_interval: set.min_reload_interval(), splay: set.splay() };
        let driver = Driver::of(&set, &proxy);
        let monitored = self.traffic.of(&set.name, driver.traffic_reader());
        let pipeline = Pipeline::new(set.name.clone(), proxy, targets, locks, limits)?;
        let mut pipeline = pipeline.with_driver(driver);
        // A group that was here before goes on counting.
        if let Some(ended) = self.about.borrow().ended.get(&set.name).cloned() {
            pipeline = pipeline.counting_on(ended.counts, ended.load_seconds);
        }
        let stop = CancellationToken::new();
        let reason = "nothing is read before this load balancer is registered";
        let start = Some(Start { gate: joined.clone(), reason });
        let ignored = Some(Ignored {
            tree: self.config.bookkeeping.clone().into(),
            entry: is_bookkeeping,
            may_be: may_be_bookkeeping,
        });
        let resync = self.config.reconcile;
        let options = Options { resync, start, ignored, ..Options::default() };
        let view = watch::follow(self.store.clone(), set.trees(), options, stop.clone());
        self.look_elsewhere(&set, view.clone());
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
        self.running.push(RunningGroup { set, agent, stop, again, state, _monitored: monitored });
        Ok(())
    }

    /// Where nothing is found at the start, it is looked where else the keys may be.
    fn look_elsewhere(&self, set: &ReloadGroup, mut view: channel::Receiver<watch::View>) {
        let (name, trees) = (set.name.clone(), set.trees());
        let (connection, store) = (self.config.connection.clone(), self.store.clone());
        tokio::spawn(async move {
            let first = view.wait_for(|view| view.snapshot.is_some()).await;
            let empty = first.is_ok_and(|view| {
                view.snapshot.as_ref().is_some_and(|snapshot| snapshot.entries.is_empty())
            });
            if empty {
                say_where_keys_are(&connection, &store, &trees, &name).await;
            }
        });
    }

    async fn work(mut self) -> anyhow::Result<Exit> {
        let mut hangups = self.signals.hangups.clone();
        let drain = self.signals.drain.clone();
        let every = self.manager.watchdog_interval().unwrap_or(Duration::from_secs(10));
        let mut beat = tokio::time::interval(every.min(Duration::from_secs(10)));
        let pass = self.config.reconcile;
        let mut passes = interval_at(Instant::now() + pass, pass);
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
            let begin = next_begin(self.next_begin());
            let changed = any_changed(&mut self.running);
            tokio::select! {
                () = drain.cancelled() => return Ok(self.end(None).await),
                code = left => return Ok(self.end(Some(code)).await),
                () = changed => {}
                () = report_changed(&mut self.report) => {}
                Ok(()) = self.name_owner.changed() => {}
                Ok(()) = hangups.changed() => self.reload().await,
                _ = beat.tick() => self.watchdog(),
                () = begin => self.begin_again().await,
                _ = passes.tick(), if self.config.reread => self.reread().await,
            }
        }
    }

    /// One stuck agent is as bad as a stuck process: then the service manager is no
    /// longer told that all is well.
    fn watchdog(&self) {
        let late = self.liveness.late(Instant::now());
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
        let owner = self.name_owner.borrow_and_update().clone();
        let key = self.members.key().ok();
        let standing = key.and_then(|key| report.keys.get(&key));
        let joined = matches!(standing, Some(KeyStatus::Owned { .. }));
        let rival = if let NameOwner::Rival(why) = owner { Some(why) } else { None };
        let etcd = status::EtcdUse {
            api: self.store.api(),
            endpoint: self.store.endpoint(),
            requests: report.requests,
            failures: report.failures,
        };
        self.about.send_if_modified(|about| {
            // The counters alone wake nobody.
            let changed = about.joined != joined || about.rival != rival;
            (about.joined, about.rival, about.etcd) = (joined, rival, etcd);
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
            .chain(self.waiting.iter().map(|w| (w.new.set.name.clone(), w.state())))
            .collect();
        let rival = self.about.borrow().rival.clone();
        let words = states.values().map(GroupState::words);
        let words: Vec<String> = words.chain(rival.clone()).collect();
        self.manager.status(&words.join(" | "));
        if !self.ready && rival.is_none() && states.values().all(|state| state.live.is_some()) {
            self.ready = true;
            self.started.cancel();
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

async fn next_begin(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
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
