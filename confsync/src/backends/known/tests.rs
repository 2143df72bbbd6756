use super::*;
use common::model::Backend;
use proptest::prelude::*;

fn seen(ids: &[&str]) -> ParsedKeys {
    let mut seen = ParsedKeys::default();
    for id in ids {
        let value = format!("10.0.0.{id}:80");
        let backend = Backend::parse(value.as_bytes()).unwrap();
        let registered =
            RegisteredBackend { service: "apache".into(), backend, raw: None, is_setting: false };
        let key: Arc<str> = format!("/services/apache/{id}").into();
        seen.backends.insert(Arc::clone(&key), Arc::new(registered));
        seen.entries.insert(key, value.into());
    }
    seen
}

fn evidence(of: &[(&str, LossEvidence)]) -> BTreeMap<String, LossEvidence> {
    of.iter().map(|(id, e)| (format!("/services/apache/{id}"), *e)).collect()
}

#[test]
fn what_answers_is_retained_until_it_falls_silent_or_is_registered_again() {
    let policy = LossPolicy::default();
    let mut known = KnownBackends::default();
    known.adopt(&seen(&["1", "2", "3"]), BTreeSet::new());

    let mut now = seen(&[]);
    let losses = known.unverified_losses(&policy, &now, false).unwrap();
    assert_eq!(losses.missing.len(), 3);
    let answers = evidence(&[
        ("1", LossEvidence::Answers),
        ("2", LossEvidence::Answers),
        ("3", LossEvidence::Silent),
    ]);
    let retained = known.retain_lost(&mut now, &answers, &losses);
    assert_eq!((retained.len(), now.backends.len()), (2, 2));
    known.adopt(&now, retained);

    // One comes back, the other falls silent.
    let mut now = seen(&["1"]);
    let losses = known.unverified_losses(&policy, &now, false).unwrap();
    assert_eq!(losses.missing.keys().collect::<Vec<_>>(), ["/services/apache/2"]);
    let retained = known.retain_lost(&mut now, &evidence(&[("2", LossEvidence::Silent)]), &losses);
    assert!(retained.is_empty());
    known.adopt(&now, retained);
    assert_eq!(known.unverified_losses(&policy, &seen(&["1"]), false), None);
}

#[test]
fn backends_that_are_no_longer_read_are_not_missing() {
    let mut known = KnownBackends::default();
    known.adopt(&seen(&["1", "2"]), BTreeSet::from(["/services/apache/2".to_owned()]));
    known.forget_unread(|key| key.ends_with('1'));
    assert!(known.retained().is_empty());
    assert_eq!(known.unverified_losses(&LossPolicy::default(), &seen(&["1"]), false), None);
}

#[test]
fn a_deregistered_backend_is_no_loss_when_another_key_comes() {
    let mut known = KnownBackends::default();
    known.adopt(&seen(&["1"]), BTreeSet::new());
    known.note_leaving(&BTreeSet::from(["/services/apache/1".to_owned()]));
    // The last file is kept meanwhile.
    let mut now = seen(&[]);
    let retained = known.retain_all_lost(&mut now);
    assert_eq!(now.backends.len(), 1);
    known.adopt(&now, retained);
    assert_eq!(known.unverified_losses(&LossPolicy::default(), &seen(&["2"]), false), None);
    // Registered again and gone again without a leave marker: a loss like any other.
    known.adopt(&seen(&["1"]), BTreeSet::new());
    assert!(known.unverified_losses(&LossPolicy::default(), &seen(&["2"]), false).is_some());
}

#[test]
fn the_same_address_under_another_key_is_not_missing_and_keeps_no_removal_secret() {
    let moved = |key: &str, id: &str| {
        let mut seen = seen(&[id]);
        let value = seen.backends.remove(format!("/services/apache/{id}").as_str()).unwrap();
        seen.backends.insert(key.into(), value);
        seen
    };
    let mut known = KnownBackends::default();
    known.adopt(&seen(&["1"]), BTreeSet::new());
    let (policy, now) = (LossPolicy::default(), moved("/services/apache/other", "1"));
    assert_eq!(known.unverified_losses(&policy, &now, false), None);

    // One key is retained; a second of that address came and goes.
    let mut both = seen(&["1"]);
    both.backends.extend(now.backends.clone());
    let retained = BTreeSet::from(["/services/apache/1".to_owned()]);
    known.adopt(&both, retained.clone());
    known.adopt(&seen(&["1"]), retained);
    let routed: Vec<_> = known.still_routed().cloned().collect();
    assert_eq!(routed, ["/services/apache/1", "/services/apache/other"]);
    known.adopt(&seen(&["2"]), BTreeSet::new());
    assert_eq!(known.still_routed().count(), 0);
}

#[test]
fn what_an_operator_accepts_is_this_loss_and_no_later_one() {
    let word = |id: &str, keys: &[&str]| Acceptance {
        id: id.to_owned(),
        keys: keys.iter().map(|id| format!("/services/apache/{id}")).collect(),
    };
    let mut known = KnownBackends::default();
    known.adopt(&seen(&["1", "2"]), BTreeSet::new());
    assert!(!known.accept(&word("a", &["1"]), &seen(&[])), "it is about another loss");
    assert!(known.accept(&word("b", &["1", "2", "3"]), &seen(&[])));
    assert!(known.is_accepted(0));
    assert_eq!(known.unverified_losses(&LossPolicy::default(), &seen(&[]), false), None);
    known.adopt(&seen(&[]), BTreeSet::new());
    known.end_acceptance();
    known.adopt(&seen(&["1"]), BTreeSet::new());
    assert!(!known.accept(&word("b", &["1", "2", "3"]), &seen(&[])), "acted on before");
    assert!(known.unverified_losses(&LossPolicy::default(), &seen(&[]), false).is_some());
}

proptest! {
    #[test]
    fn renamed_keys_are_looked_for_wherever_they_make_a_difference(
        before in proptest::collection::btree_map(0u8..12, 0u8..6, 0..12),
        now in proptest::collection::btree_map(0u8..12, 0u8..6, 0..12),
        left in proptest::collection::btree_set(0u8..12, 0..4),
        retained in proptest::collection::btree_set(0u8..12, 0..2),
        max_loss in 0.0f64..1.0,
        regressed: bool,
    ) {
        // Keys by number, each with the number of its address.
        let at = |all: &BTreeMap<u8, u8>| {
            let mut parsed = ParsedKeys::default();
            for (id, address) in all {
                let mut one = seen(&[&address.to_string()]);
                let (_, registered) = one.backends.remove_with_key(
                    format!("/services/apache/{address}").as_str()).unwrap();
                parsed.backends.insert(key(*id).into(), registered);
            }
            parsed
        };
        let (before, now) = (at(&before), at(&now));
        let of_before = |ids: BTreeSet<u8>| -> BTreeSet<String> {
            let keys = ids.into_iter().map(key);
            keys.filter(|key| before.backends.contains_key(key.as_str())).collect()
        };
        let mut known = KnownBackends::default();
        known.adopt(&before, of_before(retained));
        known.note_leaving(&of_before(left));
        let policy = LossPolicy { max_loss, ..LossPolicy::default() };
        prop_assert_eq!(
            known.unverified_losses(&policy, &now, regressed),
            known.losses_without_renamed(&policy, &now, regressed)
        );
    }
}

fn key(id: u8) -> String {
    format!("/services/apache/k{id}")
}
