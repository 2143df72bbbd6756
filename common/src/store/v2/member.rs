//! What the member that is asked now does differently from others: learnt anew for each
//! connection, because the next member may be of another version.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::endpoints::EndpointChoice;

/// What is known of the present member.
#[derive(Debug, Default)]
pub(super) struct PresentMember(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The connection that all this is known of.
    epoch: u64,
    /// Reads by quorum have the key's index, not the store's (before 2.0).
    old_reads: Option<bool>,
    /// A refresh without a value keeps the value, on every member.
    bare_refresh: bool,
}

impl PresentMember {
    fn known(&self, endpoint: &EndpointChoice) -> MutexGuard<'_, Known> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.epoch != endpoint.epoch {
            *known = Known { epoch: endpoint.epoch, ..Known::default() };
        }
        known
    }

    /// Whether it is too old for reads by quorum; `None` if it was not asked yet.
    pub(super) fn old_reads(&self, endpoint: &EndpointChoice) -> Option<bool> {
        self.known(endpoint).old_reads
    }

    pub(super) fn record_old_reads(&self, endpoint: &EndpointChoice, old: bool) {
        self.known(endpoint).old_reads = Some(old);
    }

    /// Whether a refresh may go without the value.
    pub(super) fn bare_refresh(&self, endpoint: &EndpointChoice) -> bool {
        self.known(endpoint).bare_refresh
    }

    pub(super) fn record_bare_refresh(&self, endpoint: &EndpointChoice, keeps: bool) {
        self.known(endpoint).bare_refresh = keeps;
    }
}
