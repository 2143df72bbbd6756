use super::super::result::DrainResult;
use super::*;
use common::handshake::{Consumes, Rejection};
use common::model::Entry;

const KEY: &str = "/services/apache/10.0.0.1";
const R: u64 = 20;

fn book() -> Bookkeeping {
    Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap()
}

fn entry(key: &str, value: &impl serde::Serialize) -> (String, Entry) {
    let entry = Entry {
        lease: 1,
        ..Entry::new(key, serde_json::to_string(value).unwrap().as_str(), Revision(1))
    };
    (key.to_owned(), entry)
}

fn member(lb: &str, left: bool) -> (String, Entry) {
    let member = Member {
        host: lb.into(),
        version: "1".into(),
        instance_id: "b1".into(),
        advertise: None,
        status: None,
        resources: vec![Consumes { name: "web".into(), trees: vec!["/services/apache".into()] }],
        left,
    };
    entry(&format!("/confsync/members/{lb}"), &member)
}

fn ack(lb: &str, applied: u64, quiesced: u64) -> Ack {
    let _ = lb;
    Ack {
        instance_id: "b1".into(),
        applied: Revision(applied),
        quiesced: Revision(quiesced),
        retained: vec![],
        assumed: false,
        rejected: None,
        trouble: None,
        rejected_values: 0,
        driver: None,
    }
}

fn acked(lb: &str, ack: &Ack) -> (String, Entry) {
    acked_at(ack.applied.0 + 1, lb, ack)
}

fn acked_at(modified: u64, lb: &str, ack: &Ack) -> (String, Entry) {
    let (key, entry) = entry(&format!("/confsync/acks/web/{lb}"), ack);
    (key, Entry { modified: Revision(modified), ..entry })
}

fn snapshot(entries: impl IntoIterator<Item = (String, Entry)>) -> Snapshot {
    Snapshot {
        revision: Revision(R),
        cluster: 1,
        entries: entries
            .into_iter()
            .map(|(key, entry)| (std::sync::Arc::<str>::from(key), entry))
            .collect(),
    }
}

fn wait(goal: Goal, now: Instant) -> LoadBalancerWait {
    LoadBalancerWait::new(KEY.parse().unwrap(), Revision(R), goal, WaitBounds::default(), now)
}

fn confirmed(wait: &LoadBalancerWait, now: Instant) -> bool {
    over(wait, now).is_some_and(|result| result.summary() == DrainResult::Confirmed)
}

fn over(wait: &LoadBalancerWait, now: Instant) -> Option<HandshakeResult> {
    match wait.progress(now) {
        WaitProgress::Over(result) => Some(result),
        WaitProgress::Waiting { until } => {
            assert!(until > now, "a wait must end");
            None
        }
    }
}

#[tokio::test]
async fn every_member_must_apply_and_quiesce() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    wait.observe(&snapshot([member("a", false), member("b", false)]), &book(), now);
    assert_eq!(over(&wait, now), None);
    let half = [
        member("a", false),
        acked("a", &ack("a", R, R)),
        member("b", false),
        acked("b", &ack("b", R + 3, R - 1)),
    ];
    wait.observe(&snapshot(half), &book(), now);
    assert_eq!(over(&wait, now), None);
    let missing: Vec<String> = wait.missing().map(|missing| missing.to_string()).collect();
    assert_eq!(missing, ["b (old workers still finish requests)"]);
    let all = [
        member("a", false),
        acked("a", &ack("a", R, R)),
        member("b", false),
        acked("b", &ack("b", R + 3, R + 3)),
    ];
    wait.observe(&snapshot(all), &book(), now);
    let result = over(&wait, now).unwrap();
    assert_eq!(result.summary(), DrainResult::Confirmed);
    assert_eq!(result.to_string(), "confirmed by a, b");
}

#[tokio::test]
async fn what_was_acknowledged_before_a_restore_and_written_after_it_counts_for_nothing() {
    let now = Instant::now();
    let mut wait = wait(Goal::Served, now);
    let late = |modified| acked_at(modified, "a", &ack("a", R + 3, R + 3));
    wait.observe(&snapshot([member("a", false), late(R + 2)]), &book(), now);
    assert!(over(&wait, now).is_none());
    wait.observe(&snapshot([member("a", false), late(R + 4)]), &book(), now);
    assert!(confirmed(&wait, now));
}

#[tokio::test]
async fn joining_needs_only_applied() {
    let now = Instant::now();
    let mut wait = wait(Goal::Served, now);
    wait.observe(&snapshot([member("a", false), acked("a", &ack("a", R, 0))]), &book(), now);
    assert!(confirmed(&wait, now));
}

#[tokio::test]
async fn a_silent_member_is_waited_for_within_the_bound_and_named() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    wait.observe(&snapshot([member("a", false)]), &book(), now);
    assert_eq!(over(&wait, now + Duration::from_secs(9)), None);
    let result = over(&wait, now + Duration::from_secs(10)).unwrap();
    assert_eq!(result.summary(), DrainResult::Unconfirmed);
    assert_eq!(result.to_string(), "unconfirmed (a: has not applied the change)");
}

#[tokio::test]
async fn a_member_that_cannot_load_the_change_says_why() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    let failing = Ack { trouble: Some("reload_cmd: no".into()), ..ack("a", R - 1, R - 1) };
    wait.observe(&snapshot([member("a", false), acked("a", &failing)]), &book(), now);
    let result = over(&wait, now + Duration::from_secs(10)).unwrap();
    let text = "unconfirmed (a: has not applied the change, and tries again: reload_cmd: no)";
    assert_eq!(result.to_string(), text);
    wait.observe(&snapshot([member("a", false), acked("a", &ack("a", R, R))]), &book(), now);
    assert_eq!(over(&wait, now).unwrap().summary(), DrainResult::Confirmed);
}

#[tokio::test]
async fn an_old_life_of_a_load_balancer_confirms_nothing() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    let old = Ack { instance_id: "b0".into(), ..ack("a", R, R) };
    wait.observe(&snapshot([member("a", false), acked("a", &old)]), &book(), now);
    assert_eq!(over(&wait, now), None);
}

#[tokio::test]
async fn a_refusal_ends_the_wait_with_its_text() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    let refused = Ack {
        rejected: Some(Rejection {
            revision: Revision(R),
            reason: "on_empty = keep".into(),
            too_few_backends: false,
        }),
        ..ack("a", R - 1, R - 1)
    };
    wait.observe(&snapshot([member("a", false), acked("a", &refused)]), &book(), now);
    let result = over(&wait, now).unwrap();
    assert!(result.to_string().contains("on_empty = keep"), "{result}");

    let mut wait = super::tests::wait(Goal::Drained, now);
    let held = Ack { retained: vec![KEY.into()], ..ack("a", R, R) };
    wait.observe(&snapshot([member("a", false), acked("a", &held)]), &book(), now);
    assert_eq!(over(&wait, now), None, "it looks again");
    let result = over(&wait, now + Duration::from_secs(10)).unwrap();
    assert_eq!(result.unconfirmed[0].1, LoadBalancerState::Retaining);
}

#[tokio::test]
async fn a_member_that_renders_the_key_no_more_or_left_before_is_not_waited_for() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    wait.observe(&snapshot([member("a", false), member("b", true)]), &book(), now);
    assert_eq!(wait.load_balancers.keys().collect::<Vec<_>>(), ["a"]);
    let (key, entry) = member("a", false);
    let mut other: Member = serde_json::from_slice(&entry.value).unwrap();
    other.resources[0].trees = vec!["/services/tomcat".into()];
    let changed = super::tests::entry(&key, &other);
    wait.observe(&snapshot([changed]), &book(), now);
    assert_eq!(over(&wait, now).unwrap().to_string(), "confirmed by a");
}

#[tokio::test]
async fn a_key_out_of_a_backup_is_distinguished_from_a_successors() {
    let wait = wait(Goal::Drained, Instant::now());
    let with = |created| {
        let (key, entry) = entry(KEY, &"10.0.0.1:80");
        snapshot([(key, Entry { created: Revision(created), ..entry })])
    };
    assert!(wait.is_undone(&with(R - 1)));
    assert!(!wait.is_undone(&with(R + 1)));
    assert!(!wait.is_undone(&snapshot([])));
}

#[tokio::test]
async fn a_lost_member_costs_a_grace_and_one_that_left_costs_nothing() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    wait.observe(&snapshot([member("a", false), member("b", false)]), &book(), now);
    wait.observe(&snapshot([member("b", true)]), &book(), now);
    assert_eq!(over(&wait, now), None);
    wait.observe(&snapshot([]), &book(), now);
    let result = over(&wait, now + Duration::from_secs(5)).unwrap();
    assert_eq!(result.to_string(), "unconfirmed (a: lost: its lease ended)");
    assert_eq!(result.confirmed, ["b"]);
}

#[tokio::test]
async fn without_members_only_the_floor_holds_and_too_few_are_unconfirmed() {
    let now = Instant::now();
    let bounds = WaitBounds { least: Duration::from_secs(2), ..WaitBounds::default() };
    let mut wait =
        LoadBalancerWait::new(KEY.parse().unwrap(), Revision(R), Goal::Drained, bounds, now);
    wait.observe(&snapshot([]), &book(), now);
    assert_eq!(over(&wait, now), None);
    assert_eq!(
        over(&wait, now + Duration::from_secs(2)).unwrap().summary(),
        DrainResult::NoLoadBalancer
    );

    let bounds = WaitBounds { min_lbs: 1, ..WaitBounds::default() };
    let mut wait =
        LoadBalancerWait::new(KEY.parse().unwrap(), Revision(R), Goal::Drained, bounds, now);
    wait.observe(&snapshot([]), &book(), now);
    assert_eq!(
        over(&wait, now + Duration::from_secs(10)).unwrap().summary(),
        DrainResult::Unconfirmed
    );
}

#[tokio::test]
async fn members_of_other_services_are_not_waited_for_and_unreadable_ones_are() {
    let now = Instant::now();
    let mut wait = LoadBalancerWait::new(
        "/services/other/1".parse().unwrap(),
        Revision(R),
        Goal::Drained,
        WaitBounds::default(),
        now,
    );
    let broken = entry("/confsync/members/x", &"not a member");
    wait.observe(&snapshot([member("a", false)]), &book(), now);
    assert_eq!(over(&wait, now).unwrap().summary(), DrainResult::NoLoadBalancer);
    // One that cannot be read may be anybody's.
    wait.observe(&snapshot([member("a", false), broken]), &book(), now);
    let text = over(&wait, now + Duration::from_secs(10)).unwrap().to_string();
    assert_eq!(text, "unconfirmed (x: its member key cannot be read)");
}

#[tokio::test]
async fn a_load_balancer_that_needs_another_backend_is_waited_for() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    let rejected = Ack {
        rejected: Some(Rejection {
            revision: Revision(R),
            reason: "no backend is registered".into(),
            too_few_backends: true,
        }),
        ..ack("a", R - 1, R - 1)
    };
    wait.observe(&snapshot([member("a", false), acked("a", &rejected)]), &book(), now);
    assert_eq!(over(&wait, now + Duration::from_secs(9)), None);
    let text = over(&wait, now + Duration::from_secs(10)).unwrap().to_string();
    assert_eq!(text, "unconfirmed (a: needs another backend first: no backend is registered)");
    wait.observe(
        &snapshot([member("a", false), acked("a", &ack("a", R + 1, R + 1))]),
        &book(),
        now,
    );
    assert!(confirmed(&wait, now));
}

#[tokio::test]
async fn without_proof_a_drain_is_assumed() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    let assumed = Ack { assumed: true, ..ack("b", R, R) };
    let both =
        [member("a", false), acked("a", &ack("a", R, R)), member("b", false), acked("b", &assumed)];
    wait.observe(&snapshot(both), &book(), now);
    let result = over(&wait, now).unwrap();
    assert_eq!(result.summary(), DrainResult::Assumed);
    assert_eq!(result.to_string(), "assumed for b, known by commands alone; confirmed by a");
}

#[tokio::test]
async fn why_members_could_not_be_read_is_reported() {
    let now = Instant::now();
    let mut wait = wait(Goal::Drained, now);
    wait.cannot_read("permission denied");
    let text = over(&wait, now + Duration::from_secs(10)).unwrap().to_string();
    assert!(text.contains("cannot list the load balancers: permission denied"), "{text}");
}

mod bounded {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the members do, the wait is over when its longest bound is.
        #[test]
        fn no_wait_without_bound(events in proptest::collection::vec((0u8..6, 0u8..3, 0u64..8), 0..20)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let start = runtime.block_on(async { Instant::now() });
            let mut now = start;
            let mut wait = wait(Goal::Drained, start);
            let mut state: BTreeMap<String, Vec<(String, Entry)>> = BTreeMap::new();
            for (kind, lb, seconds) in events {
                now += Duration::from_secs(seconds);
                let lb = format!("lb{lb}");
                let entries = match kind {
                    0 => vec![member(&lb, false)],
                    1 => vec![member(&lb, false), acked(&lb, &ack(&lb, R, 0))],
                    2 => vec![member(&lb, false), acked(&lb, &ack(&lb, R, R))],
                    3 => vec![member(&lb, true)],
                    _ => vec![],
                };
                state.insert(lb, entries);
                wait.observe(&snapshot(state.values().flatten().cloned()), &book(), now);
            }
            let over = matches!(wait.progress(wait.deadline().max(now)), WaitProgress::Over(_));
            prop_assert!(now < wait.deadline() || over);
            prop_assert!(matches!(wait.progress(wait.deadline()), WaitProgress::Over(_)));
        }
    }
}
