//! The counters of reload groups, for as long as the process lives: a counter that begins anew
//! with each SIGHUP would hide what it counted.

use std::collections::BTreeMap;

use prometheus_client::metrics::histogram::Histogram;

use crate::apply::record::Counts;
use crate::status::state::{GroupState, States};

/// What one group has counted. Its clones share the histogram.
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
    /// Of a group as it was told last.
    #[must_use]
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

/// Those of the groups that have ended, and those that run.
#[must_use]
pub fn all(ended: &TotalsByGroup, running: &States) -> TotalsByGroup {
    let mut all = ended.clone();
    all.extend(running.iter().map(|(name, state)| (name.clone(), Totals::of(state))));
    all
}
