//! Limits the connections, in all and of one peer. At the limit, the one that has been idle longest
//! is closed, so that a new one always gets a place: `/healthz` is answered whatever other clients
//! do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

/// The most connections in all, if the process may have that many files.
const MOST: usize = 128;

/// The most of one peer: half, so that another peer is served as well.
const OF_ONE_PEER: usize = 2;

/// The connections there are.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    most: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, ClientConnection>,
}

#[derive(Debug)]
struct ClientConnection {
    /// `None`: over a unix socket.
    peer: Option<IpAddr>,
    /// When it became idle, in the order of events; `None`: an answer is being made.
    idle: Option<u64>,
    end: CancellationToken,
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    connections: Connections,
    id: u64,
    /// Cancelled when the place is needed for another.
    pub(super) end: CancellationToken,
}

impl Connections {
    /// A share of the files that this process may have open: probes and etcd need some.
    pub(super) fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(files / 4).unwrap_or(MOST);
        Self::at_most(share.clamp(8, MOST))
    }

    fn at_most(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A place for a new connection, if need be that of the one that has been idle longest.
    /// `None`: answers are being made on all of them.
    pub(super) fn admit(&self, peer: Option<IpAddr>) -> Option<Admitted> {
        let mut open = self.lock();
        let peer = peer.map(network);
        if open.all.values().filter(|other| other.peer == peer).count() >= self.most / OF_ONE_PEER {
            open.end_idle(|other| other.peer == peer)?;
        } else if open.all.len() >= self.most {
            open.end_idle(|_| true)?;
        }
        let id = open.tick();
        let end = CancellationToken::new();
        open.all.insert(id, ClientConnection { peer, idle: Some(id), end: end.clone() });
        Some(Admitted { connections: self.clone(), id, end })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn end_idle(&mut self, of: impl Fn(&ClientConnection) -> bool) -> Option<()> {
        let idle = self.all.iter().filter(|(_, connection)| of(connection));
        let longest = idle.filter_map(|(id, connection)| Some((connection.idle?, *id))).min();
        let connection = self.all.remove(&longest?.1)?;
        connection.end.cancel();
        Some(())
    }
}

impl Admitted {
    /// An answer is being made.
    pub(super) fn busy(&self) {
        if let Some(connection) = self.connections.lock().all.get_mut(&self.id) {
            connection.idle = None;
        }
    }

    /// The answer is made; what is left is for the peer to read.
    pub(super) fn idle(&self) {
        let mut open = self.connections.lock();
        let now = open.tick();
        if let Some(connection) = open.all.get_mut(&self.id) {
            connection.idle = Some(now);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.lock().all.remove(&self.id);
    }
}

/// A peer with IPv6 has a whole network of addresses.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_new_client_replaces_the_one_that_has_been_idle_longest() {
        let connections = Connections::at_most(4);
        let all: Vec<_> = (1..=4).map(|n| connections.admit(ip(n)).unwrap()).collect();
        all[0].busy();
        all[1].busy();
        all[1].idle();
        let _fifth = connections.admit(ip(5)).unwrap();
        let ended: Vec<_> = all.iter().map(|one| one.end.is_cancelled()).collect();
        assert_eq!(ended, [false, false, true, false]);
    }

    #[test]
    fn one_peer_has_half_of_the_places_and_takes_none_of_the_others() {
        let connections = Connections::at_most(4);
        let other = connections.admit(ip(9)).unwrap();
        let mine: Vec<_> = (0..3).map(|_| connections.admit(ip(1)).unwrap()).collect();
        assert!(mine[0].end.is_cancelled() && !other.end.is_cancelled());
        mine[1].busy();
        mine[2].busy();
        assert!(connections.admit(ip(1)).is_none());
        drop(mine);
        assert!(connections.admit(ip(1)).is_some());
    }

    #[test]
    fn addresses_of_one_network_are_one_peer() {
        let peer = |text: &str| network(text.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::2"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
    }
}
