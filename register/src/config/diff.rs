//! What changes between two configurations, for a reload that touches nothing else.

use std::collections::BTreeMap;

use common::model::Key;

use super::{RegisterConfig, Service};

/// The services of a new configuration against those of an old one, by key, in the
/// order of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Only in the new one.
    pub added: Vec<Service>,
    /// Only in the old one.
    pub removed: Vec<Service>,
    /// In both and not the same: as it was, as it shall be. Compare the values to
    /// know whether the key must be written or only the probing changes.
    pub changed: Vec<(Service, Service)>,
    /// The same in both.
    pub unchanged: Vec<Key>,
    /// Settings of the process that differ. They take effect with a restart.
    pub restart: Vec<&'static str>,
}

impl RegisterConfig {
    /// What has to be done to get from this configuration to `new`.
    pub fn diff(&self, new: &RegisterConfig) -> Diff {
        let by_key = |config: &RegisterConfig| -> BTreeMap<Key, Service> {
            config.services.iter().map(|s| (s.target.key.clone(), s.clone())).collect()
        };
        let mut old = by_key(self);
        let mut diff = Diff { restart: differing(self, new), ..Diff::default() };
        for (key, service) in by_key(new) {
            match old.remove(&key) {
                None => diff.added.push(service),
                Some(before) if before == service => diff.unchanged.push(key),
                Some(before) => diff.changed.push((before, service)),
            }
        }
        diff.removed = old.into_values().collect();
        diff
    }
}

fn differing(old: &RegisterConfig, new: &RegisterConfig) -> Vec<&'static str> {
    let (a, b) = (&old.process, &new.process);
    let pairs = [
        ("ttl", a.ttl == b.ttl),
        ("bookkeeping", a.bookkeeping == b.bookkeeping),
        ("listen", a.status == b.status),
        ("wait_applied", a.wait_applied == b.wait_applied),
        ("ready_within", a.ready_within == b.ready_within),
        ("min_lbs", a.min_lbs == b.min_lbs),
        ("drain_min", a.drain.min == b.drain.min),
        ("drain_applied", a.drain.applied == b.drain.applied),
        ("drain_quiesced", a.drain.quiesced == b.drain.quiesced),
        ("drain_quiet", a.drain.quiet == b.drain.quiet),
        ("drain_exit", a.drain_exit_zero == b.drain_exit_zero),
    ];
    pairs.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
}
