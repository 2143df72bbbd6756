//! Probing one service for as long as it is wanted: ask, judge, publish, wait.
//!
//! Each service is one small task; a probe's buffers live only while it runs. What
//! must hold:
//! * a probe that hangs delays nobody: its own service waits for its deadline, the
//!   others have tasks of their own;
//! * so many services can fail at once as there are, without more connections or
//!   processes than [`Limits`] allows. Waiting for a place is not counted against
//!   the backend: the deadline begins when it is asked;
//! * whoever reads the reports cannot hold the probing up.
//!
//! This module knows nothing of etcd: what a state leads to is decided elsewhere.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::health::{Health, Policy, State};
use crate::probe::{Cost, Probe, Verdict};

/// Connections that probes of this process may have open at once: half of the 1024
/// files that a process usually may.
const CONNECTIONS: usize = 512;

/// Commands of `exec:` probes that may run at once.
const PROCESSES: usize = 32;

/// How much all probers of a process may do at once. Clones share the bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    connections: Arc<Semaphore>,
    processes: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(CONNECTIONS, PROCESSES)
    }
}

impl Limits {
    fn new(connections: usize, processes: usize) -> Self {
        let bound = |n| Arc::new(Semaphore::new(n));
        Self { connections: bound(connections), processes: bound(processes) }
    }

    async fn ask(&self, probe: &Probe) -> Verdict {
        let places = match probe.cost() {
            Cost::Nothing => None,
            Cost::Connection => Some(&self.connections),
            Cost::Process => Some(&self.processes),
        };
        let _place = match places {
            None => None,
            Some(places) => match places.acquire().await {
                Ok(place) => Some(place),
                Err(closed) => return Verdict::Fail(closed.to_string()),
            },
        };
        // On the heap for as long as it runs: a thousand services mostly wait.
        Box::pin(probe.ask()).await
    }
}

/// What is known of a service.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// Whether it is to be registered.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// What the last probes found; `None` before the first answer.
    pub last: Option<Outcome>,
    /// How many equal results in a row, ending with the last.
    pub row: u32,
    /// How many times it was probed.
    pub probes: u64,
    /// How many of them failed.
    pub failures: u64,
}

/// What the probes of a service found.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Passed if all did; otherwise every reason.
    pub verdict: Verdict,
    /// When the answer was complete.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
}

/// A service being probed. Dropping it ends that.
#[derive(Debug)]
pub struct Probing {
    /// Always the newest report. It counts as changed when the state or the verdict
    /// changed, not with each probe.
    pub report: watch::Receiver<ProbeReport>,
    _task: AbortOnDropHandle<()>,
}

/// Begins to probe a service. `bell` rings when its report changed, so that one
/// loop can follow a thousand services. The first probe comes within `spread`.
#[must_use]
pub fn start(
    probes: Vec<Probe>,
    policy: Policy,
    limits: Limits,
    bell: Arc<Notify>,
    spread: Duration,
) -> Probing {
    let begin = Instant::now() + spread.mul_f64(fastrand::f64());
    let (tell, report) = watch::channel(ProbeReport::new(Instant::now()));
    let probes = Arc::new(probes);
    let ask = move || round(Arc::clone(&probes), limits.clone());
    let task = tokio::spawn(follow(ask, policy, begin, fastrand::f64, tell, bell));
    Probing { report, _task: AbortOnDropHandle::new(task) }
}

/// Over what time the first probes of this many services are spread: none for one,
/// a second for a thousand.
#[must_use]
pub fn spread(services: usize) -> Duration {
    let others = u64::try_from(services.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_millis(others.min(5_000))
}

impl ProbeReport {
    fn new(now: Instant) -> Self {
        Self { state: State::Starting, since: now, last: None, row: 0, probes: 0, failures: 0 }
    }

    /// Takes in an outcome. Tells whether readers want to know at once.
    fn take(&mut self, outcome: Outcome, health: &mut Health) -> bool {
        let passed = outcome.verdict.passed();
        let state = health.record(passed, outcome.at.into_std());
        let news = self.last.as_ref().is_none_or(|last| last.verdict != outcome.verdict);
        if let Some(state) = state {
            self.state = state;
            self.since = outcome.at;
        }
        self.row = health.row().0;
        self.probes = self.probes.saturating_add(1);
        self.failures = self.failures.saturating_add(u64::from(!passed));
        self.last = Some(outcome);
        state.is_some() || news
    }
}

impl fmt::Display for ProbeReport {
    /// The state and its reason in words, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row;
        match self.last.as_ref().map(|last| &last.verdict) {
            None => write!(f, "{}, not asked yet", self.state),
            Some(Verdict::Pass) => write!(f, "{}, {row} passed in a row", self.state),
            Some(Verdict::Fail(why)) => write!(f, "{}, {row} failed in a row: {why}", self.state),
        }
    }
}

/// Asks, judges, publishes and waits, until nobody reads the reports any more.
async fn follow<A: Future<Output = Verdict>>(
    ask: impl Fn() -> A,
    policy: Policy,
    begin: Instant,
    chance: impl Fn() -> f64,
    tell: watch::Sender<ProbeReport>,
    bell: Arc<Notify>,
) {
    let mut health = Health::new(policy, begin.into_std());
    let mut next = begin;
    while !tell.is_closed() {
        sleep_until(next).await;
        let began = Instant::now();
        let verdict = ask().await;
        let ended = Instant::now();
        let outcome = Outcome { verdict, at: ended, took: ended - began };
        if tell.send_if_modified(|report| report.take(outcome, &mut health)) {
            bell.notify_one();
        }
        next = Instant::from_std(health.next(began.into_std(), ended.into_std(), chance()));
    }
}

/// All probes of a service, side by side; all must pass.
async fn round(probes: Arc<Vec<Probe>>, limits: Limits) -> Verdict {
    if let [one] = probes.as_slice() {
        return limits.ask(one).await;
    }
    let limits = &limits;
    let all = join_all(probes.iter().map(|probe| async move {
        match limits.ask(probe).await {
            Verdict::Pass => None,
            Verdict::Fail(why) => Some(format!("{probe}: {why}")),
        }
    }));
    let reasons: Vec<String> = all.await.into_iter().flatten().collect();
    if reasons.is_empty() { Verdict::Pass } else { Verdict::Fail(reasons.join("; ")) }
}

#[cfg(test)]
mod tests;
