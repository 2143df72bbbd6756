//! `register run`: what the probes find becomes the keys that are wanted, and what etcd has
//! confirmed becomes readiness and status.
//!
//! ```text
//! probers ─reports─► Services ─wants─► KeyRegistration ─► etcd
//!                       ▲                   │
//!                       └─────statuses──────┤
//!            READY=1 ◄── Readiness ◄────────┘            a signal ─► Departure ─► exit
//! ```
//!
//! The loop waits for nothing but the next event. Probing, refreshing and serving status have
//! tasks of their own, so a hung probe loses no lease and a hung etcd stops no probing.
//! Trouble with etcd changes no health.

mod departure;
mod readiness;
mod registration;
mod reload;
mod services;
mod status_line;
#[cfg(test)]
mod tests;

use std::time::Duration;

use common::handshake::{Bookkeeping, DrainTimes};
use common::runtime::{
    Exit, Forwarded, Hangups, Heartbeat, Liveness, ProcessExit, Reminder, ServiceManager, Signals,
};
use common::store::Store;
use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::Interval;

use crate::config::{ConfigSources, RegisterConfig};
use crate::handshake::WaitsEnd;
use crate::probe::Probe;
use crate::status::{SidekickStatus, WeightChange};
use crate::supervise::BackendProcess;

use departure::{Departure, EndReason};
use readiness::Readiness;
use registration::KeyRegistration;
use services::RunningServices;

/// What `register run` is given.
pub struct SidekickParts<S> {
    /// Validated.
    pub config: RegisterConfig,
    /// The probes of its services, in the same order.
    pub probes: Vec<Vec<Probe>>,
    /// To read the configuration again on SIGHUP.
    pub sources: ConfigSources,
    /// etcd.
    pub store: S,
    /// The process's signals.
    pub signals: Signals,
    /// Who started us.
    pub manager: ServiceManager,
    /// The heartbeat by which `/healthz` and the watchdog see that the loop runs.
    pub liveness: Liveness,
    /// The backend, already started, if we supervise it.
    pub backend: Option<SupervisedBackend>,
    /// Where the status is published.
    pub publish: watch::Sender<SidekickStatus>,
    /// Weights set by `register weight` while the sidekick runs.
    pub weight_changes: mpsc::Receiver<WeightChange>,
}

/// A backend that we supervise.
#[derive(Debug)]
pub struct SupervisedBackend {
    pub process: BackendProcess,
    /// The signals that it gets through us.
    pub signals: Forwarded,
}

/// The loop runs at least this often.
const BEAT: Duration = Duration::from_secs(10);
/// Without a sign of life for this long, it is stuck.
const LATE: Duration = Duration::from_secs(60);

/// Runs until a signal, or until the supervised backend ends.
///
/// # Errors
/// When the backend cannot be waited for.
pub async fn run<S: Store>(parts: SidekickParts<S>) -> anyhow::Result<Exit> {
    let sidekick = Sidekick::start(parts)?;
    let (reason, departure) = sidekick.work().await;
    Ok(departure.leave(reason).await)
}

/// What the loop woke up for.
enum SidekickEvent {
    /// Something may have changed.
    News,
    /// SIGHUP.
    Hangup,
    /// A signal for the backend.
    Forward(Signal),
    /// An instance gets another weight.
    Weight(WeightChange),
    /// Every load balancer serves us, or the wait for that is over.
    Served(WaitsEnd),
    /// The work is over.
    End(EndReason),
}

struct Sidekick<S> {
    config: RegisterConfig,
    sources: ConfigSources,
    bookkeeping: Bookkeeping,
    signals: Signals,
    hangups: Hangups,
    manager: ServiceManager,
    heartbeat: Heartbeat,
    beat: Interval,
    backend: Option<SupervisedBackend>,
    publish: watch::Sender<SidekickStatus>,
    weight_changes: mpsc::Receiver<WeightChange>,
    services: RunningServices,
    registration: KeyRegistration<S>,
    readiness: Readiness,
    not_ready: Reminder,
}

impl<S: Store> Sidekick<S> {
    fn start(parts: SidekickParts<S>) -> anyhow::Result<Self> {
        let process = &parts.config.process;
        let interval = parts.manager.watchdog_interval().unwrap_or(BEAT).min(BEAT);
        Ok(Self {
            bookkeeping: Bookkeeping::below(&process.bookkeeping)?,
            registration: KeyRegistration::start(parts.store, process.ttl),
            services: RunningServices::start(parts.config.services.clone(), parts.probes),
            readiness: Readiness::new(process.wait_applied),
            heartbeat: parts.liveness.heartbeat("the main loop", LATE),
            beat: tokio::time::interval(interval),
            hangups: parts.signals.hangups.clone(),
            not_ready: Reminder::default(),
            config: parts.config,
            sources: parts.sources,
            signals: parts.signals,
            manager: parts.manager,
            backend: parts.backend,
            publish: parts.publish,
            weight_changes: parts.weight_changes,
        })
    }

    async fn work(mut self) -> (EndReason, Departure<S>) {
        loop {
            self.heartbeat.beat(LATE);
            self.manager.watchdog();
            self.services.observe();
            self.registration.want(self.services.wants());
            self.report();
            match self.next_event().await {
                SidekickEvent::News => {}
                SidekickEvent::Hangup => self.hangup(),
                SidekickEvent::Forward(signal) => self.forward(signal),
                SidekickEvent::Weight(change) => self.services.set_weight(&change),
                SidekickEvent::Served(end) => {
                    if self.readiness.served(end) {
                        self.manager.ready();
                    }
                }
                SidekickEvent::End(reason) => return (reason, self.depart()),
            }
        }
    }

    async fn next_event(&mut self) -> SidekickEvent {
        tokio::select! {
            () = self.signals.drain.cancelled() => SidekickEvent::End(EndReason::Signal),
            event = event_of(&mut self.backend) => event,
            end = self.readiness.progressed() => {
                end.map_or(SidekickEvent::News, SidekickEvent::Served)
            }
            () = self.services.changed() => SidekickEvent::News,
            () = self.registration.changed() => SidekickEvent::News,
            Ok(()) = self.hangups.changed() => SidekickEvent::Hangup,
            Some(change) = self.weight_changes.recv() => SidekickEvent::Weight(change),
            _ = self.beat.tick() => SidekickEvent::News,
        }
    }

    /// Reports what is known; READY=1 once every healthy service is registered and served.
    fn report(&mut self) {
        let registrar = self.registration.report();
        let statuses = self.registration.statuses(self.services.keys());
        self.services.log_changes(&statuses, registrar.failure.is_some());
        let registered = self.services.registered(&statuses);
        if self.readiness.update(registered, &self.registration, &self.bookkeeping, &self.config) {
            self.manager.ready();
        }
        let mut text = self.services.status_line(&statuses, &registrar);
        text.extend(self.readiness.waiting_for());
        self.manager.status(&text);
        if !self.readiness.is_ready() {
            self.not_ready.remind(&text);
        }
        self.publish.send_replace(SidekickStatus {
            services: self.services.publish(&statuses),
            registrar,
            ready: self.readiness.is_ready(),
            drain: None,
        });
    }

    fn hangup(&mut self) {
        // Without a file to read again, a SIGHUP is for the backend.
        if self.backend.is_some() && self.sources.file().is_none() {
            return self.forward(Signal::HUP);
        }
        if let Some(config) = reload::read(&self.sources, &self.config) {
            self.services.replace(config.plan);
            self.config = config.config;
            tracing::info!(services = self.config.services.len(), "configuration read again");
        }
    }

    fn forward(&self, signal: Signal) {
        self.backend.iter().for_each(|backend| backend.process.signal(signal));
    }

    fn depart(self) -> Departure<S> {
        self.heartbeat.end();
        Departure {
            times: DrainTimes::from_now(self.config.process.drain.longest()),
            instances: self.services.into_instances(),
            registration: self.registration,
            process: self.config.process,
            bookkeeping: self.bookkeeping,
            manager: self.manager,
            abort: self.signals.abort,
            publish: self.publish,
            backend: self.backend,
        }
    }
}

/// What the backend that we supervise brings; without one, nothing ever.
async fn event_of(backend: &mut Option<SupervisedBackend>) -> SidekickEvent {
    let Some(SupervisedBackend { process, signals }) = backend else {
        return std::future::pending().await;
    };
    tokio::select! {
        exit = process.ended() => {
            let code = exit.map_or(1, ProcessExit::code);
            SidekickEvent::End(EndReason::BackendEnded(code))
        }
        signal = signals.next() => SidekickEvent::Forward(signal),
    }
}
