//! How the state of a drain is worded: which load balancers it waits for, and why it is
//! unconfirmed.

use std::collections::BTreeSet;
use std::time::Duration;

use common::model::format_span;
use common::runtime::ServiceManager;
use common::store::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::handshake::{HandshakeResult, LoadBalancerState, MissingLoadBalancer, names_or_all};
use crate::status::{DrainStatus, SidekickStatus};

/// The service manager is asked for this much more time, again and again.
pub(super) const EXTENSION: Duration = Duration::from_secs(15);

/// Why a drain is unconfirmed while requests to etcd fail: load balancers that cannot write cannot
/// acknowledge.
pub(super) fn blame(result: &mut HandshakeResult, error: &StoreError) {
    if matches!(error, StoreError::Rejected(_) | StoreError::NoSpace(_)) {
        for (_, state) in &mut result.unconfirmed {
            if *state == LoadBalancerState::Silent {
                *state = LoadBalancerState::CannotAcknowledge;
            }
        }
    }
    result.unknown.push(("etcd", error.to_string()));
}

/// Why no load balancer could be asked, when etcd did not remove the keys in time.
pub(super) fn why_unasked(failure: Option<StoreError>) -> String {
    match failure {
        Some(error @ StoreError::NoQuorum(_)) => {
            format!("{error}; the key stays and is routed to until etcd has a quorum again")
        }
        // With v2, silence is all that is heard of a quorum that is lost.
        Some(error) if error.is_transient() => format!(
            "{error}; if etcd has lost its quorum, the key stays and is routed to until it has one \
             again"
        ),
        Some(error) => error.to_string(),
        None => "etcd did not answer in time".to_owned(),
    }
}

/// Reports which load balancers a drain waits for, when that changes, and how long each was waited
/// for.
pub(super) struct DrainReport {
    manager: ServiceManager,
    publish: watch::Sender<SidekickStatus>,
    began: Instant,
    load_balancers: BTreeSet<String>,
    last: String,
}

impl DrainReport {
    pub(super) fn new(manager: ServiceManager, publish: watch::Sender<SidekickStatus>) -> Self {
        let (began, load_balancers) = (Instant::now(), BTreeSet::new());
        Self { manager, publish, began, load_balancers, last: String::new() }
    }

    /// The load balancers that are still missing.
    pub(super) fn waits_for_load_balancers(&mut self, missing: &[MissingLoadBalancer]) {
        self.note_load_balancers(missing.iter().map(|missing| missing.lb.clone()).collect());
        let each = missing.iter().map(ToString::to_string).collect();
        self.waits_for(&names_or_all(missing), each);
    }

    /// What is waited for, in one text and each by itself.
    pub(super) fn waits_for(&mut self, all: &str, each: Vec<String>) {
        self.manager.extend(EXTENSION);
        let text = format!("draining: waiting for {all}");
        if self.last != text {
            tracing::info!("{text}");
            self.manager.status(&text);
            let drain = DrainStatus::WaitingFor(each);
            self.publish.send_modify(|status| status.drain = Some(drain));
            self.last = text;
        }
    }

    /// No load balancer is waited for any more.
    pub(super) fn is_over(&mut self) {
        self.note_load_balancers(BTreeSet::new());
    }

    fn note_load_balancers(&mut self, now: BTreeSet<String>) {
        let after = format_span(self.began.elapsed());
        for lb in self.load_balancers.difference(&now) {
            tracing::info!(%after, "waited for {lb}");
        }
        self.load_balancers = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_balancer_that_cannot_write_is_not_blamed_for_silence() {
        let unconfirmed = vec![("lb".to_owned(), LoadBalancerState::Silent)];
        let mut result = HandshakeResult { unconfirmed, ..HandshakeResult::default() };
        blame(&mut result, &StoreError::Rejected("database space exceeded".into()));
        assert_eq!(
            result.to_string(),
            "unconfirmed (lb: cannot acknowledge while etcd accepts no writes; etcd: \
             etcd rejects the request: database space exceeded)"
        );
    }
}
