//! What the service manager is told (`sd_notify(3)`): silence when there is none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if one listens at `$NOTIFY_SOCKET`. Clones share the last
/// status, which is sent only when it changes.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    status: Arc<Mutex<String>>,
}

impl ServiceManager {
    /// The process does its work from now on.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The process has begun to end.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// The state in words, for `systemctl status`.
    pub fn status(&self, text: &str) {
        let Ok(mut last) = self.status.lock() else { return };
        if *last != text {
            text.clone_into(&mut last);
            send(&[NotifyState::Status(text)]);
        }
    }

    /// The last [`ServiceManager::status`], whether or not anybody listens.
    #[must_use]
    pub fn words(&self) -> String {
        self.status.lock().map(|last| last.clone()).unwrap_or_default()
    }

    /// The loop that does the work is alive. To be sent by that loop and no other.
    pub fn watchdog(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// The end may take this much longer from now.
    pub fn extend(&self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        send(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// How often [`ServiceManager::watchdog`] is to be called: half of what the
    /// unit's `WatchdogSec=` allows. `None` without one.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        let pid = std::env::var("WATCHDOG_PID").ok();
        if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
            return None;
        }
        let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (micros > 0).then(|| Duration::from_micros(micros) / 2)
    }
}

fn send(states: &[NotifyState<'_>]) {
    // A manager that does not listen is no reason to stop.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}
