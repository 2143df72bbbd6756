//! The set of backends that is routed to, as one resource believes it: what the
//! store says, and what is held against it.
//!
//! Pure. The evidence is gathered elsewhere and handed in.

use std::collections::{BTreeMap, BTreeSet};

use common::model::Endpoint;

use crate::backends::{Registered, Seen};
use crate::guard::{Evidence, Judgement, Outcome, Policy};

/// What one resource believes.
#[derive(Debug, Clone, Default)]
pub struct Belief {
    /// Backends and their raw values, by key, as last rendered.
    believed: BTreeMap<String, (Registered, Vec<u8>)>,
    /// Those of them that the store does not have any more.
    held: BTreeSet<String>,
}

/// Backends whose loss is doubted, to be asked for evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The keys and where their backends listened.
    pub missing: BTreeMap<String, Endpoint>,
    /// In the operator's words.
    pub why: String,
}

impl Belief {
    /// Which losses must be looked into before `seen` is believed. What is held is
    /// looked into again each time, so that it is let go when it falls silent.
    #[must_use]
    pub fn doubt(&self, policy: &Policy, seen: &Seen, regressed: bool) -> Option<Doubt> {
        let known: BTreeSet<String> = self.believed.keys().cloned().collect();
        let now: BTreeSet<String> = seen.backends.keys().cloned().collect();
        // A value that turned bad is refused by name, not missing.
        let refused = seen.refused.iter().map(|r| r.key.clone());
        let now = now.into_iter().chain(refused).collect();
        let (missing, why) = match policy.judge(&known, &now, regressed) {
            Judgement::Doubt { missing, why } => (missing, why),
            Judgement::Believe => {
                let held: BTreeSet<String> = self.held.difference(&now).cloned().collect();
                if held.is_empty() {
                    return None;
                }
                let why = format!("{} still held", held.len());
                (held, why)
            }
        };
        let place = |key: String| {
            let addr = self.believed.get(&key)?.0.backend.addr.clone();
            Some((key, addr))
        };
        Some(Doubt { missing: missing.into_iter().filter_map(place).collect(), why })
    }

    /// Adds what the evidence holds to `seen`; the keys held are returned.
    #[must_use]
    pub fn hold(
        &self,
        seen: &mut Seen,
        evidence: &BTreeMap<String, Evidence>,
        doubt: &Doubt,
    ) -> BTreeSet<String> {
        let missing = doubt.missing.keys().cloned().collect();
        let held = Policy::hold(&missing, evidence);
        for key in &held {
            if let Some((registered, value)) = self.believed.get(key) {
                seen.backends.insert(key.clone(), registered.clone());
                seen.entries.insert(key.clone(), value.clone());
            }
        }
        held
    }

    /// Whether `seen`, the held included, may be rendered. With nothing in place
    /// there is nothing to keep.
    #[must_use]
    pub fn weigh(&self, policy: &Policy, seen: &Seen, regressed: bool, in_place: bool) -> Outcome {
        if in_place { policy.weigh(seen.backends.len(), regressed) } else { Outcome::Render }
    }

    /// `seen` is rendered: it is what is believed from now on.
    pub fn adopt(&mut self, seen: &Seen, held: BTreeSet<String>) {
        let raw = |key: &String| seen.entries.get(key).cloned().unwrap_or_default();
        self.believed =
            seen.backends.iter().map(|(key, r)| (key.clone(), (r.clone(), raw(key)))).collect();
        self.held = held;
    }

    /// What the store does not have any more and is routed to all the same.
    #[must_use]
    pub fn held(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// What is routed to, by key.
    pub fn backends(&self) -> impl Iterator<Item = (&String, &Registered)> {
        self.believed.iter().map(|(key, (registered, _))| (key, registered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Backend;

    fn seen(ids: &[&str]) -> Seen {
        let mut seen = Seen::default();
        for id in ids {
            let value = format!("10.0.0.{id}:80");
            let backend = Backend::parse(value.as_bytes()).unwrap();
            let registered = Registered { service: "apache".into(), id: (*id).into(), backend };
            seen.backends.insert(format!("/services/apache/{id}"), registered);
            seen.entries.insert(format!("/services/apache/{id}"), value.into());
        }
        seen
    }

    fn evidence(of: &[(&str, Evidence)]) -> BTreeMap<String, Evidence> {
        of.iter().map(|(id, e)| (format!("/services/apache/{id}"), *e)).collect()
    }

    #[test]
    fn what_answers_is_held_until_it_falls_silent_or_is_registered_again() {
        let policy = Policy::default();
        let mut belief = Belief::default();
        belief.adopt(&seen(&["1", "2", "3"]), BTreeSet::new());

        let mut now = seen(&[]);
        let doubt = belief.doubt(&policy, &now, false).unwrap();
        assert_eq!(doubt.missing.len(), 3);
        let answers = evidence(&[
            ("1", Evidence::Answers),
            ("2", Evidence::Answers),
            ("3", Evidence::Silent),
        ]);
        let held = belief.hold(&mut now, &answers, &doubt);
        assert_eq!((held.len(), now.backends.len()), (2, 2));
        belief.adopt(&now, held);

        // One comes back, the other falls silent.
        let mut now = seen(&["1"]);
        let doubt = belief.doubt(&policy, &now, false).unwrap();
        assert_eq!(doubt.missing.keys().collect::<Vec<_>>(), ["/services/apache/2"]);
        let held = belief.hold(&mut now, &evidence(&[("2", Evidence::Silent)]), &doubt);
        assert!(held.is_empty());
        belief.adopt(&now, held);
        assert_eq!(belief.doubt(&policy, &seen(&["1"]), false), None);
    }

    #[test]
    fn with_nothing_in_place_there_is_nothing_to_keep() {
        let belief = Belief::default();
        let policy = Policy::default();
        assert_eq!(belief.weigh(&policy, &seen(&[]), false, false), Outcome::Render);
        assert!(matches!(belief.weigh(&policy, &seen(&[]), false, true), Outcome::Keep { .. }));
    }
}
