//! Probing one service for as long as it is wanted: ask, judge, publish, wait.
//!
//! Each service is one small task; a probe's buffers live only while it runs. What
//! must hold:
//! * a probe that hangs delays no other: its own service waits for its deadline, the
//!   others have tasks of their own;
//! * so many services can fail at once as there are, without more connections or
//!   processes than [`ProbeLimits`] allows. Waiting for a place is not counted against
//!   the backend: the deadline begins when it is asked;
//! * a slow reader of the reports cannot delay the probes.
//!
//! This module knows nothing of etcd: what a state leads to is decided elsewhere.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Resource, getrlimit};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::health::{Health, HealthPolicy, HealthState};
use crate::probe::{Cost, Probe, Verdict};

/// Connections that probes of this process may have open at once, if it may have twice as
/// many files: the other half is a reserve for etcd, the log and the status server.
const CONNECTIONS: usize = 512;

/// Commands of `exec:` probes that may run at once.
const PROCESSES: usize = 32;

/// How much all probers of a process may do at once. Clones share the bounds.
#[derive(Debug, Clone)]
pub struct ProbeLimits {
    connections: Arc<Semaphore>,
    processes: Arc<Semaphore>,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(files / 2).unwrap_or(CONNECTIONS);
        Self::new(share.clamp(1, CONNECTIONS), PROCESSES)
    }
}

impl ProbeLimits {
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
    pub state: HealthState,
    pub since: Instant,
    /// What the last probes found; `None` before the first answer.
    pub last: Option<ProbeOutcome>,
    /// How many equal results in a row, ending with the last.
    pub row: u32,
    /// How many times it was probed.
    pub probes: u64,
    /// How many of them failed.
    pub failures: u64,
    /// How many more could not be made.
    pub not_made: u64,
    /// The last of all of them.
    pub history: ProbeHistory,
}

/// The last 64 probes, newest last: `P`assed, `F`ailed, `?` not made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeHistory {
    count: u8,
    passed: u64,
    not_made: u64,
}

impl ProbeHistory {
    fn push(&mut self, verdict: &Verdict) {
        self.count = self.count.saturating_add(1).min(64);
        self.passed = self.passed << 1 | u64::from(*verdict == Verdict::Pass);
        let not_made = matches!(verdict, Verdict::NotMade(_));
        self.not_made = self.not_made << 1 | u64::from(not_made);
    }
}

impl fmt::Display for ProbeHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.count).rev().try_for_each(|age| {
            let is = |bits: u64| bits >> age & 1 == 1;
            f.write_str(if is(self.passed) {
                "P"
            } else if is(self.not_made) {
                "?"
            } else {
                "F"
            })
        })
    }
}

/// What the probes of a service found.
#[derive(Debug, Clone)]
pub struct ProbeOutcome {
    /// Passed if all did; otherwise every reason.
    pub verdict: Verdict,
    /// When the answer was complete.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
}

/// A service being probed. Dropping it ends that.
#[derive(Debug)]
pub struct ServiceProbe {
    /// Always the newest report. It counts as changed when the state or the verdict
    /// changed, not with each probe.
    pub report: watch::Receiver<ProbeReport>,
    _task: AbortOnDropHandle<()>,
}

/// Starts probing a service. `bell` is notified when its report changes, so that one
/// loop can follow a thousand services. The first probe comes within `spread`.
pub fn start(
    probes: Vec<Probe>,
    policy: HealthPolicy,
    limits: ProbeLimits,
    bell: Arc<Notify>,
    spread: Duration,
) -> ServiceProbe {
    let begin = Instant::now() + spread.mul_f64(fastrand::f64());
    let (publish, report) = watch::channel(ProbeReport::new(Instant::now()));
    let probes = Arc::new(probes);
    let ask = move || round(Arc::clone(&probes), limits.clone());
    let task = tokio::spawn(follow(ask, policy, begin, fastrand::f64, publish, bell));
    ServiceProbe { report, _task: AbortOnDropHandle::new(task) }
}

/// Over what time the first probes of this many services are spread: none for one,
/// a second for a thousand.
pub fn spread(services: usize) -> Duration {
    let others = u64::try_from(services.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_millis(others.min(5_000))
}

impl ProbeReport {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: HealthState::Starting,
            since: now,
            last: None,
            row: 0,
            probes: 0,
            failures: 0,
            not_made: 0,
            history: ProbeHistory::default(),
        }
    }

    /// Takes in an outcome. Whether it is news.
    fn take(&mut self, outcome: ProbeOutcome, health: &mut Health) -> bool {
        let state = match &outcome.verdict {
            // Nothing is known of the backend, so its health stays as it is.
            Verdict::NotMade(_) => {
                self.not_made = self.not_made.saturating_add(1);
                None
            }
            verdict => {
                self.probes = self.probes.saturating_add(1);
                self.failures = self.failures.saturating_add(u64::from(!verdict.passed()));
                health.record(verdict.passed(), outcome.at.into_std())
            }
        };
        if let Some(state) = state {
            self.state = state;
            self.since = outcome.at;
        }
        self.row = health.row().0;
        self.history.push(&outcome.verdict);
        let news = self.last.as_ref().is_none_or(|last| last.verdict != outcome.verdict);
        self.last = Some(outcome);
        state.is_some() || news
    }
}

impl fmt::Display for ProbeReport {
    /// The state and its reason, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row;
        match self.last.as_ref().map(|last| &last.verdict) {
            None => write!(f, "{}, not probed yet", self.state),
            Some(Verdict::Pass) => write!(f, "{}, {row} passed in a row", self.state),
            Some(Verdict::Fail(why)) => write!(f, "{}, {row} failed in a row: {why}", self.state),
            Some(Verdict::NotMade(why)) => write!(f, "{}, not probed: {why}", self.state),
        }
    }
}

/// Probes, evaluates, publishes and waits, until no reader of the reports is left.
async fn follow<A: Future<Output = Verdict>>(
    ask: impl Fn() -> A,
    policy: HealthPolicy,
    begin: Instant,
    chance: impl Fn() -> f64,
    publish: watch::Sender<ProbeReport>,
    bell: Arc<Notify>,
) {
    let mut health = Health::new(policy, begin.into_std());
    let mut next = begin;
    while !publish.is_closed() {
        sleep_until(next).await;
        let began = Instant::now();
        let verdict = ask().await;
        let ended = Instant::now();
        let outcome = ProbeOutcome { verdict, at: ended, took: ended - began };
        if publish.send_if_modified(|report| report.take(outcome, &mut health)) {
            bell.notify_one();
        }
        next = Instant::from_std(health.next(began.into_std(), ended.into_std(), chance()));
    }
}

/// All probes of a service, side by side; all must pass. A definite failure counts more than
/// a probe that was not made.
async fn round(probes: Arc<Vec<Probe>>, limits: ProbeLimits) -> Verdict {
    if let [one] = probes.as_slice() {
        return limits.ask(one).await;
    }
    let limits = &limits;
    let all = join_all(probes.iter().map(|probe| async move { (probe, limits.ask(probe).await) }));
    let (mut failed, mut not_made) = (Vec::new(), Vec::new());
    for (probe, verdict) in all.await {
        match verdict {
            Verdict::Pass => {}
            Verdict::Fail(why) => failed.push(format!("{probe}: {why}")),
            Verdict::NotMade(why) => not_made.push(format!("{probe}: {why}")),
        }
    }
    match (failed.as_slice(), not_made.as_slice()) {
        ([], []) => Verdict::Pass,
        ([], _) => Verdict::NotMade(not_made.join("; ")),
        _ => Verdict::Fail(failed.join("; ")),
    }
}

#[cfg(test)]
mod tests;
