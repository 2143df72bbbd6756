//! The backends that one resource routes to: those that etcd has, and those that are retained
//! although etcd does not have them any more.
//!
//! Pure. The evidence about lost backends is gathered elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::handshake::Acceptance;
use common::model::{Endpoint, changed_keys};

use crate::backends::loss_policy::{LossEvidence, LossJudgement, LossPolicy};
use crate::backends::{Backends, ParsedKeys, RegisteredBackend};
use crate::template::Texts;

/// The backends that one resource routes to, and why those are kept that are absent from etcd.
#[derive(Debug, Clone, Default)]
pub struct KnownBackends {
    /// The backends as last rendered.
    known: Backends,
    /// The values that templates saw then, those of the backends among them.
    texts: Texts,
    /// Those of them that are absent from etcd.
    retained: BTreeSet<String>,
    /// Those of the retained that left on purpose: their absence is no loss.
    left: BTreeSet<String>,
    /// Absent keys whose address is still routed to by another, retained key.
    shadowed: BTreeMap<String, Endpoint>,
    /// An operator accepted a loss: this many backends are enough, whatever the policy requires.
    accepted: Option<usize>,
    /// The id of the last acceptance that was acted on: each covers one loss.
    last_acceptance: Option<String>,
}

/// Backends whose loss is not verified yet; they are to be probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingBackends {
    /// The keys and where their backends listened.
    pub missing: BTreeMap<String, Endpoint>,
    /// The reason, for an operator.
    pub why: String,
}

impl KnownBackends {
    /// The losses that must be verified before `seen` is rendered. Retained backends are verified
    /// again each time, so that one is dropped once it stops accepting connections.
    pub fn unverified_losses(
        &self,
        policy: &LossPolicy,
        seen: &ParsedKeys,
        regressed: bool,
    ) -> Option<MissingBackends> {
        // Whether a key was only renamed is asked of all backends: not where so few are absent
        // that it makes no difference.
        let absent = self.absent(seen).count();
        let lost = self.absent(seen).filter(|(key, _)| !self.left.contains(&***key)).count();
        let known = self.known.len() - (absent - lost);
        let judgement = policy.judge(lost, known, is_none_left(seen), regressed);
        if judgement == LossJudgement::Accept && self.retained.is_empty() {
            return None;
        }
        self.losses_without_renamed(policy, seen, regressed)
    }

    fn losses_without_renamed(
        &self,
        policy: &LossPolicy,
        seen: &ParsedKeys,
        regressed: bool,
    ) -> Option<MissingBackends> {
        let missing = self.missing(seen);
        let lost: BTreeSet<String> = missing.difference(&self.left).cloned().collect();
        if lost.is_empty() {
            return None;
        }
        // Those that left, and keys that were only renamed, are no part of what could be lost.
        let known = self.known.len() - (self.absent(seen).count() - lost.len());
        let judgement = policy.judge(lost.len(), known, is_none_left(seen), regressed);
        let (missing, why) = match judgement {
            LossJudgement::Verify { why } => (lost, why),
            LossJudgement::Accept => {
                let retained: BTreeSet<String> =
                    self.retained.intersection(&lost).cloned().collect();
                if retained.is_empty() {
                    return None;
                }
                let why = format!("{} still retained", retained.len());
                (retained, why)
            }
        };
        let place = |key: String| {
            let addr = self.known.get(key.as_str())?.backend.addr.clone();
            Some((key, addr))
        };
        Some(MissingBackends { missing: missing.into_iter().filter_map(place).collect(), why })
    }

    /// The known keys that are absent. A key whose address another key of its service has
    /// registered was only renamed, and is not among them.
    pub fn missing(&self, seen: &ParsedKeys) -> BTreeSet<String> {
        type Address<'a> = (&'a Endpoint, &'a str);
        fn address(registered: &RegisteredBackend) -> Address<'_> {
            (&registered.backend.addr, &registered.service)
        }
        let absent: Vec<_> = self.absent(seen).collect();
        // Nearly always one among thousands: to look each of them up in a short sorted list is
        // cheaper than to hash it.
        let mut theirs: Vec<Address<'_>> = absent.iter().map(|(_, r)| address(r)).collect();
        if theirs.is_empty() {
            return BTreeSet::new();
        }
        theirs.sort_unstable();
        let now = seen.backends.values().map(|registered| address(registered));
        let renamed: BTreeSet<Address<'_>> =
            now.filter(|at| theirs.binary_search(at).is_ok()).collect();
        let missing = absent.iter().filter(|(_, r)| !renamed.contains(&address(r)));
        missing.map(|(key, _)| key.to_string()).collect()
    }

    /// The known keys that etcd does not have. One whose value became invalid is rejected by name,
    /// and not absent.
    fn absent<'k>(
        &'k self,
        seen: &'k ParsedKeys,
    ) -> impl Iterator<Item = (&'k Arc<str>, &'k RegisteredBackend)> {
        let gone = changed_keys(&self.known, &seen.backends);
        let gone = gone.filter(|key| !seen.backends.contains_key(*key));
        let absent = gone.filter(|key| !seen.rejected.contains_key(*key));
        absent.filter_map(|key| Some((key, &**self.known.get(key)?)))
    }

    /// Notes that these keys leave on purpose, for as long as they are routed to: the leave marker
    /// itself ends with the process that wrote it.
    pub fn note_leaving(&mut self, keys: &BTreeSet<String>) {
        let known = keys.iter().filter(|key| self.known.contains_key(key.as_str()));
        self.left.extend(known.cloned());
    }

    /// The addresses of backends that left or leave on purpose.
    pub fn left_addresses(&self) -> BTreeSet<&Endpoint> {
        let place = |key: &String| Some(&self.known.get(key.as_str())?.backend.addr);
        self.left.iter().filter_map(place).collect()
    }

    /// Applies an operator's acceptance of a loss. `false`: it is about another loss than that of
    /// `seen`, or was applied before.
    pub fn accept(&mut self, word: &Acceptance, seen: &ParsedKeys) -> bool {
        let missing = self.missing(seen);
        if self.last_acceptance.as_ref() == Some(&word.id) || !missing.is_subset(&word.keys) {
            return false;
        }
        self.last_acceptance = Some(word.id.clone());
        self.left.extend(missing);
        self.accepted = Some(seen.backend_count());
        true
    }

    /// Whether an operator has accepted that only `count` backends are left.
    pub fn is_accepted(&self, count: usize) -> bool {
        self.accepted.is_some_and(|least| count >= least)
    }

    /// Enough backends are registered again: the acceptance no longer applies.
    pub fn end_acceptance(&mut self) {
        self.accepted = None;
    }

    /// Adds the backends that the evidence retains to `seen`, and returns their keys.
    pub fn retain_lost(
        &self,
        seen: &mut ParsedKeys,
        evidence: &BTreeMap<String, LossEvidence>,
        losses: &MissingBackends,
    ) -> BTreeSet<String> {
        let missing = losses.missing.keys().cloned().collect();
        let retained = LossPolicy::retained(&missing, evidence);
        self.add(seen, &retained);
        retained
    }

    /// Adds every absent backend to `seen`, because too few are left without them, and returns
    /// their keys. Those that left on purpose are included only if there are no others.
    pub fn retain_all_lost(&self, seen: &mut ParsedKeys) -> BTreeSet<String> {
        let missing = self.missing(seen);
        let lost: BTreeSet<String> = missing.difference(&self.left).cloned().collect();
        let none_left = lost.is_empty() && seen.backends.is_empty();
        let retained = if none_left { missing } else { lost };
        self.add(seen, &retained);
        retained
    }

    fn add(&self, seen: &mut ParsedKeys, keys: &BTreeSet<String>) {
        for key in keys {
            if let Some((key, registered)) = self.known.get_key_value(key.as_str()) {
                seen.backends.insert(Arc::clone(key), Arc::clone(registered));
                let text = self.texts.get(key).cloned().unwrap_or_default();
                seen.entries.insert(Arc::clone(key), text);
            }
        }
    }

    /// Takes over `seen` as the backends that are routed to from now on.
    pub fn adopt(&mut self, seen: &ParsedKeys, retained: BTreeSet<String>) {
        let address = |key: &str| Some(&seen.backends.get(key)?.backend.addr);
        let routed: BTreeSet<&Endpoint> = retained.iter().filter_map(|key| address(key)).collect();
        let changed = changed_keys(&self.known, &seen.backends);
        let gone = changed.filter(|key| !seen.backends.contains_key(*key));
        let gone = gone.filter_map(|key| Some((key, self.known.get(key)?)));
        self.shadowed.extend(gone.map(|(key, r)| (key.to_string(), r.backend.addr.clone())));
        self.shadowed
            .retain(|key, addr| routed.contains(addr) && !seen.backends.contains_key(key.as_str()));
        (self.known, self.texts) = (seen.backends.clone(), seen.entries.clone());
        self.left.retain(|key| retained.contains(key));
        self.retained = retained;
    }

    /// Drops the keys that are not read any more: the resource reads other trees now.
    pub fn forget_unread(&mut self, is_read: impl Fn(&str) -> bool) {
        let known = self.known.iter().filter(|(key, _)| is_read(key));
        self.known = known.map(|(key, r)| (Arc::clone(key), Arc::clone(r))).collect();
        self.retained.retain(|key| is_read(key));
        self.left.retain(|key| is_read(key));
        self.shadowed.retain(|key, _| is_read(key));
    }

    /// The keys that are absent from etcd and still routed to.
    pub fn retained(&self) -> &BTreeSet<String> {
        &self.retained
    }

    /// Absent keys whose address is still routed to: the retained ones, and those that share the
    /// address of one of them.
    pub fn still_routed(&self) -> impl Iterator<Item = &String> {
        self.retained.iter().chain(self.shadowed.keys())
    }

    /// The backends that are routed to, by key.
    pub fn backends(&self) -> &Backends {
        &self.known
    }
}

fn is_none_left(seen: &ParsedKeys) -> bool {
    seen.backends.is_empty() && seen.rejected.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Backend;
    use proptest::prelude::*;

    fn seen(ids: &[&str]) -> ParsedKeys {
        let mut seen = ParsedKeys::default();
        for id in ids {
            let value = format!("10.0.0.{id}:80");
            let backend = Backend::parse(value.as_bytes()).unwrap();
            let registered = RegisteredBackend {
                service: "apache".into(),
                backend,
                raw: None,
                is_setting: false,
            };
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
        let retained =
            known.retain_lost(&mut now, &evidence(&[("2", LossEvidence::Silent)]), &losses);
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
}
