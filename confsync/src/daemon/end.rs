//! The end, in order: the steps at hand, the child, and only then the member key.

use std::time::Duration;

use common::runtime::Exit;
use rustix::process::Signal;
use tokio::time::timeout;

use super::Daemon;
use crate::config::reload_group::ReloadGroup;
use crate::proxy::child::Child;
use crate::proxy::{Proxy, haproxy};
use crate::status::state::States;

/// How long etcd may take to store that we leave.
const LEAVE: Duration = Duration::from_secs(5);

impl Daemon {
    /// Finishes the steps at hand, stops the child, then removes the member key: no backend learns
    /// that we are done while our proxy still routes.
    pub(super) async fn end(mut self, child_left: Option<u8>) -> Exit {
        let manager = &self.publication.manager;
        manager.stopping();
        manager.extend(self.config.stop_timeout + LEAVE + Duration::from_secs(10));
        let groups: Vec<ReloadGroup> = self.groups.all().cloned().collect();
        let states = self.groups.end(&self.signals.abort).await;
        let code = match (&self.child, child_left) {
            (Some(child), None) => self.stop_child(child).await,
            (_, left) => left,
        };
        if let Some(left) = child_left {
            let trouble = first_trouble(&states);
            tracing::warn!(code = left, trouble, "the supervised command ended by itself");
        }
        let routes_nothing = self.child.is_some() || none_runs(&groups).await;
        let _ = timeout(LEAVE, self.registration.leave(routes_nothing)).await;
        code.map_or(Exit::Done, Exit::Child)
    }

    async fn stop_child(&self, child: &Child) -> Option<u8> {
        let signal = self.gentle_end(child);
        tokio::select! {
            code = child.stop(signal, self.config.stop_timeout) => code,
            () = self.signals.abort.cancelled() => child.stop(Signal::TERM, Duration::ZERO).await,
        }
    }

    /// The signal by which the child finishes its requests and ends.
    fn gentle_end(&self, child: &Child) -> Signal {
        let is_haproxy = || child.pid().is_some_and(|pid| haproxy::Master::from_pid(pid).is_ok());
        if self.groups.environment.argv.is_some() || child.runs_nginx() {
            Signal::QUIT
        } else if is_haproxy() {
            Signal::USR1
        } else {
            Signal::TERM
        }
    }
}

/// What kept the child from being started, if anything did: the last line of the log is to name the
/// cause.
fn first_trouble(states: &States) -> Option<&str> {
    let trouble = states.values().find_map(|state| state.trouble.as_deref())?;
    Some(trouble.split_once("; trying again in ").map_or(trouble, |(cause, _)| cause))
}

/// Whether it is certain that no proxy of these groups runs.
async fn none_runs(groups: &[ReloadGroup]) -> bool {
    for group in groups {
        match Proxy::of(group, None, None).await {
            Ok(proxy) if !proxy.is_running() => {}
            _ => return false,
        }
    }
    true
}
