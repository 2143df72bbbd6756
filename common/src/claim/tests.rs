use super::record::RIVAL_RETRY;
use super::*;
use proptest::prelude::*;

fn key(id: &str) -> Key {
    format!("/services/apache/{id}").parse().unwrap()
}

fn wants(pairs: &[(&str, &str)]) -> Wants {
    let want = |v: &str| Want { value: v.into(), takeover: Takeover::SameValue, aim: Aim::Present };
    Wants::new(pairs.iter().map(|(k, v)| (key(k), want(v))).collect())
}

const LEASE: Lease = Lease { id: 7, ttl: Duration::from_secs(30) };

fn written(revision: u64) -> PutOutcome {
    PutOutcome::Written(Ownership { lease: LEASE.id, modified: Revision(revision) })
}

fn deleted(revision: u64) -> DeleteOutcome {
    DeleteOutcome::Deleted(Revision(revision))
}

fn found(value: &str, lease: i64) -> Entry {
    Entry { lease, ..Entry::new(key("a").as_str(), value, Revision(1)) }
}

fn refreshed(state: KeyState) -> RefreshOutcome {
    RefreshOutcome::Refreshed { revision: Revision(9), keys: vec![state] }
}

/// A claim that owns `a = x`.
fn owning(now: Instant) -> (Claim, Wants) {
    let mut claim = Claim::new(Ttl::DEFAULT);
    let wanted = wants(&[("a", "x")]);
    assert_eq!(claim.next(&wanted, now), Step::Grant);
    claim.record_grant(LEASE, now);
    let Step::Put(lease, puts) = claim.next(&wanted, now) else { panic!("a put is due") };
    assert_eq!((lease, puts[0].guard.clone()), (LEASE, Guard::Absent));
    claim.record_put(&puts[0], written(5), now);
    (claim, wanted)
}

fn only_put(step: Step) -> Put {
    match step {
        Step::Put(_, mut puts) if puts.len() == 1 => puts.remove(0),
        other => panic!("one put is due, not {other:?}"),
    }
}

#[tokio::test]
async fn an_owned_key_is_refreshed_at_a_third_of_its_ttl_and_counted_from_before_the_request() {
    let now = Instant::now();
    let (mut claim, wanted) = owning(now);
    assert_eq!(claim.next(&wanted, now), Step::Wait(now + Duration::from_secs(10)));
    let later = now + Duration::from_secs(10);
    let Step::Refresh(_, keys) = claim.next(&wanted, later) else { panic!("a refresh is due") };
    assert_eq!(claim.lease_until(), Some(now + Duration::from_secs(30)));
    claim.record_refresh(&keys, refreshed(KeyState::Ours(keys[0].1)), later);
    assert_eq!(claim.lease_until(), Some(later + Duration::from_secs(30)));
}

#[tokio::test]
async fn a_lost_lease_and_a_missing_key_lead_back_to_an_owned_key() {
    let now = Instant::now();
    let (mut claim, wanted) = owning(now);
    claim.record_refresh(
        &[(key("a"), Ownership { lease: 7, modified: Revision(5) })],
        RefreshOutcome::LeaseLost,
        now,
    );
    assert_eq!(claim.next(&wanted, now), Step::Grant);

    let (mut claim, wanted) = owning(now);
    let asked = [(key("a"), Ownership { lease: 7, modified: Revision(5) })];
    claim.record_refresh(&asked, refreshed(KeyState::Missing), now);
    assert_eq!(only_put(claim.next(&wanted, now)).guard, Guard::Absent);
}

#[tokio::test]
async fn a_new_value_differs_from_the_old_one_and_an_unanswered_write_from_absence() {
    let now = Instant::now();
    let (mut claim, _) = owning(now);
    let other = wants(&[("a", "y")]);
    let owned = |at, value: &str| KeyStatus::Owned { at: Revision(at), value: value.into() };
    assert_eq!(claim.status(&key("a"), true), owned(5, "x"));
    let put = only_put(claim.next(&other, now));
    claim.record_put(&put, written(6), now);
    assert_eq!(claim.status(&key("a"), true), owned(6, "y"));

    let mut claim = Claim::new(Ttl::DEFAULT);
    claim.record_grant(LEASE, now);
    claim.record_put_unanswered(&only_put(claim.next(&other, now)));
    assert_eq!(claim.status(&key("a"), false), KeyStatus::Pending, "it may be there");
    claim.record_delete(&key("a"), DeleteOutcome::Missing(Revision(8)), now);
    assert_eq!(claim.status(&key("a"), false), KeyStatus::Absent { removed: Some(Revision(8)) });
}

#[tokio::test]
async fn our_key_from_before_a_restart_is_taken_over_and_a_rivals_is_waited_for() {
    let now = Instant::now();
    let mut claim = Claim::new(Ttl::DEFAULT);
    let wanted = wants(&[("a", "x")]);
    claim.record_grant(LEASE, now);
    let put = only_put(claim.next(&wanted, now));
    let taken = |value, lease| PutOutcome::Taken { by: found(value, lease), revision: Revision(3) };
    claim.record_put(&put, taken("x", 99), now);
    assert_eq!(only_put(claim.next(&wanted, now)).guard, Guard::Value("x".into()));

    claim.record_put(&put, taken("other", 99), now);
    assert_eq!(claim.next(&wanted, now), Step::Wait(now + RIVAL_RETRY));
    assert_eq!(claim.status(&key("a"), true), KeyStatus::Rival { value: "other".into() });
    assert_eq!(only_put(claim.next(&wanted, now + RIVAL_RETRY)).guard, Guard::Absent);
}

#[tokio::test]
async fn a_key_of_an_instance_that_has_ended_is_taken_over_and_a_living_ones_is_not() {
    let now = Instant::now();
    let value = |boot: &str| format!(r#"{{"host":"h","boot":"{boot}"}}"#);
    let ended = Takeover::Instances(["me".to_owned(), "ended".to_owned()].into());
    let want = Want { value: value("me").into(), takeover: ended, aim: Aim::Present };
    let wanted = Wants::new([(key("a"), want)].into());
    for (boot, ours) in [("me", true), ("ended", true), ("rival", false)] {
        let mut claim = Claim::new(Ttl::DEFAULT);
        claim.record_grant(LEASE, now);
        let put = only_put(claim.next(&wanted, now));
        let by = found(&value(boot), 99);
        claim.record_put(&put, PutOutcome::Taken { by, revision: Revision(3) }, now);
        match claim.next(&wanted, now) {
            Step::Put(_, puts) if ours => {
                assert_eq!(puts[0].guard, Guard::Value(value(boot).into()), "{boot}");
            }
            step => assert_eq!((step, ours), (Step::Wait(now + RIVAL_RETRY), false), "{boot}"),
        }
    }
    assert!(!Takeover::Instances([].into()).allows(b"not JSON", b"x"));
}

#[tokio::test]
async fn what_an_earlier_instance_left_is_removed_once_and_only_with_our_value() {
    let now = Instant::now();
    let mut claim = Claim::new(Ttl::DEFAULT);
    let want = Want { value: "x".into(), takeover: Takeover::SameValue, aim: Aim::Absent };
    let cleared: Wants = Wants::new([(key("a"), want)].into());
    let delete = Delete { key: key("a"), guard: Guard::Value("x".into()), marker: None };
    assert_eq!(claim.next(&cleared, now), Step::Delete(vec![delete]));
    claim.record_delete(&key("a"), deleted(8), now);
    assert_eq!(claim.next(&cleared, now), Step::Idle);
    let removed = Some(Revision(8));
    assert_eq!(claim.status(&key("a"), false), KeyStatus::Absent { removed });

    // The leave marker goes with it.
    let (claim, _) = owning(now);
    let marker = Marker { key: key("leaving"), value: "m".into(), reads: Vec::new() };
    let aim = Aim::Left(marker.clone());
    let want = Want { value: "x".into(), takeover: Takeover::SameValue, aim };
    let left: Wants = Wants::new([(key("a"), want)].into());
    let Step::Delete(deletes) = claim.next(&left, now) else { panic!("a delete is due") };
    assert_eq!(deletes[0].marker, Some(marker));

    // What we own goes because it is ours, whatever its value; a successor's stays.
    let (claim, _) = owning(now);
    let Step::Delete(deletes) = claim.next(&cleared, now) else { panic!("a delete is due") };
    assert!(matches!(deletes[0].guard, Guard::Ours(_)), "{deletes:?}");
    let (mut claim, _) = owning(now);
    let asked = [(key("a"), Ownership { lease: 7, modified: Revision(5) })];
    claim.record_refresh(&asked, refreshed(KeyState::Foreign(found("x", 99))), now);
    assert_eq!(claim.next(&cleared, now), Step::Idle);
}

#[tokio::test]
async fn a_successor_with_our_value_is_not_fought() {
    let now = Instant::now();
    let (mut claim, wanted) = owning(now);
    let asked = [(key("a"), Ownership { lease: 7, modified: Revision(5) })];
    claim.record_refresh(&asked, refreshed(KeyState::Foreign(found("x", 99))), now);
    assert_eq!(claim.next(&wanted, now), Step::Wait(now + RIVAL_RETRY));
    // And leaving does not touch what is not ours.
    assert_eq!(claim.next(&wants(&[]), now), Step::Idle);
}

#[tokio::test]
async fn a_key_that_a_successor_took_differs_from_one_that_we_removed() {
    let now = Instant::now();
    let taken =
        |revision| DeleteOutcome::Taken { by: found("x", 99), revision: Revision(revision) };
    let (mut claim, _) = owning(now);
    claim.record_delete(&key("a"), taken(6), now);
    assert_eq!(claim.next(&wants(&[]), now), Step::Idle);
    assert_eq!(claim.status(&key("a"), false), KeyStatus::Rival { value: "x".into() });

    // A store that regressed may show a key of ours: nothing is certain.
    let (mut claim, _) = owning(now);
    claim.record_delete(&key("a"), taken(2), now);
    assert_eq!(claim.status(&key("a"), false), KeyStatus::Absent { removed: None });
}

#[tokio::test]
async fn after_the_store_went_backwards_a_key_with_an_old_lease_of_ours_is_taken_over() {
    let now = Instant::now();
    let (mut claim, wanted) = owning(now);
    let asked = [(key("a"), Ownership { lease: 7, modified: Revision(5) })];
    let restored = RefreshOutcome::Refreshed {
        revision: Revision(2),
        keys: vec![KeyState::Foreign(found("x", 6))],
    };
    claim.record_refresh(&asked, restored, now);
    assert_eq!(only_put(claim.next(&wanted, now)).guard, Guard::Value("x".into()));
}

#[tokio::test]
async fn a_write_without_an_answer_is_found_again_or_withdrawn() {
    let now = Instant::now();
    let mut claim = Claim::new(Ttl::DEFAULT);
    let wanted = wants(&[("a", "x")]);
    claim.record_grant(LEASE, now);
    let put = only_put(claim.next(&wanted, now));
    claim.record_put_unanswered(&put);
    let Step::Delete(deletes) = claim.next(&wants(&[]), now) else { panic!("it may be there") };
    assert_eq!(deletes[0].guard, Guard::Ours(Ownership { lease: 7, modified: Revision(0) }));

    let ours = PutOutcome::Taken { by: found("x", 7), revision: Revision(3) };
    claim.record_put(&put, ours, now);
    assert_eq!(
        claim.status(&key("a"), true),
        KeyStatus::Owned { at: Revision(1), value: "x".into() }
    );
}

#[tokio::test]
async fn a_v2_refresh_without_an_answer_does_not_make_us_our_own_rival() {
    let now = Instant::now();
    let mut claim = Claim::new(Ttl::DEFAULT);
    let wanted = wants(&[("a", "x")]);
    let v2 = Lease { id: 0, ..LEASE };
    claim.record_grant(v2, now);
    let put = only_put(claim.next(&wanted, now));
    let ownership = Ownership { lease: 0, modified: Revision(5) };
    claim.record_put(&put, PutOutcome::Written(ownership), now);
    let asked = [(key("a"), ownership)];
    claim.record_refresh_unanswered(&asked);
    claim.record_refresh(&asked, refreshed(KeyState::Foreign(found("x", 0))), now);
    assert_eq!(only_put(claim.next(&wanted, now)).guard, Guard::Value("x".into()));
}

#[tokio::test]
async fn a_delete_has_a_revision_and_a_new_value_is_guarded() {
    let now = Instant::now();
    let (mut claim, _) = owning(now);
    let put = only_put(claim.next(&wants(&[("a", "y")]), now));
    assert_eq!(put.guard, Guard::Ours(Ownership { lease: 7, modified: Revision(5) }));
    let Step::Delete(deletes) = claim.next(&wants(&[]), now) else { panic!("a delete is due") };
    claim.record_delete(&deletes[0].key, deleted(8), now);
    assert_eq!(claim.status(&key("a"), false), KeyStatus::Absent { removed: Some(Revision(8)) });
    assert_eq!(claim.next(&wants(&[]), now), Step::Idle);
}

/// A store of one key, as small as can be: who has it, under which lease.
#[derive(Debug, Clone, Default)]
struct Tiny {
    entry: Option<(String, i64)>,
    leases: Vec<i64>,
    next: i64,
    revision: u64,
}

impl Tiny {
    fn perform(&mut self, claim: &mut Claim, step: &Step, now: Instant) {
        self.revision += 1;
        let revision = Revision(self.revision);
        match step {
            Step::Grant => {
                self.next += 1;
                self.leases.push(self.next);
                claim.record_grant(Lease { id: self.next, ttl: LEASE.ttl }, now);
            }
            Step::Refresh(lease, keys) => {
                let known = self.leases.contains(&lease.id);
                let state = match &self.entry {
                    None => KeyState::Missing,
                    Some((_, id)) if *id == lease.id => {
                        KeyState::Ours(Ownership { lease: *id, modified: revision })
                    }
                    Some((value, id)) => KeyState::Foreign(found(value, *id)),
                };
                let keys_state = keys.iter().map(|_| state.clone()).collect();
                let answer = RefreshOutcome::Refreshed { revision, keys: keys_state };
                let outcome = if known { answer } else { RefreshOutcome::LeaseLost };
                claim.record_refresh(keys, outcome, now);
            }
            Step::Put(lease, puts) => {
                let put = &puts[0];
                let holds = match (&put.guard, &self.entry) {
                    (Guard::Absent, None) => true,
                    (Guard::Value(v), Some((value, _))) => v == value.as_bytes(),
                    (Guard::Ours(ours), Some((_, id))) => *id == ours.lease,
                    _ => false,
                };
                let outcome = if !self.leases.contains(&lease.id) {
                    PutOutcome::LeaseLost
                } else if holds {
                    self.entry = Some((String::from_utf8(put.value.clone()).unwrap(), lease.id));
                    PutOutcome::Written(Ownership { lease: lease.id, modified: revision })
                } else {
                    match &self.entry {
                        Some((value, id)) => PutOutcome::Taken { by: found(value, *id), revision },
                        None => PutOutcome::Missing { revision },
                    }
                };
                claim.record_put(put, outcome, now);
            }
            Step::Delete(deletes) => {
                if let (Guard::Ours(ours), Some((_, id))) = (&deletes[0].guard, &self.entry)
                    && ours.lease == *id
                {
                    self.entry = None;
                }
                claim.record_delete(&deletes[0].key, deleted(self.revision), now);
            }
            Step::Wait(_) | Step::Idle => {}
        }
    }

    fn disturb(&mut self, kind: u8) {
        match kind {
            0 => self.entry = None,
            1 => {
                self.leases.clear();
                self.entry = None;
            }
            2 => self.entry = Some(("rival".into(), 999)),
            3 => {
                self.entry = Some(("x".into(), 998));
                self.revision = 0;
            }
            _ => {}
        }
    }
}

proptest! {
    /// Whatever happens to the store, once it is left alone (and the rival has
    /// gone) a few refreshes lead to the wanted state.
    #[test]
    fn every_disturbance_heals(events in proptest::collection::vec((0u8..6, 0u64..12), 0..20), wanted: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let start = runtime.block_on(async { Instant::now() });
        let wants = if wanted { wants(&[("a", "x")]) } else { wants(&[]) };
        let (mut claim, mut store, mut now) = (Claim::new(Ttl::DEFAULT), Tiny::default(), start);
        for (kind, seconds) in events {
            now += Duration::from_secs(seconds);
            let step = claim.next(&wants, now);
            store.perform(&mut claim, &step, now);
            store.disturb(kind);
        }
        if store.entry.as_ref().is_some_and(|(_, id)| *id >= 998) {
            store.entry = None;
        }
        for _ in 0..40 {
            let step = claim.next(&wants, now);
            if let Step::Wait(until) = step {
                now = until;
            }
            store.perform(&mut claim, &step, now);
        }
        if wanted {
            prop_assert_eq!(store.entry.map(|(value, _)| value), Some("x".to_owned()));
            let owned = matches!(
                claim.status(&key("a"), true),
                KeyStatus::Owned { .. }
            );
            prop_assert!(owned, "the claim does not know that it owns the key");
        } else {
            prop_assert_eq!(store.entry, None);
        }
    }
}
