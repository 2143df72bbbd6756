//! How the state of a drain is worded: which load balancers it waits for, and why it is
//! unconfirmed.

use std::time::Duration;

use common::runtime::ServiceManager;
use common::store::StoreError;
use tokio::sync::watch;

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

/// Reports which load balancers a drain waits for, when that changes.
pub(super) struct DrainReport {
    manager: ServiceManager,
    publish: watch::Sender<SidekickStatus>,
    last: String,
}

impl DrainReport {
    pub(super) fn new(manager: ServiceManager, publish: watch::Sender<SidekickStatus>) -> Self {
        Self { manager, publish, last: String::new() }
    }

    pub(super) fn into_fn(mut self) -> impl FnMut(&[String]) {
        move |missing| {
            self.manager.extend(EXTENSION);
            let text = format!("draining: waiting for {}", names_or_all(missing));
            if self.last != text {
                tracing::info!("{text}");
                self.manager.status(&text);
                let drain = DrainStatus::WaitingFor(missing.to_vec());
                self.publish.send_modify(|status| status.drain = Some(drain));
                self.last = text;
            }
        }
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
