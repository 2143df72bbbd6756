//! The end, in order: the steps at hand, the child, and only then the member key.

use std::time::Duration;

use common::runtime::Exit;
use rustix::process::Signal;
use tokio::time::timeout;

use super::Daemon;
use super::join::holds;
use crate::config::reload_group::ReloadGroup;
use crate::proxy::child::Child;
use crate::proxy::{Proxy, haproxy};

/// How long the leave may take at most, and of that the word that it is one.
const LEAVE: Duration = Duration::from_secs(5);
const SAY: Duration = Duration::from_secs(1);

impl Daemon {
    /// Steps at hand are finished, the child is stopped, then the member key goes:
    /// nobody is told that we let go while our proxy still routes.
    pub(super) async fn end(mut self, child_left: Option<u8>) -> Exit {
        self.manager.stopping();
        self.manager.extend(self.config.stop_timeout + LEAVE + Duration::from_secs(10));
        for running in &self.running {
            running.stop.cancel();
        }
        let sets: Vec<ReloadGroup> = self.sets().cloned().collect();
        for running in self.running.drain(..) {
            let abort = self.signals.abort.clone();
            let _ = abort.run_until_cancelled(running.agent).await;
        }
        let code = match (&self.child, child_left) {
            (Some(child), None) => {
                let signal = self.gentle_end(child);
                let patience = self.config.stop_timeout;
                tokio::select! {
                    code = child.stop(signal, patience) => code,
                    () = self.signals.abort.cancelled() => child.stop(Signal::TERM, Duration::ZERO).await,
                }
            }
            (_, left) => left,
        };
        if let Some(left) = child_left {
            tracing::warn!(code = left, "the supervised command ended by itself");
        }
        let _ = timeout(LEAVE, self.leave(&sets)).await;
        code.map_or(Exit::Done, Exit::Child)
    }

    /// The signal by which the child finishes its requests and ends.
    fn gentle_end(&self, child: &Child) -> Signal {
        let is_haproxy = || child.pid().is_some_and(|pid| haproxy::Master::from_pid(pid).is_ok());
        if self.argv.is_some() || child.runs_nginx() {
            Signal::QUIT
        } else if is_haproxy() {
            Signal::USR1
        } else {
            Signal::TERM
        }
    }

    /// Only who routes nothing any more says so. A proxy that goes on without us (by
    /// pid file or commands) still does, and who drains must know: the member key
    /// then stays as it is until its lease ends or somebody takes over. A word of
    /// leaving stays as long: deleted at once, it would not be seen.
    async fn leave(&mut self, sets: &[ReloadGroup]) {
        if self.routes_nothing(sets).await {
            self.members.left();
            if let Some((key, value)) = self.members.member_as_wanted() {
                let _ = timeout(SAY, self.report.wait_for(|r| holds(r, &key, &value))).await;
            }
        } else {
            tracing::info!(
                "the proxy goes on; backends that leave wait for it until the lease ends"
            );
        }
        // Ended without its own end, which would take the keys away.
        self.registrar.abort();
    }

    async fn routes_nothing(&self, sets: &[ReloadGroup]) -> bool {
        if self.child.is_some() {
            return true;
        }
        for set in sets {
            match Proxy::of(set, None, None).await {
                Ok(proxy) if !proxy.is_running() => {}
                _ => return false,
            }
        }
        true
    }
}
