//! The loop of `register run`: health in, wishes to the registrar out; what stands
//! is told to the service manager.
//!
//! It waits for nothing but the next thing to happen. Probing, refreshing and
//! telling have tasks of their own, so a hung probe loses no lease and a hung etcd
//! stops no probing. Trouble with etcd changes no health.

mod join;
mod leave;
mod reload;
mod removal;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::claim::{Aim, KeyStatus, Takeover, Want, Wants};
use common::handshake::Bookkeeping;
use common::model::Key;
use common::registrar::{self, RegistrarReport};
use common::runtime::{Exit, Forwarded, Liveness, Reminder, ServiceManager, Signals};
use common::store::Store;
use rustix::process::Signal;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Service, Sources};
use crate::handshake::Ending;
use crate::health::State;
use crate::probe::Probe;
use crate::prober::{self, Limits, Probing};
use crate::supervise::{self, Backend};

use join::Joining;

/// What `register run` was given from outside.
pub struct Parts<S> {
    /// Validated.
    pub config: Config,
    /// The probes of its services, in the same order.
    pub probes: Vec<Vec<Probe>>,
    /// To read the configuration again on SIGHUP.
    pub sources: Sources,
    /// etcd.
    pub store: S,
    /// The process's signals.
    pub signals: Signals,
    /// Who started us.
    pub manager: ServiceManager,
    /// Where the loop shows that it goes on.
    pub liveness: Liveness,
    /// The backend, already started, if we supervise it.
    pub backend: Option<Child>,
    /// Where what stands is published, for the status surface.
    pub publish: watch::Sender<Snapshot>,
}

/// A backend that we supervise.
#[derive(Debug)]
pub struct Child {
    /// The process.
    pub backend: Backend,
    /// The signals that it gets through us.
    pub signals: Forwarded,
}

/// What stands, for the status surface.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One entry a service, by key.
    pub services: BTreeMap<Key, (Option<prober::ProbeReport>, KeyStatus)>,
    /// What the registrar knows.
    pub registrar: RegistrarReport,
    /// Whether READY=1 was sent.
    pub ready: bool,
    /// Whether the end has begun: what was registered is being taken back.
    pub leaving: bool,
    /// How far the drain is, once one has begun.
    pub drain: Option<Drain>,
    /// The state in words.
    pub words: String,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// So many load balancers have not let go.
    WaitsFor(usize),
    /// It has ended.
    Over {
        /// Every load balancer said so.
        confirmed: bool,
    },
}

/// The main loop goes round at least this often.
const BEAT: std::time::Duration = std::time::Duration::from_secs(10);
/// Not heard of for this long, it is stuck.
const LATE: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs until a signal, or until the supervised backend ends.
///
/// # Errors
/// When the configuration cannot be put to work.
pub async fn run<S: Store>(parts: Parts<S>) -> anyhow::Result<Exit> {
    let mut agent = Agent::start(parts)?;
    let end = agent.work().await;
    agent.leave(end).await
}

/// Why the work ended.
enum End {
    /// A signal.
    Asked,
    /// The backend left by itself, with this exit code.
    BackendLeft(u8),
}

/// What the loop woke up for.
enum Happened {
    /// Something to look at.
    News,
    /// The configuration is to be read again.
    Reload,
    /// A signal for the backend.
    Signal(Signal),
    /// The backend ended, with this exit code.
    BackendLeft(u8),
    /// Every load balancer serves us, or the wait for that is over.
    Served(Ending),
}

/// What the backend that we supervise brings; without one, nothing ever.
async fn of_backend(child: &mut Option<Child>) -> Happened {
    let Some(Child { backend, signals }) = child else { return std::future::pending().await };
    tokio::select! {
        exit = backend.ended() => Happened::BackendLeft(exit.map_or(1, supervise::Exit::code)),
        signal = signals.next() => Happened::Signal(signal),
    }
}

struct Running {
    service: Service,
    probing: Probing,
    /// The state last acted on.
    said: State,
    /// The standing last logged.
    logged: KeyStatus,
}

const NOTHING: KeyStatus = KeyStatus::Absent { removed: None };

struct Agent<S> {
    parts: Parts<S>,
    bookkeeping: Bookkeeping,
    running: BTreeMap<Key, Running>,
    limits: Limits,
    bell: Arc<Notify>,
    wants: watch::Sender<Wants>,
    report: watch::Receiver<RegistrarReport>,
    registrar: JoinHandle<()>,
    end_registrar: CancellationToken,
    ready: bool,
    joining: Option<Joining>,
    /// Until when readiness may be held back at all.
    patience: Option<Instant>,
}

impl<S: Store> Agent<S> {
    fn start(parts: Parts<S>) -> anyhow::Result<Self> {
        let process = &parts.config.process;
        let bookkeeping = Bookkeeping::below(&process.bookkeeping)?;
        let (wants, wanted) = watch::channel(Wants::default());
        let end_registrar = CancellationToken::new();
        let (report, registrar) =
            registrar::start(parts.store.clone(), process.ttl, wanted, end_registrar.clone());
        let mut agent = Self {
            bookkeeping,
            running: BTreeMap::new(),
            limits: Limits::default(),
            bell: Arc::new(Notify::new()),
            wants,
            report,
            registrar,
            end_registrar,
            ready: false,
            joining: None,
            patience: None,
            parts,
        };
        let services = agent.parts.config.services.clone();
        let probes = std::mem::take(&mut agent.parts.probes);
        let spread = prober::spread(services.len());
        for (service, probes) in services.into_iter().zip(probes) {
            agent.begin(service, probes, spread);
        }
        Ok(agent)
    }

    fn begin(&mut self, service: Service, probes: Vec<Probe>, spread: std::time::Duration) {
        let (limits, bell) = (self.limits.clone(), Arc::clone(&self.bell));
        let probing = prober::start(probes, service.policy.clone(), limits, bell, spread);
        let key = service.target.key.clone();
        // A service whose probes changed keeps what it has until they have spoken.
        let (said, logged) = match self.running.remove(&key) {
            Some(before) => (before.said, before.logged),
            None => (State::Starting, NOTHING),
        };
        self.running.insert(key, Running { service, probing, said, logged });
    }

    async fn work(&mut self) -> End {
        let mut hangups = self.parts.signals.hangups.clone();
        // Without a file to read again, a SIGHUP is for the backend.
        let pass_on = self.parts.backend.is_some() && self.parts.sources.file().is_none();
        let drain = self.parts.signals.drain.clone();
        let every = self.parts.manager.watchdog_interval();
        let mut beat = tokio::time::interval(every.unwrap_or(BEAT).min(BEAT));
        let heartbeat = self.parts.liveness.heartbeat("the main loop", LATE);
        let mut wait = Reminder::default();
        loop {
            heartbeat.beat(LATE);
            self.parts.manager.watchdog();
            self.act();
            self.tell();
            if !self.ready {
                wait.remind(&self.parts.manager.last_status());
            }
            let happened = tokio::select! {
                () = drain.cancelled() => {
                    heartbeat.end();
                    return End::Asked;
                }
                child = of_backend(&mut self.parts.backend) => child,
                served = join::of_joining(&mut self.joining) => served,
                () = self.bell.notified() => Happened::News,
                changed = self.report.changed() => {
                    // The registrar only ends when it is told to.
                    if changed.is_err() { drain.cancelled().await }
                    Happened::News
                }
                Ok(()) = hangups.changed() => {
                    if pass_on { Happened::Signal(Signal::HUP) } else { Happened::Reload }
                }
                _ = beat.tick() => Happened::News,
            };
            match happened {
                Happened::News => {}
                Happened::Reload => self.reload(),
                Happened::Served(ending) => self.served(ending),
                Happened::Signal(signal) => {
                    self.parts.backend.iter().for_each(|child| child.backend.signal(signal));
                }
                Happened::BackendLeft(code) => {
                    heartbeat.end();
                    return End::BackendLeft(code);
                }
            }
        }
    }

    /// Turns states into wishes.
    fn act(&mut self) {
        for (key, running) in &mut self.running {
            let report = running.probing.report.borrow().clone();
            let decided = report.state != State::Starting;
            if decided && report.state != running.said {
                words::say_state(key, &report);
                running.said = report.state;
            }
        }
        let want = |(key, running): (&Key, &Running)| {
            let aim = match running.said {
                State::Up => Aim::Present,
                State::Down => Aim::Absent,
                State::Starting => return None,
            };
            let value = running.service.value.clone().into_bytes();
            Some((key.clone(), Want { value, takeover: Takeover::SameValue, aim }))
        };
        let wants: BTreeMap<Key, Want> = self.running.iter().filter_map(want).collect();
        self.wants.send_if_modified(|before| before.replace(wants));
    }

    /// What is known of each key. What etcd confirmed is worth nothing when it has not
    /// been heard of for a whole TTL.
    fn standings(&self) -> BTreeMap<Key, KeyStatus> {
        let report = self.report.borrow();
        let believed = report.lease_until.is_some_and(|until| Instant::now() < until);
        let standing = |key: &Key| match report.keys.get(key) {
            Some(KeyStatus::Owned { .. }) if !believed => KeyStatus::Pending,
            Some(standing) => standing.clone(),
            None => NOTHING,
        };
        self.running.keys().map(|key| (key.clone(), standing(key))).collect()
    }

    /// Tells what stands; READY=1 once every healthy service is registered.
    fn tell(&mut self) {
        let standings = self.standings();
        let away = self.report.borrow().failure.is_some();
        for (key, running) in &mut self.running {
            let Some(standing) = standings.get(key) else { continue };
            let ours = running.service.value.as_bytes();
            words::say_standing(key, ours, (&running.logged, standing), away);
            running.logged.clone_from(standing);
        }
        self.become_ready(&standings);
        let report = self.report.borrow_and_update().clone();
        let services = self.running.iter().map(|(key, r)| (key, r.probing.report.borrow().clone()));
        let mut text = words::state(services, &standings, &report);
        text.extend(self.joining.as_ref().and_then(Joining::words));
        self.parts.manager.status(&text);
        let services = standings.into_iter().map(|(key, standing)| {
            let report = self.running.get(&key).map(|r| r.probing.report.borrow().clone());
            (key, (report, standing))
        });
        let snapshot = Snapshot {
            services: services.collect(),
            registrar: report,
            ready: self.ready,
            leaving: false,
            drain: None,
            words: text,
        };
        self.parts.publish.send_replace(snapshot);
    }
}
