//! The set of backends that is routed to, as one resource believes it: what the
//! store says, and what is held against it.
//!
//! Pure. The evidence is gathered elsewhere and handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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
        if self.believed.is_empty() {
            // Nobody can be missing.
            return None;
        }
        let known: BTreeSet<String> = self.believed.keys().map(ToString::to_string).collect();
        let now = seen.backends.keys().map(ToString::to_string);
        // A value that turned bad is refused by name, not missing.
        let refused = seen.refused.iter().map(|r| r.key.clone());
        let now = now.chain(refused).collect();
        let (missing, why) = match policy.judge(&known, &now, regressed) {
            LossJudgement::MissingBackends { missing, why } => (missing, why),
            LossJudgement::Believe => {
                let held: BTreeSet<String> = self.held.difference(&now).cloned().collect();
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
        for key in &held {
            if let Some((key, (registered, value))) = self.believed.get_key_value(key.as_str()) {
                seen.backends.insert(Arc::clone(key), Arc::clone(registered));
                Arc::make_mut(&mut seen.entries).insert(Arc::clone(key), value.clone());
            }
        }
        held
    }

    /// `seen` is rendered: it is what is believed from now on.
    pub fn adopt(&mut self, seen: &ParsedKeys, held: BTreeSet<String>) {
        let value = |key: &str| seen.entries.get(key).cloned().unwrap_or_default();
        let of = |(key, r): (&Arc<str>, &Arc<RegisteredBackend>)| {
            (Arc::clone(key), (Arc::clone(r), value(key)))
        };
        self.believed = seen.backends.iter().map(of).collect();
        self.held = held;
    }

    /// Only these keys are of interest from now on: other trees are read.
    pub fn retain(&mut self, is_read: impl Fn(&str) -> bool) {
        self.believed.retain(|key, _| is_read(key));
        self.held.retain(|key| is_read(key));
    }

    /// What the store does not have any more and is routed to all the same.
    #[must_use]
    pub fn held(&self) -> &BTreeSet<String> {
        &self.held
    }

    /// What is routed to, by key.
    pub fn backends(&self) -> impl Iterator<Item = (&Arc<str>, &RegisteredBackend)> {
        self.believed.iter().map(|(key, (registered, _))| (key, &**registered))
    }
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
}
