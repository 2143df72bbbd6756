//! The counters of reload groups, over the lifetime of the process: counters that restarted with
//! each SIGHUP would lose what they counted.

use std::collections::BTreeMap;

use prometheus_client::metrics::histogram::Histogram;

use crate::apply::record::Counts;
use crate::status::state::{GroupState, States};

/// The counters of one group. Its clones share the histogram.
#[derive(Debug, Clone)]
pub struct Totals {
    /// Loads, refusals, failures.
    pub counts: Counts,
    /// How long proven loads took.
    pub load_seconds: Histogram,
}

/// By the group's name.
pub type TotalsByGroup = BTreeMap<String, Totals>;

impl Totals {
    /// The counters of a group in its present state.
    pub fn of(state: &GroupState) -> Self {
        let counts = Counts {
            loads: state.loads_total,
            member_changes: state.member_changes_total,
            refusals: state.refusals_total,
            failures: state.failures_total,
        };
        Self { counts, load_seconds: state.load_seconds.clone() }
    }
}

/// The counters of groups that have ended, and of those that run.
pub fn all(ended: &TotalsByGroup, running: &States) -> TotalsByGroup {
    let mut all = ended.clone();
    all.extend(running.iter().map(|(name, state)| (name.clone(), Totals::of(state))));
    all
}
