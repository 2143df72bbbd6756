//! `confsync run`: puts store, sets, member key, child and surface together, and
//! takes them apart in order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use common::claim::Standing;
use common::handshake::{Bookkeeping, Consumes};
use common::model::{Key, Prefix, Ttl, format_span};
use common::reach::reach;
use common::registrar;
use common::runtime::{Exit, Heart, Pulse, Reminder, ServiceManager, Signals};
use common::store::{Connection, Etcd};
use common::watch::{self, Options};
use rustix::process::Signal;
use tokio::sync::{Notify, watch as channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Parts};
use crate::belief::Belief;
use crate::child::{Child, Life};
use crate::confdir::Globals;
use crate::load::{Loaded, load};
use crate::members::Members;
use crate::nginx::Argv;
use crate::pace::paced;
use crate::pipeline::Pipeline;
use crate::proxy::Proxy;
use crate::set::Set;
use crate::state::{SetState, States};
use crate::surface::{self, About, Onlookers};

/// What `run` was told, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// The confdir.
    pub confdir: PathBuf,
    /// What applies to all resources.
    pub globals: Globals,
    /// How etcd is reached.
    pub connection: Connection,
    /// How often everything is read again.
    pub reconcile: Duration,
    /// This load balancer's name.
    pub name: String,
    /// Where clients reach it.
    pub advertise: Option<String>,
    /// Where our own keys are.
    pub bookkeeping: Prefix,
    /// How long the member key outlives its last refresh.
    pub ttl: Ttl,
    /// Where the surface listens.
    pub status: Option<std::net::SocketAddr>,
    /// How long the child may take to end.
    pub stop_timeout: Duration,
    /// The child; empty for none.
    pub command: Vec<OsString>,
}

/// How long the member key may keep the first read waiting, once etcd answers.
const JOIN: Duration = Duration::from_secs(3);
/// How long the member key of an earlier life may take to be taken over.
const TAKEN_OVER: Duration = Duration::from_secs(2);
/// A round of the main loop, a new confdir or the end included: agents finish what
/// they are at.
const CHORE: Duration = Duration::from_secs(330);
/// How long the leave may take at most, and of that the word that it is one.
const LEAVE: Duration = Duration::from_secs(5);
const SAY: Duration = Duration::from_secs(1);

/// Runs until a signal, or until the child ends.
///
/// # Errors
/// When the confdir is bad at the start, or etcd refuses us.
pub async fn run(config: Config, signals: Signals) -> anyhow::Result<Exit> {
    let manager = ServiceManager::default();
    let loaded = load(&config.confdir, &config.globals)?;
    loaded.say_notes();
    let child = (!config.command.is_empty()).then(|| Child::new(config.command.clone()));
    tokio::spawn(async {
        if let Err(error) = crate::command::reap_as_init().await {
            tracing::warn!(%error, "orphans are not reaped");
        }
    });
    let daemon = Daemon::start(config, signals, manager, child, loaded).await?;
    daemon.work().await
}

struct Daemon {
    config: Config,
    signals: Signals,
    manager: ServiceManager,
    child: Option<Child>,
    argv: Option<Argv>,
    store: Etcd,
    members: Members,
    registrar: JoinHandle<()>,
    report: channel::Receiver<registrar::Report>,
    running: Vec<RunningSet>,
    states: channel::Sender<States>,
    about: channel::Sender<About>,
    pulse: Pulse,
    heart: Heart,
    ready: bool,
    /// What the member key is to name once the files of the new confdir are live.
    then_consumed: Option<Vec<Consumes>>,
}

struct RunningSet {
    set: Set,
    agent: JoinHandle<BTreeMap<String, Belief>>,
    stop: CancellationToken,
    again: Arc<Notify>,
    state: channel::Receiver<SetState>,
}

impl Daemon {
    async fn start(
        config: Config,
        signals: Signals,
        manager: ServiceManager,
        child: Option<Child>,
        loaded: Loaded,
    ) -> anyhow::Result<Self> {
        let argv = Argv::read(&config.command);
        let (states, published) = channel::channel(States::new());
        let (about, told) = channel::channel(About::new(config.name.clone()));
        let (pulse, onlookers) = (Pulse::default(), Onlookers::default());
        if let Some(addr) = config.status {
            let sources = surface::Sources {
                states: published,
                about: told,
                pulse: pulse.clone(),
                manager: manager.clone(),
                stopping: signals.drain.clone(),
                onlookers: onlookers.clone(),
            };
            surface::serve(addr, sources, signals.abort.clone()).await?;
        }
        let early =
            start_without_etcd(&config, &manager, &signals, child.as_ref(), argv.as_ref(), &loaded);
        let store = tokio::select! {
            store = reach(&config.connection, &manager, &signals.drain, &pulse) => store?,
            error = early => return Err(error),
        };
        let store = match store {
            Some(store) => store,
            None => anyhow::bail!(EndedEarly),
        };
        let bookkeeping = Bookkeeping::below(&config.bookkeeping)?;
        let members = Members::new(config.name.clone(), boot(), bookkeeping);
        onlookers.follow(store.clone(), members.bookkeeping().clone(), signals.abort.clone());
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
            heart: pulse.heart("the main loop", CHORE),
            pulse,
            ready: false,
            then_consumed: None,
        };
        let joined = daemon.join(consumed_by(&loaded.sets)).await;
        for set in loaded.sets {
            daemon.begin(set, BTreeMap::new(), None, &joined).await?;
        }
        Ok(daemon)
    }

    /// The member key is there before anything is read, so that who leaves either
    /// left before our read or waits for us. What is returned is cancelled then, or
    /// when etcd definitely refuses: that does not stop us from reading.
    async fn join(&mut self, resources: Vec<Consumes>) -> CancellationToken {
        let joined = CancellationToken::new();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.members.join(host, self.config.advertise.clone(), resources);
        let Some((key, value)) = self.members.member_as_wanted() else {
            joined.cancel();
            return joined;
        };
        let (name, report) = (self.members.name().to_owned(), self.report.clone());
        let told = joined.clone();
        let joining = tokio::spawn(see_joined(name, key, value, report, told));
        // In order, if etcd answers; else the reading waits, and we go on.
        let _ = timeout(JOIN, joining).await;
        joined
    }

    async fn begin(
        &mut self,
        set: Set,
        beliefs: BTreeMap<String, Belief>,
        before: Option<SetState>,
        joined: &CancellationToken,
    ) -> anyhow::Result<()> {
        let proxy = Proxy::of(&set, self.child.as_ref(), self.argv.as_ref()).await?;
        let targets = set.programs.iter().map(crate::render::Program::target).collect();
        let pipeline = Pipeline::new(set.name.clone(), proxy, targets, set.min_reload_interval())?;
        let stop = CancellationToken::new();
        let after = Some(joined.clone());
        let options = Options { reconcile: self.config.reconcile, after, ..Options::default() };
        let view = watch::follow(self.store.clone(), set.trees(), options, stop.clone());
        let (publish, state) = channel::channel(SetState::empty(&set.name));
        let again = Arc::new(Notify::new());
        let parts = Parts {
            set: set.clone(),
            pipeline,
            view,
            store: self.store.clone(),
            bookkeeping: self.members.bookkeeping().clone(),
            members: Some(self.members.clone()),
            publish,
            pulse: self.pulse.clone(),
            again: Arc::clone(&again),
            beliefs,
            before,
        };
        let agent = tokio::spawn(Agent::new(parts).run(stop.clone()));
        self.running.push(RunningSet { set, agent, stop, again, state });
        Ok(())
    }

    async fn work(mut self) -> anyhow::Result<Exit> {
        let mut hangups = self.signals.hangups.clone();
        let drain = self.signals.drain.clone();
        let every = self.manager.watchdog_interval().unwrap_or(Duration::from_secs(10));
        let mut beat = tokio::time::interval(every.min(Duration::from_secs(10)));
        let mut wait = Reminder::default();
        loop {
            self.heart.beat(CHORE);
            self.tell().await;
            if !self.ready {
                wait.remind(&self.manager.words());
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
        let late = self.pulse.late(tokio::time::Instant::now());
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
        let joined = matches!(standing, Some(Standing::Held { .. }));
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
        if let Some(child) = &self.child
            && child.life() == Life::Waiting
            && states.values().all(|state| state.live.is_some())
        {
            // Not nginx by name: it starts when all files are in place.
            if let Err(why) = child.start(None, Duration::from_secs(10)).await {
                tracing::error!("cannot start {}: {why}", child.name());
            }
        }
        let words: Vec<String> = states.values().map(SetState::words).collect();
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

    /// Reads the confdir again. What did not change is not touched, and a bad one
    /// changes nothing.
    async fn reload(&mut self) {
        let loaded = match load(&self.config.confdir, &self.config.globals) {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!("the confdir is left as it was:\n{error:#}");
                return;
            }
        };
        loaded.say_notes();
        let before: Vec<Set> = self.running.iter().map(|running| running.set.clone()).collect();
        let (mut kept, mut ended) = (Vec::new(), Vec::new());
        for running in self.running.drain(..) {
            let same = loaded.sets.iter().any(|set| set.same_as(&running.set));
            if same { kept.push(running) } else { ended.push(running) }
        }
        self.running = kept;
        // Who asks for a reload may have mended what a set was refused for.
        self.running.iter().for_each(|running| running.again.notify_one());
        let (mut beliefs, mut last) = (BTreeMap::new(), Vec::new());
        for running in ended {
            tracing::info!(set = running.set.name, "changed or gone");
            running.stop.cancel();
            beliefs.extend(running.agent.await.unwrap_or_default());
            last.push((running.set.loader, running.state.borrow().clone()));
        }
        // What was read so far is routed by until the new files are live.
        let consumed = consumed_by(&loaded.sets);
        let routed = with_trees_of(consumed.clone(), &consumed_by(&before));
        self.then_consumed = (routed != consumed).then_some(consumed);
        let joined = self.join(routed).await;
        let new =
            loaded.sets.into_iter().filter(|set| !self.running.iter().any(|r| r.set.same_as(set)));
        for set in new.collect::<Vec<_>>() {
            let name = set.name.clone();
            let belief = |program: &crate::render::Program| {
                let (name, mut belief) = beliefs.remove_entry(&program.resource.name)?;
                let trees = &program.resource.reading.trees;
                belief.retain(|key| trees.iter().any(|tree| tree.covers(key)));
                Some((name, belief))
            };
            let mine = set.programs.iter().filter_map(belief).collect();
            let by_nginx = matches!(set.loader, crate::set::Loader::Nginx(_));
            let before = last.iter().find(|(loader, _)| by_nginx && *loader == set.loader);
            let before = before.map(|(_, state)| state.clone());
            if let Err(error) = self.begin(set, mine, before, &joined).await {
                tracing::error!(set = name, "not started: {error:#}");
            }
        }
        tracing::info!(sets = self.running.len(), "confdir read again");
    }

    /// Steps at hand are finished, the child is stopped, then the member key goes:
    /// nobody is told that we let go while our proxy still routes.
    async fn end(mut self, child_left: Option<u8>) -> Exit {
        self.manager.stopping();
        self.manager.extend(self.config.stop_timeout + LEAVE + Duration::from_secs(10));
        for running in &self.running {
            running.stop.cancel();
        }
        let sets: Vec<Set> = self.running.iter().map(|running| running.set.clone()).collect();
        for running in self.running.drain(..) {
            let abort = self.signals.abort.clone();
            let _ = abort.run_until_cancelled(running.agent).await;
        }
        let code = match (&self.child, child_left) {
            (Some(child), None) => {
                let signal = if self.argv.is_some() { Signal::QUIT } else { Signal::TERM };
                let patience = self.config.stop_timeout;
                tokio::select! {
                    code = child.stop(signal, patience) => code,
                    () = self.signals.abort.cancelled() => child.stop(Signal::TERM, Duration::ZERO).await,
                }
            }
            (_, left) => left,
        };
        if let Some(left) = child_left {
            tracing::warn!(code = left, "the supervised command ended by itself");
        }
        let _ = timeout(LEAVE, self.leave(&sets)).await;
        code.map_or(Exit::Done, Exit::Child)
    }

    /// Only who routes nothing any more says so. A proxy that goes on without us (by
    /// pid file or commands) still does, and who drains must know: the member key
    /// then stays as it is until its lease ends or somebody takes over. A word of
    /// leaving stays as long: deleted at once, it would not be seen.
    async fn leave(&mut self, sets: &[Set]) {
        if self.routes_nothing(sets).await {
            self.members.left();
            if let Some((key, value)) = self.members.member_as_wanted() {
                let _ = timeout(SAY, self.report.wait_for(|r| holds(r, &key, &value))).await;
            }
        } else {
            tracing::info!(
                "the proxy goes on; backends that leave wait for it until the lease ends"
            );
        }
        // Ended without its own end, which would take the keys away.
        self.registrar.abort();
    }

    async fn routes_nothing(&self, sets: &[Set]) -> bool {
        if self.child.is_some() {
            return true;
        }
        for set in sets {
            match Proxy::of(set, None, None).await {
                Ok(proxy) if !proxy.is_running() => {}
                _ => return false,
            }
        }
        true
    }
}

/// Waits for the member key in etcd, or for a definite no; then cancels `told`.
async fn see_joined(
    name: String,
    key: Key,
    value: Vec<u8>,
    mut report: channel::Receiver<registrar::Report>,
    told: CancellationToken,
) {
    let there = |report: &registrar::Report| {
        holds(report, &key, &value)
            || report.trouble.as_ref().is_some_and(|trouble| !trouble.error.is_transient())
    };
    let held = loop {
        let seen = timeout(TAKEN_OVER, report.wait_for(there)).await;
        let ended = seen.map(|seen| seen.map(|report| holds(&report, &key, &value)));
        match ended {
            Ok(Ok(held)) => break held,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        // The key of an earlier life is met before it is taken over; one that is still
        // there now is another's.
        if matches!(report.borrow().keys.get(&key), Some(Standing::Rival { .. })) {
            break false;
        }
    };
    if held {
        tracing::info!(name, "joined the load balancers");
    } else {
        tracing::warn!(
            %key,
            "not joined: backends that leave do not wait for this load balancer. Does another have \
             the same --name, or is writing below --bookkeeping not allowed?"
        );
    }
    told.cancel();
}

fn holds(report: &registrar::Report, key: &Key, value: &[u8]) -> bool {
    matches!(report.keys.get(key), Some(Standing::Held { value: held, .. }) if held == value)
}

fn consumed_by(sets: &[Set]) -> Vec<Consumes> {
    let of = |program: &crate::render::Program| Consumes {
        name: program.resource.name.clone(),
        trees: program.resource.reading.trees.iter().map(ToString::to_string).collect(),
    };
    sets.iter().flat_map(|set| set.programs.iter().map(of)).collect()
}

/// `now`, each with the trees that it had `before` as well.
fn with_trees_of(mut now: Vec<Consumes>, before: &[Consumes]) -> Vec<Consumes> {
    for resource in &mut now {
        let old = before.iter().filter(|old| old.name == resource.name);
        for tree in old.flat_map(|old| &old.trees) {
            if !resource.trees.contains(tree) {
                resource.trees.push(tree.clone());
            }
        }
    }
    now
}

/// Told to end before etcd was reached: nothing to take apart.
#[derive(Debug, thiserror::Error)]
#[error("ended before etcd was reached")]
pub struct EndedEarly;

/// etcd is away at the start: with all files in place, the child is started with
/// them. Resolves only when that went wrong for good.
async fn start_without_etcd(
    config: &Config,
    manager: &ServiceManager,
    signals: &Signals,
    child: Option<&Child>,
    argv: Option<&Argv>,
    loaded: &Loaded,
) -> anyhow::Error {
    let patience = Duration::from_secs(2);
    let Some(child) = child else { return std::future::pending().await };
    if signals.drain.run_until_cancelled(tokio::time::sleep(patience)).await.is_none() {
        return std::future::pending().await;
    }
    let there = |set: &Set| set.programs.iter().all(|p| p.resource.dest.exists());
    if !loaded.sets.iter().all(there) {
        tracing::info!("no files in place: waiting for etcd before {} is started", child.name());
        return std::future::pending().await;
    }
    tracing::warn!("etcd is away: starting {} with the files in place", child.name());
    let nginx =
        match loaded.sets.iter().find(|set| matches!(set.loader, crate::set::Loader::Nginx(_))) {
            Some(set) => match Proxy::of(set, None, argv).await {
                Ok(proxy) => proxy.nginx().cloned(),
                Err(error) => return error.into(),
            },
            None => None,
        };
    match child.start(nginx, Duration::from_secs(10)).await {
        Ok(_) => manager.status("serving with the files in place; waiting for etcd"),
        Err(why) => return anyhow::anyhow!("cannot start {}: {why}", child.name()),
    }
    let _ = config;
    let code = child.left().await;
    anyhow::anyhow!("{} ended with code {code} while etcd was away", child.name())
        .context(ChildLeft(code))
}

/// The child ended while we were still waiting for etcd.
#[derive(Debug, thiserror::Error)]
#[error("the supervised command ended")]
pub struct ChildLeft(pub u8);

/// Resolves when the registrar tells something new.
async fn report_changed(report: &mut channel::Receiver<registrar::Report>) {
    if report.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn any_changed(running: &mut [RunningSet]) {
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

/// Names this life of the process.
fn boot() -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:08x}", now.as_millis(), fastrand::u32(..))
}

/// Why the run could not be set up.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Result<Exit> {
    if error.is::<EndedEarly>() {
        return Ok(Exit::Done);
    }
    if let Some(ChildLeft(code)) = error.downcast_ref() {
        return Ok(Exit::Child(*code));
    }
    Err(error).context("cannot run")
}
