//! The loop of `register run`: health in, wishes to the registrar out; what stands
//! is told to the service manager.
//!
//! It waits for nothing but the next thing to happen. Probing, refreshing and
//! telling have tasks of their own, so a hung probe loses no lease and a hung etcd
//! stops no probing. Trouble with etcd changes no health.

mod leave;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::claim::{Standing, Takeover, Want, Wants};
use common::handshake::Bookkeeping;
use common::model::{Key, Prefix};
use common::registrar::{self, Report};
use common::runtime::{Exit, Pulse, Reminder, ServiceManager, Signals};
use common::store::Store;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Service, Sources};
use crate::drain::{Bounds, Goal, Wait};
use crate::handshake::{Ending, wait_for_all};
use crate::health::State;
use crate::probe::Probe;
use crate::prober::{self, Limits, Probing};
use crate::supervise::Backend;

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
    pub pulse: Pulse,
    /// The backend, already started, if we supervise it.
    pub backend: Option<Backend>,
    /// Where what stands is published, for the status surface.
    pub publish: watch::Sender<Snapshot>,
}

/// What stands, for the status surface.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One entry a service, by key.
    pub services: BTreeMap<Key, (Option<prober::Report>, Standing)>,
    /// What the registrar knows.
    pub registrar: Report,
    /// Whether READY=1 was sent.
    pub ready: bool,
    /// Whether the end has begun: what was registered is being taken back.
    pub leaving: bool,
    /// The state in words.
    pub words: String,
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

struct Running {
    service: Service,
    probing: Probing,
    /// The state last acted on.
    said: State,
}

struct Agent<S> {
    parts: Parts<S>,
    bookkeeping: Bookkeeping,
    running: BTreeMap<Key, Running>,
    limits: Limits,
    bell: Arc<Notify>,
    wants: watch::Sender<Wants>,
    report: watch::Receiver<Report>,
    registrar: JoinHandle<()>,
    end_registrar: CancellationToken,
    ready: bool,
    joining: Option<JoinHandle<()>>,
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
        let running = Running { probing, said: State::Starting, service };
        self.running.insert(running.service.target.key.clone(), running);
    }

    async fn work(&mut self) -> End {
        let mut hangups = self.parts.signals.hangups.clone();
        let drain = self.parts.signals.drain.clone();
        let every = self.parts.manager.watchdog_interval();
        let mut beat = tokio::time::interval(every.unwrap_or(BEAT).min(BEAT));
        let heart = self.parts.pulse.heart("the main loop", LATE);
        let mut wait = Reminder::default();
        loop {
            heart.beat(LATE);
            self.parts.manager.watchdog();
            self.act();
            self.tell();
            if !self.ready {
                wait.remind(&self.parts.manager.words());
            }
            let backend = async {
                match &mut self.parts.backend {
                    Some(backend) => backend.ended().await.map_or(1, crate::supervise::Exit::code),
                    None => std::future::pending().await,
                }
            };
            let again = tokio::select! {
                () = drain.cancelled() => {
                    heart.end();
                    return End::Asked;
                }
                code = backend => {
                    heart.end();
                    return End::BackendLeft(code);
                }
                () = self.bell.notified() => false,
                changed = self.report.changed() => {
                    // The registrar only ends when it is told to.
                    if changed.is_err() { drain.cancelled().await }
                    false
                }
                changed = hangups.changed() => changed.is_ok(),
                _ = beat.tick() => false,
            };
            if again {
                self.reload();
            }
        }
    }

    /// Turns states into wishes.
    fn act(&mut self) {
        for (key, running) in &mut self.running {
            let report = running.probing.report.borrow().clone();
            if report.state != running.said {
                words::say_state(key, &report);
                running.said = report.state;
            }
        }
        let up = self.running.values().filter(|r| r.said == State::Up);
        let want = |r: &Running| Want {
            value: r.service.value.clone().into_bytes(),
            takeover: Takeover::SameValue,
        };
        let wants: BTreeMap<Key, Want> =
            up.map(|r| (r.service.target.key.clone(), want(r))).collect();
        self.wants.send_if_modified(|before| {
            let changed = **before != wants;
            if changed {
                *before = Arc::new(wants);
            }
            changed
        });
    }

    fn standings(&self) -> BTreeMap<Key, Standing> {
        let report = self.report.borrow();
        let standing = |key: &Key| report.keys.get(key).cloned();
        let absent = Standing::Absent { removed: None };
        self.running
            .keys()
            .map(|key| (key.clone(), standing(key).unwrap_or_else(|| absent.clone())))
            .collect()
    }

    /// Tells what stands; READY=1 once every healthy service is registered.
    fn tell(&mut self) {
        let standings = self.standings();
        let decided = self.running.values().all(|r| r.said != State::Starting);
        let held = |key: &Key| matches!(standings.get(key), Some(Standing::Held { .. }));
        let up: Vec<&Key> =
            self.running.iter().filter(|(_, r)| r.said == State::Up).map(|(k, _)| k).collect();
        if !self.ready && decided && !up.is_empty() && up.iter().all(|key| held(key)) {
            self.become_ready(&standings);
        }
        let report = self.report.borrow_and_update().clone();
        let services = self.running.iter().map(|(key, r)| (key, r.probing.report.borrow().clone()));
        let text = words::state(services, &standings, &report);
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
            words: text,
        };
        self.parts.publish.send_replace(snapshot);
    }

    fn become_ready(&mut self, standings: &BTreeMap<Key, Standing>) {
        self.ready = true;
        for key in self.running.keys() {
            tracing::info!(%key, "registered");
        }
        let manager = self.parts.manager.clone();
        let Some(patience) = self.parts.config.process.wait_applied else {
            manager.ready();
            return;
        };
        let waits = self.waits(standings, patience);
        let (store, bookkeeping) = (self.parts.store.clone(), self.bookkeeping.clone());
        let abort = self.parts.signals.drain.clone();
        self.joining = Some(tokio::spawn(async move {
            let tell =
                |missing: &str| manager.status(&format!("waiting to be served by {missing}"));
            match wait_for_all(&store, &bookkeeping, waits, tell, &abort).await {
                Ending::Verdicts(verdicts) => {
                    for verdict in verdicts {
                        tracing::info!(confirmed = verdict.confirmed, "served: {verdict}");
                    }
                    manager.ready();
                }
                // Health is not at stake; who comes back registers and is served.
                Ending::Regressed(_) => manager.ready(),
                Ending::Aborted => {}
            }
        }));
    }

    fn waits(
        &self,
        standings: &BTreeMap<Key, Standing>,
        patience: std::time::Duration,
    ) -> Vec<Wait> {
        let bounds = Bounds {
            applied: patience,
            min_lbs: usize::try_from(self.parts.config.process.min_lbs).unwrap_or(usize::MAX),
            ..Bounds::default()
        };
        let now = Instant::now();
        let wait = |(key, standing): (&Key, &Standing)| match standing {
            Standing::Held { at } => {
                Some(Wait::new(key.clone(), *at, Goal::Joined, bounds.clone(), now))
            }
            _ => None,
        };
        standings.iter().filter_map(wait).collect()
    }

    /// Reads the configuration again; what did not change is not touched, and a bad
    /// one changes nothing.
    fn reload(&mut self) {
        let new = match self.parts.sources.load() {
            Ok(new) => new,
            Err(errors) => {
                tracing::error!("the configuration is left as it was:\n{errors}");
                return;
            }
        };
        let diff = self.parts.config.diff(&new);
        for name in &diff.restart {
            tracing::warn!(setting = name, "changed; it takes effect with a restart");
        }
        for service in &diff.removed {
            tracing::info!(key = %service.target.key, "no longer wanted");
            self.running.remove(&service.target.key);
        }
        let changed = diff.changed.into_iter().map(|(_, new)| new);
        for service in diff.added.into_iter().chain(changed) {
            let key = service.target.key.clone();
            // A service whose probes changed keeps its registration until they speak.
            if let Some(running) = self.running.get_mut(&key)
                && running.service.checks == service.checks
                && running.service.policy == service.policy
                && running.service.timeout == service.timeout
            {
                running.service = service;
                continue;
            }
            match config::prepare(std::slice::from_ref(&service)) {
                Ok(probes) => {
                    self.begin(
                        service,
                        probes.into_iter().flatten().collect(),
                        std::time::Duration::ZERO,
                    );
                    tracing::info!(%key, "probing");
                }
                Err(errors) => tracing::error!(%key, "not started: {errors}"),
            }
        }
        let process = self.parts.config.process.clone();
        self.parts.config = Config { process, ..new };
        tracing::info!(services = self.running.len(), "configuration read again");
    }

    /// The folder and the name of a service's key: `apache` and `10.0.0.1`.
    fn parts_of(key: &Key) -> Option<(String, String)> {
        let path = key.as_str();
        let (folder, id) = path.rsplit_once('/')?;
        let service = folder.rsplit('/').next()?;
        // A clean key has clean parts.
        folder.parse::<Prefix>().ok()?;
        Some((service.to_owned(), id.to_owned()))
    }
}
