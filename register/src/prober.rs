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
pub struct Report {
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
    pub report: watch::Receiver<Report>,
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
    let (tell, report) = watch::channel(Report::new(Instant::now()));
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

impl Report {
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

/// Asks, judges, publishes and waits, until nobody reads the reports any more.
async fn follow<A: Future<Output = Verdict>>(
    ask: impl Fn() -> A,
    policy: Policy,
    begin: Instant,
    chance: impl Fn() -> f64,
    tell: watch::Sender<Report>,
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
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Mutex;

    use tokio::net::TcpListener;

    use super::*;
    use crate::probe::{Check, HttpOptions};

    fn policy() -> Policy {
        Policy {
            rise: NonZeroU32::new(2).unwrap(),
            fall: NonZeroU32::new(3).unwrap(),
            interval: Duration::from_secs(5),
            fast: Duration::from_secs(1),
            grace: Duration::ZERO,
        }
    }

    fn probe(check: &str) -> Probe {
        let own = "127.0.0.1:1".parse().unwrap();
        let check = Check::parse(check, &own, &HttpOptions::default()).unwrap();
        Probe::prepare(check, Duration::from_secs(2)).unwrap()
    }

    fn begin(check: &str, limits: &Limits) -> Probing {
        let bell = Arc::new(Notify::new());
        start(vec![probe(check)], policy(), limits.clone(), bell, Duration::ZERO)
    }

    async fn until(probing: &mut Probing, state: State) -> Report {
        probing.report.wait_for(|report| report.state == state).await.unwrap().clone()
    }

    /// When each of these results is asked for, in seconds from the start.
    async fn times(results: &str, took: Duration) -> Vec<f64> {
        let start = Instant::now();
        let asked = Mutex::new(Vec::new());
        let ask = || async {
            let n = {
                let mut asked = asked.lock().unwrap();
                asked.push((start.elapsed().as_secs_f64() * 10.0).round() / 10.0);
                asked.len()
            };
            tokio::time::sleep(took).await;
            match results.as_bytes().get(n - 1) {
                None => std::future::pending().await,
                Some(b'P') => Verdict::Pass,
                Some(_) => Verdict::Fail("no".into()),
            }
        };
        let (tell, _report) = watch::channel(Report::new(start));
        let bell = Arc::new(Notify::new());
        let endless = follow(ask, policy(), start, || 0.5, tell, bell);
        assert!(tokio::time::timeout(Duration::from_secs(100), endless).await.is_err());
        asked.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_schedule_is_fast_while_something_may_change() {
        let quick = Duration::ZERO;
        // Up after two passes, then slow; one failure makes it fast again.
        assert_eq!(times("PPPPFP", quick).await, [0.0, 1.0, 6.0, 11.0, 16.0, 17.0, 22.0]);
        // Down after three, then slow; a pass makes it fast.
        assert_eq!(times("FFFFP", quick).await, [0.0, 1.0, 2.0, 7.0, 12.0, 13.0]);
        // A probe that takes two seconds is followed at once, never overlapped.
        assert_eq!(times("FFF", Duration::from_secs(2)).await, [0.0, 2.0, 4.0, 9.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_backend_is_down_within_fast_times_fall_and_a_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("tcp://{}", listener.local_addr().unwrap());
        let mut probing = begin(&at, &Limits::default());
        until(&mut probing, State::Up).await;
        drop(listener);
        let first = |report: &Report| report.last.as_ref().is_some_and(|o| !o.verdict.passed());
        let noticed = probing.report.wait_for(first).await.unwrap().last.clone().unwrap().at;
        let report = until(&mut probing, State::Down).await;
        assert!(report.since - noticed <= Duration::from_secs(1) * 3 + Duration::from_secs(2));
        let Some(Outcome { verdict: Verdict::Fail(why), .. }) = report.last else { panic!() };
        assert!(why.contains("refused"), "{why}");
        assert_eq!((report.row, report.failures), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_backend_delays_no_other() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let limits = Limits::default();
        let mut hung = begin(&url, &limits);
        let mut well = begin("none", &limits);
        let start = Instant::now();
        let report = until(&mut well, State::Up).await;
        assert!(report.since - start < Duration::from_millis(1_200));
        let report = until(&mut hung, State::Down).await;
        assert_eq!(report.last.unwrap().took.as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_place_is_no_failure() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = silent.local_addr().unwrap();
        let limits = Limits::new(1, 1);
        let _hung = begin(&format!("http://{at}/"), &limits);
        let mut well = begin(&format!("tcp://{at}"), &limits);
        let report = until(&mut well, State::Up).await;
        assert_eq!(report.failures, 0);
    }

    #[tokio::test]
    async fn all_checks_must_pass_and_each_reason_is_told() {
        let bell = Arc::new(Notify::new());
        let probes = vec![probe("none"), probe("exec:false"), probe("tcp")];
        let probing = start(probes, policy(), Limits::default(), Arc::clone(&bell), Duration::ZERO);
        bell.notified().await;
        let last = probing.report.borrow().last.clone().unwrap();
        let Verdict::Fail(why) = last.verdict else { panic!("it passed") };
        assert!(why.starts_with("exec:false: exit code 1; tcp://127.0.0.1:1: cannot"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_bell_rings_for_news_and_not_for_each_probe() {
        let bell = Arc::new(Notify::new());
        let probing = start(
            vec![probe("none")],
            policy(),
            Limits::default(),
            Arc::clone(&bell),
            Duration::ZERO,
        );
        bell.notified().await;
        assert_eq!(probing.report.borrow().state, State::Starting);
        bell.notified().await;
        assert_eq!(probing.report.borrow().state, State::Up);
        let quiet = tokio::time::timeout(Duration::from_secs(60), bell.notified()).await;
        assert!(quiet.is_err());
        assert!(probing.report.borrow().probes > 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_services_are_small_tasks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("tcp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let limits = Limits::default();
        let mut all: Vec<_> = (0..1_000).map(|_| begin(&at, &limits)).collect();
        for probing in &mut all {
            until(probing, State::Up).await;
        }
        let probes = Arc::new(vec![probe("http")]);
        let (tell, _report) = watch::channel(Report::new(Instant::now()));
        let ask = move || round(Arc::clone(&probes), Limits::default());
        let bell = Arc::new(Notify::new());
        let task = follow(ask, policy(), Instant::now(), fastrand::f64, tell, bell);
        let size = size_of_val(&task);
        assert!(size < 2_048, "{size} bytes");
    }

    #[test]
    fn the_start_is_spread_only_where_there_are_many() {
        assert_eq!(spread(1), Duration::ZERO);
        assert_eq!(spread(1_000), Duration::from_millis(999));
        assert_eq!(spread(1_000_000), Duration::from_secs(5));
    }
}
