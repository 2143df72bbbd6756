//! Messages to the service manager (`sd_notify(3)`); none when there is none.

use std::convert::Infallible;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_notify::NotifyState;

/// The service manager, if one listens at `$NOTIFY_SOCKET`. Clones share the last
/// status, which is sent only when it changes.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    status: Arc<Mutex<String>>,
    ready: Arc<AtomicBool>,
}

impl ServiceManager {
    /// READY=1: the process does its work from now on.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
        send(&[NotifyState::Ready]);
    }

    /// Whether READY=1 was sent, or would have been if there were a service manager.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// STOPPING=1: the shutdown has begun.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// STATUS=: one line for `systemctl status`.
    pub fn status(&self, text: &str) {
        let Ok(mut last) = self.status.lock() else { return };
        if *last != text {
            text.clone_into(&mut last);
            send(&[NotifyState::Status(text)]);
        }
    }

    /// The last [`ServiceManager::status`], whether or not there is a service manager.
    pub fn last_status(&self) -> String {
        self.status.lock().map(|last| last.clone()).unwrap_or_default()
    }

    /// WATCHDOG=1: the loop that does the work is alive. To be sent by that loop and no other.
    pub fn watchdog(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// EXTEND_TIMEOUT_USEC=: the start or the stop may take this much longer from now.
    pub fn extend(&self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        send(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }

    /// How often [`ServiceManager::watchdog`] is to be called: half of what the
    /// unit's `WatchdogSec=` allows. `None` without one.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        let pid = std::env::var("WATCHDOG_PID").ok();
        if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
            return None;
        }
        let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
        (micros > 0).then(|| Duration::from_micros(micros) / 2)
    }

    /// Sends WATCHDOG=1 as often as it is to be sent, and never ends: for a time in which only
    /// waits happen, each with a bound of its own.
    pub async fn signs_of_life(&self) -> Infallible {
        let Some(interval) = self.watchdog_interval() else { return std::future::pending().await };
        let mut beat = tokio::time::interval(interval);
        loop {
            beat.tick().await;
            self.watchdog();
        }
    }
}

fn send(states: &[NotifyState<'_>]) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => send_abstract(name, states),
        None => sd_notify::notify(states),
    };
    // Without a listening service manager everything else goes on.
    if let Err(error) = sent {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// Sends to an abstract socket, as systemd has it in containers and had it everywhere in 2014;
/// the crate knows only paths.
fn send_abstract(name: &[u8], states: &[NotifyState<'_>]) -> io::Result<()> {
    let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    socket.send(lines.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("register-test-{}", std::process::id());
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&at).unwrap();
        let states = [NotifyState::Ready, NotifyState::Status("fine")];
        send_abstract(name.as_bytes(), &states).unwrap();
        let mut received = [0; 64];
        let len = manager.recv(&mut received).unwrap();
        assert_eq!(&received[..len], b"READY=1\nSTATUS=fine\n");
    }
}
