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
mod tests;
