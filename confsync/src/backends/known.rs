//! The set of backends that is routed to, as one resource believes it: what the
//! store says, and what is held against it.
//!
//! Pure. The evidence is gathered elsewhere and handed in.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use common::handshake::Acceptance;
use common::model::{Endpoint, StoredValue};

use crate::backends::loss_policy::{LossEvidence, LossJudgement, LossPolicy};
use crate::backends::{ParsedKeys, RegisteredBackend};

/// What one resource believes.
#[derive(Debug, Clone, Default)]
pub struct KnownBackends {
    /// Backends and what templates see of them, by key, as last rendered.
    believed: BTreeMap<Arc<str>, (Arc<RegisteredBackend>, StoredValue)>,
    /// Those of them that the store does not have any more.
    held: BTreeSet<String>,
    /// Those of these that left on purpose: they are no loss.
    left: BTreeSet<String>,
    /// Keys that are gone while another key, which is held, routes to their address.
    shadowed: BTreeMap<String, Endpoint>,
    /// As many backends are enough, whatever the policy says: an operator accepted the loss.
    accepted: Option<usize>,
    /// The operator's word that was acted on last: it is about one loss.
    heard: Option<String>,
}

/// Backends whose loss is doubted, to be asked for evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingBackends {
    /// The keys and where their backends listened.
    pub missing: BTreeMap<String, Endpoint>,
    /// In the operator's words.
    pub why: String,
}

impl KnownBackends {
    /// Which losses must be looked into before `seen` is believed. What is held is
    /// looked into again each time, so that it is let go when it falls silent.
    #[must_use]
    pub fn doubt(
        &self,
        policy: &LossPolicy,
        seen: &ParsedKeys,
        regressed: bool,
    ) -> Option<MissingBackends> {
        let absent = self.missing(seen);
        let lost: BTreeSet<String> = absent.difference(&self.left).cloned().collect();
        if lost.is_empty() {
            return None;
        }
        let now: BTreeSet<String> = present(seen).map(str::to_owned).collect();
        let is_known = |key: &&Arc<str>| now.contains(&***key) || lost.contains(&***key);
        let known = self.believed.keys().filter(is_known).map(ToString::to_string).collect();
        let (missing, why) = match policy.judge(&known, &now, regressed) {
            LossJudgement::MissingBackends { missing, why } => (missing, why),
            LossJudgement::Believe => {
                let held: BTreeSet<String> = self.held.intersection(&lost).cloned().collect();
                if held.is_empty() {
                    return None;
                }
                let why = format!("{} still held", held.len());
                (held, why)
            }
        };
        let place = |key: String| {
            let addr = self.believed.get(key.as_str())?.0.backend.addr.clone();
            Some((key, addr))
        };
        Some(MissingBackends { missing: missing.into_iter().filter_map(place).collect(), why })
    }

    /// The keys that are believed and absent. One whose address is registered by another key of
    /// its service has only changed its name.
    #[must_use]
    pub fn missing(&self, seen: &ParsedKeys) -> BTreeSet<String> {
        let absent = self.believed.iter().filter(|(key, _)| !seen.backends.contains_key(*key));
        let mut absent: BTreeMap<&str, &RegisteredBackend> =
            absent.map(|(key, (registered, _))| (&**key, &**registered)).collect();
        if !absent.is_empty() {
            // A value that turned bad is refused by name, not missing.
            for refused in &seen.refused {
                absent.remove(refused.key.as_str());
            }
            let place = |r: &RegisteredBackend| (r.service.to_string(), r.backend.addr.clone());
            let places: HashSet<_> = seen.backends.values().map(|r| place(r)).collect();
            absent.retain(|_, registered| !places.contains(&place(registered)));
        }
        absent.into_keys().map(str::to_owned).collect()
    }

    /// These keys leave on purpose: remembered for as long as they are believed, because the
    /// word itself ends with the process that gave it.
    pub fn hear_leaving(&mut self, keys: &BTreeSet<String>) {
        let believed = keys.iter().filter(|key| self.believed.contains_key(key.as_str()));
        self.left.extend(believed.cloned());
    }

    /// Where those listen that left or leave on purpose.
    #[must_use]
    pub fn left_addresses(&self) -> BTreeSet<&Endpoint> {
        let place = |key: &String| Some(&self.believed.get(key.as_str())?.0.backend.addr);
        self.left.iter().filter_map(place).collect()
    }

    /// An operator accepts a loss. `false`: it is about another one than that of `seen`, or was
    /// acted on before.
    pub fn accept(&mut self, word: &Acceptance, seen: &ParsedKeys) -> bool {
        let missing = self.missing(seen);
        if self.heard.as_ref() == Some(&word.id) || !missing.is_subset(&word.keys) {
            return false;
        }
        self.heard = Some(word.id.clone());
        self.left.extend(missing);
        self.accepted = Some(seen.backend_count());
        true
    }

    /// Whether an operator has said that as few as `count` are enough.
    #[must_use]
    pub fn is_accepted(&self, count: usize) -> bool {
        self.accepted.is_some_and(|least| count >= least)
    }

    /// There are enough backends again: what was accepted is over.
    pub fn end_acceptance(&mut self) {
        self.accepted = None;
    }

    /// Adds what the evidence holds to `seen`; the keys held are returned.
    #[must_use]
    pub fn hold(
        &self,
        seen: &mut ParsedKeys,
        evidence: &BTreeMap<String, LossEvidence>,
        doubt: &MissingBackends,
    ) -> BTreeSet<String> {
        let missing = doubt.missing.keys().cloned().collect();
        let held = LossPolicy::hold(&missing, evidence);
        self.add(seen, &held);
        held
    }

    /// Adds what is absent to `seen`, because without it too few are left; the keys are
    /// returned. Who left on purpose is among them only where nobody else is.
    #[must_use]
    pub fn hold_all(&self, seen: &mut ParsedKeys) -> BTreeSet<String> {
        let missing = self.missing(seen);
        let lost: BTreeSet<String> = missing.difference(&self.left).cloned().collect();
        let nobody = lost.is_empty() && seen.backends.is_empty();
        let held = if nobody { missing } else { lost };
        self.add(seen, &held);
        held
    }

    fn add(&self, seen: &mut ParsedKeys, keys: &BTreeSet<String>) {
        for key in keys {
            if let Some((key, (registered, value))) = self.believed.get_key_value(key.as_str()) {
                seen.backends.insert(Arc::clone(key), Arc::clone(registered));
                Arc::make_mut(&mut seen.entries).insert(Arc::clone(key), value.clone());
            }
        }
    }

    /// `seen` is rendered: it is what is believed from now on.
    pub fn adopt(&mut self, seen: &ParsedKeys, held: BTreeSet<String>) {
        let address = |key: &str| Some(&seen.backends.get(key)?.backend.addr);
        let routed: BTreeSet<&Endpoint> = held.iter().filter_map(|key| address(key)).collect();
        let gone = self.believed.iter().filter(|(key, _)| !seen.backends.contains_key(*key));
        let gone = gone.map(|(key, (r, _))| (key.to_string(), r.backend.addr.clone()));
        self.shadowed.extend(gone);
        self.shadowed
            .retain(|key, addr| routed.contains(addr) && !seen.backends.contains_key(key.as_str()));
        let value = |key: &str| seen.entries.get(key).cloned().unwrap_or_default();
        let of = |(key, r): (&Arc<str>, &Arc<RegisteredBackend>)| {
            (Arc::clone(key), (Arc::clone(r), value(key)))
        };
        self.believed = seen.backends.iter().map(of).collect();
        self.left.retain(|key| held.contains(key));
        self.held = held;
    }

    /// Only these keys are of interest from now on: other trees are read.
    pub fn retain(&mut self, is_read: impl Fn(&str) -> bool) {
        self.believed.retain(|key, _| is_read(key));
        self.held.retain(|key| is_read(key));
        self.left.retain(|key| is_read(key));
        self.shadowed.retain(|key, _| is_read(key));
    }

    /// What the store does not have any more and is routed to all the same.
    #[must_use]
    pub fn held(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// Absent keys whose address is routed to: those held, and those that share the address of
    /// one of them.
    pub fn still_routed(&self) -> impl Iterator<Item = &String> {
        self.held.iter().chain(self.shadowed.keys())
    }

    /// What is routed to, by key.
    pub fn backends(&self) -> impl Iterator<Item = (&Arc<str>, &RegisteredBackend)> {
        self.believed.iter().map(|(key, (registered, _))| (key, &**registered))
    }
}

/// The keys that are there, those with a value that turned bad included.
fn present(seen: &ParsedKeys) -> impl Iterator<Item = &str> {
    let refused = seen.refused.iter().map(|refused| refused.key.as_str());
    seen.backends.keys().map(|key| &**key).chain(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Backend;

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
            Arc::make_mut(&mut seen.entries).insert(key, value.into());
        }
        seen
    }

    fn evidence(of: &[(&str, LossEvidence)]) -> BTreeMap<String, LossEvidence> {
        of.iter().map(|(id, e)| (format!("/services/apache/{id}"), *e)).collect()
    }

    #[test]
    fn what_answers_is_held_until_it_falls_silent_or_is_registered_again() {
        let policy = LossPolicy::default();
        let mut belief = KnownBackends::default();
        belief.adopt(&seen(&["1", "2", "3"]), BTreeSet::new());

        let mut now = seen(&[]);
        let doubt = belief.doubt(&policy, &now, false).unwrap();
        assert_eq!(doubt.missing.len(), 3);
        let answers = evidence(&[
            ("1", LossEvidence::Answers),
            ("2", LossEvidence::Answers),
            ("3", LossEvidence::Silent),
        ]);
        let held = belief.hold(&mut now, &answers, &doubt);
        assert_eq!((held.len(), now.backends.len()), (2, 2));
        belief.adopt(&now, held);

        // One comes back, the other falls silent.
        let mut now = seen(&["1"]);
        let doubt = belief.doubt(&policy, &now, false).unwrap();
        assert_eq!(doubt.missing.keys().collect::<Vec<_>>(), ["/services/apache/2"]);
        let held = belief.hold(&mut now, &evidence(&[("2", LossEvidence::Silent)]), &doubt);
        assert!(held.is_empty());
        belief.adopt(&now, held);
        assert_eq!(belief.doubt(&policy, &seen(&["1"]), false), None);
    }

    #[test]
    fn what_is_read_no_more_is_not_missed() {
        let mut belief = KnownBackends::default();
        belief.adopt(&seen(&["1", "2"]), BTreeSet::from(["/services/apache/2".to_owned()]));
        belief.retain(|key| key.ends_with('1'));
        assert!(belief.held().is_empty());
        assert_eq!(belief.doubt(&LossPolicy::default(), &seen(&["1"]), false), None);
    }

    #[test]
    fn who_left_on_purpose_is_no_loss_when_another_key_comes() {
        let mut belief = KnownBackends::default();
        belief.adopt(&seen(&["1"]), BTreeSet::new());
        belief.hear_leaving(&BTreeSet::from(["/services/apache/1".to_owned()]));
        // The last file is kept meanwhile.
        let mut now = seen(&[]);
        let held = belief.hold_all(&mut now);
        assert_eq!(now.backends.len(), 1);
        belief.adopt(&now, held);
        assert_eq!(belief.doubt(&LossPolicy::default(), &seen(&["2"]), false), None);
        // Registered again and gone again, without a word: a loss like any other.
        belief.adopt(&seen(&["1"]), BTreeSet::new());
        assert!(belief.doubt(&LossPolicy::default(), &seen(&["2"]), false).is_some());
    }

    #[test]
    fn the_same_address_under_another_key_is_not_missing_and_keeps_no_removal_secret() {
        let moved = |key: &str, id: &str| {
            let mut seen = seen(&[id]);
            let value = seen.backends.pop_first().unwrap().1;
            seen.backends.insert(key.into(), value);
            seen
        };
        let mut belief = KnownBackends::default();
        belief.adopt(&seen(&["1"]), BTreeSet::new());
        let (policy, now) = (LossPolicy::default(), moved("/services/apache/other", "1"));
        assert_eq!(belief.doubt(&policy, &now, false), None);

        // One key is held; a second of that address came and goes.
        let mut both = seen(&["1"]);
        both.backends.extend(now.backends);
        let held = BTreeSet::from(["/services/apache/1".to_owned()]);
        belief.adopt(&both, held.clone());
        belief.adopt(&seen(&["1"]), held);
        let routed: Vec<_> = belief.still_routed().cloned().collect();
        assert_eq!(routed, ["/services/apache/1", "/services/apache/other"]);
        belief.adopt(&seen(&["2"]), BTreeSet::new());
        assert_eq!(belief.still_routed().count(), 0);
    }

    #[test]
    fn what_an_operator_accepts_is_this_loss_and_no_later_one() {
        let word = |id: &str, keys: &[&str]| Acceptance {
            id: id.to_owned(),
            keys: keys.iter().map(|id| format!("/services/apache/{id}")).collect(),
        };
        let mut belief = KnownBackends::default();
        belief.adopt(&seen(&["1", "2"]), BTreeSet::new());
        assert!(!belief.accept(&word("a", &["1"]), &seen(&[])), "it is about another loss");
        assert!(belief.accept(&word("b", &["1", "2", "3"]), &seen(&[])));
        assert!(belief.is_accepted(0));
        assert_eq!(belief.doubt(&LossPolicy::default(), &seen(&[]), false), None);
        belief.adopt(&seen(&[]), BTreeSet::new());
        belief.end_acceptance();
        belief.adopt(&seen(&["1"]), BTreeSet::new());
        assert!(!belief.accept(&word("b", &["1", "2", "3"]), &seen(&[])), "acted on before");
        assert!(belief.doubt(&LossPolicy::default(), &seen(&[]), false).is_some());
    }
}
