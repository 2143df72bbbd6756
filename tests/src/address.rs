//! Loopback addresses that nobody else uses.
//!
//! Linux owns all of 127.0.0.0/8. A scenario takes whole addresses, held by a
//! listener on a port reserved for this, so every other port of the address is its
//! own: 7777 and 8888 as in the tutorial, in many scenarios at once and across
//! processes. Ports are taken below the ephemeral range, so a server that went away
//! finds its port free when it comes back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const HOLD_PORT: u16 = 61_998;
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 30_000;

/// An address of our own, until it is dropped.
pub struct Loopback {
    ip: Ipv4Addr,
    next: AtomicU16,
    _hold: TcpListener,
}

impl Loopback {
    /// Takes an address that is free on this machine.
    #[must_use]
    #[track_caller]
    pub fn take() -> Self {
        for _ in 0..1000 {
            let ip =
                Ipv4Addr::new(127, fastrand::u8(64..128), fastrand::u8(..), fastrand::u8(1..255));
            if let Ok(hold) = TcpListener::bind((ip, HOLD_PORT)) {
                return Self { ip, next: AtomicU16::new(FIRST_PORT), _hold: hold };
            }
        }
        panic!("no free loopback address in 1000 tries: is port {HOLD_PORT} taken on 0.0.0.0?");
    }

    /// The address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// An address and port where nothing listens. Never the same twice.
    #[must_use]
    #[track_caller]
    pub fn free(&self) -> SocketAddr {
        loop {
            let port = self.next.fetch_add(1, Ordering::Relaxed);
            assert!(port < LAST_PORT, "ports of {} are used up", self.ip);
            // Somebody may listen on 0.0.0.0 with this port.
            if TcpListener::bind((self.ip, port)).is_ok() {
                return SocketAddr::from((self.ip, port));
            }
        }
    }
}
