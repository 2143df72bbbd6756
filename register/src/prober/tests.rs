use std::num::NonZeroU32;
use std::sync::Mutex;

use tokio::net::TcpListener;

use super::*;
use crate::probe::{Check, HttpOptions, Trust};

fn policy() -> HealthPolicy {
    HealthPolicy {
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
    Probe::prepare(check, Duration::from_secs(2), &mut Trust::default()).unwrap()
}

fn begin(check: &str, limits: &ProbeLimits) -> ServiceProbe {
    let bell = Arc::new(Notify::new());
    start(vec![probe(check)], policy(), limits.clone(), bell, Duration::ZERO)
}

async fn until(probing: &mut ServiceProbe, state: HealthState) -> ProbeReport {
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
    let (tell, _report) = watch::channel(ProbeReport::new(start));
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
    let mut probing = begin(&at, &ProbeLimits::default());
    until(&mut probing, HealthState::Up).await;
    drop(listener);
    let first = |report: &ProbeReport| report.last.as_ref().is_some_and(|o| !o.verdict.passed());
    let noticed = probing.report.wait_for(first).await.unwrap().last.clone().unwrap().at;
    let report = until(&mut probing, HealthState::Down).await;
    assert!(report.since - noticed <= Duration::from_secs(1) * 3 + Duration::from_secs(2));
    let Some(ProbeOutcome { verdict: Verdict::Fail(why), .. }) = report.last else { panic!() };
    assert!(why.contains("refused"), "{why}");
    assert_eq!((report.row, report.failures), (3, 3));
    assert!(probing.report.borrow().to_string().starts_with("down, 3 failed in a row: cannot"));
}

#[tokio::test(start_paused = true)]
async fn a_hung_backend_delays_no_other() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let limits = ProbeLimits::default();
    let mut hung = begin(&url, &limits);
    let mut well = begin("none", &limits);
    let start = Instant::now();
    let report = until(&mut well, HealthState::Up).await;
    assert!(report.since - start < Duration::from_millis(1_200));
    let report = until(&mut hung, HealthState::Down).await;
    assert_eq!(report.last.unwrap().took.as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_place_is_no_failure() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = silent.local_addr().unwrap();
    let limits = ProbeLimits::new(1, 1);
    let _hung = begin(&format!("http://{at}/"), &limits);
    let mut well = begin(&format!("tcp://{at}"), &limits);
    let report = until(&mut well, HealthState::Up).await;
    assert_eq!(report.failures, 0);
}

#[tokio::test]
async fn all_checks_must_pass_and_each_reason_is_reported() {
    let bell = Arc::new(Notify::new());
    let probes = vec![probe("none"), probe("exec:false"), probe("tcp")];
    let probing =
        start(probes, policy(), ProbeLimits::default(), Arc::clone(&bell), Duration::ZERO);
    bell.notified().await;
    let last = probing.report.borrow().last.clone().unwrap();
    let Verdict::Fail(why) = last.verdict else { panic!("it passed") };
    assert!(why.starts_with("exec:false: exit code 1; tcp://127.0.0.1:1: cannot"), "{why}");
}

#[test]
fn a_probe_that_was_not_made_changes_no_health() {
    let now = Instant::from_std(std::time::Instant::now());
    let mut health = Health::new(policy(), now.into_std());
    let mut report = ProbeReport::new(now);
    let mut take = |verdict: Verdict| {
        let outcome = ProbeOutcome { verdict, at: now, took: Duration::ZERO };
        let news = report.take(outcome, &mut health);
        (news, report.state, report.history.to_string())
    };
    let want = || Verdict::NotMade("too many open files".into());
    take(Verdict::Pass);
    assert_eq!(take(Verdict::Pass), (true, HealthState::Up, "PP".to_owned()));
    for nth in 0..70 {
        assert_eq!(take(want()).0, nth == 0, "the first of a row is news");
    }
    let (_, state, history) = take(Verdict::Fail("refused".into()));
    assert_eq!((state, history), (HealthState::Up, format!("{}F", "?".repeat(63))));
    take(Verdict::Fail("refused".into()));
    assert_eq!(take(Verdict::Fail("refused".into())).1, HealthState::Down);
    assert_eq!((report.probes, report.failures, report.not_made), (5, 3, 70));
}

#[tokio::test(start_paused = true)]
async fn the_bell_rings_for_news_and_not_for_each_probe() {
    let bell = Arc::new(Notify::new());
    let probing = start(
        vec![probe("none")],
        policy(),
        ProbeLimits::default(),
        Arc::clone(&bell),
        Duration::ZERO,
    );
    bell.notified().await;
    assert_eq!(probing.report.borrow().state, HealthState::Starting);
    bell.notified().await;
    assert_eq!(probing.report.borrow().to_string(), "up, 2 passed in a row");
    let quiet = tokio::time::timeout(Duration::from_secs(60), bell.notified()).await;
    assert!(quiet.is_err());
    assert!(probing.report.borrow().probes > 10);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_services_are_small_tasks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let limits = ProbeLimits::default();
    let mut all: Vec<_> = (0..1_000).map(|_| begin(&at, &limits)).collect();
    for probing in &mut all {
        until(probing, HealthState::Up).await;
    }
    let probes = Arc::new(vec![probe("http")]);
    let (tell, _report) = watch::channel(ProbeReport::new(Instant::now()));
    let ask = move || round(Arc::clone(&probes), ProbeLimits::default());
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
