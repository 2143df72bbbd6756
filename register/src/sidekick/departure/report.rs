//! How the state of a drain is worded: which load balancers it waits for, and why it is
//! unconfirmed.

use std::collections::BTreeSet;
use std::time::Duration;

use common::model::format_span;
use common::runtime::ServiceManager;
use common::store::StoreError;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::handshake::wait::LoadBalancerState;
use crate::handshake::{HandshakeResult, names_or_all};
use crate::status::{DrainStatus, SidekickStatus};

/// The service manager is asked for this much more time, again and again.
pub(super) const EXTENSION: Duration = Duration::from_secs(15);

/// Why a drain is unconfirmed while requests to etcd fail: load balancers that cannot write cannot
/// acknowledge.
pub(super) fn blame(result: &mut HandshakeResult, error: &StoreError) {
    let silent = LoadBalancerState::Silent.to_string();
    if matches!(error, StoreError::Rejected(_) | StoreError::NoSpace(_)) {
        for (_, why) in result.unconfirmed.iter_mut().filter(|(_, why)| *why == silent) {
            "cannot acknowledge while etcd accepts no writes".clone_into(why);
        }
    }
    result.unconfirmed.push(("etcd".to_owned(), error.to_string()));
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

    /// Who is missing still, each with a reason.
    pub(super) fn waits_for(&mut self, missing: &[String]) {
        self.manager.extend(EXTENSION);
        let text = format!("draining: waiting for {}", names_or_all(missing));
        if self.last != text {
            self.note_load_balancers(missing);
            tracing::info!("{text}");
            self.manager.status(&text);
            let drain = DrainStatus::WaitingFor(missing.to_vec());
            self.publish.send_modify(|status| status.drain = Some(drain));
            self.last = text;
        }
    }

    /// Nobody is waited for any more.
    pub(super) fn is_over(&mut self) {
        self.note_load_balancers(&[]);
    }

    fn note_load_balancers(&mut self, missing: &[String]) {
        let names = missing.iter().filter_map(|text| text.split_once(" (")).map(|(lb, _)| lb);
        let now: BTreeSet<String> = names.map(str::to_owned).collect();
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
    fn who_cannot_write_is_not_said_to_have_done_nothing() {
        let unconfirmed = vec![("lb".to_owned(), LoadBalancerState::Silent.to_string())];
        let mut result = HandshakeResult { unconfirmed, ..HandshakeResult::default() };
        blame(&mut result, &StoreError::Rejected("database space exceeded".into()));
        assert_eq!(
            result.to_string(),
            "unconfirmed (lb: cannot acknowledge while etcd accepts no writes; etcd: \
             etcd rejects the request: database space exceeded)"
        );
    }
}
