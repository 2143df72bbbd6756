//! Connection draining by what the kernel shows (`--drain-quiet`), for load balancers that are not
//! `confsync` and acknowledge nothing. Backends are drained when no connection to them is open,
//! and none was opened for a while.
//!
//! * [`sockets`] reads the kernel's table of TCP sockets;
//! * [`BackendConnections`] decides whether they are drained (pure);
//! * [`wait`] reads the table periodically, within a bound.
//!
//! A backend whose connections cannot be seen (on another machine, in another network namespace,
//! behind a forwarded port) must not pass for drained: before the wait, a test connection must
//! appear in the table.

mod sockets;

use std::collections::BTreeSet;
use std::time::Duration;

use common::model::{Endpoint, format_span, plural};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use sockets::TcpSocket;

const READ_INTERVAL: Duration = Duration::from_millis(100);

/// How long the test connection may take to be made, and again to appear in the table.
const TEST_CONNECTION: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionDrainEnd {
    /// No new connection for the whole span, and none is open.
    Drained,
    /// Not within the bound, or the connections cannot be seen; with the reason.
    NotDrained(String),
    /// `abort` was cancelled.
    Aborted,
}

/// The connections to the backends as last read.
#[derive(Debug)]
struct BackendConnections {
    /// How long no new one may have come.
    span: Duration,
    known: BTreeSet<TcpSocket>,
    open: usize,
    last_new: Instant,
}

impl BackendConnections {
    fn new(span: Duration, now: Instant) -> Self {
        Self { span, known: BTreeSet::new(), open: 0, last_new: now }
    }

    /// Takes in all connections to the backends, including closed ones that the kernel still
    /// lists. Returns whether they are drained.
    fn observe(&mut self, connections: BTreeSet<TcpSocket>, now: Instant) -> bool {
        if connections.iter().any(|one| !self.known.contains(one)) {
            self.last_new = now;
        }
        self.open = connections.iter().filter(|one| one.open).count();
        // A connection that is closed is another entry, and no new one.
        self.known = connections
            .into_iter()
            .flat_map(|one| [one.as_open(true), one.as_open(false)])
            .collect();
        self.open == 0 && now.saturating_duration_since(self.last_new) >= self.span
    }

    /// What it waits for.
    fn missing(&self) -> String {
        match self.open {
            0 => format!("no new connection for {}", format_span(self.span)),
            open => format!("{} to end", plural(open, "connection")),
        }
    }
}

/// Waits, for `bound` at most, until the connections to these backends are drained. `report` gets
/// what is waited for, at each reading.
pub async fn wait(
    backends: &[Endpoint],
    span: Duration,
    bound: Duration,
    mut report: impl FnMut(&str),
    abort: &CancellationToken,
) -> ConnectionDrainEnd {
    let mut places = Vec::new();
    for backend in backends {
        match find(backend).await {
            Ok(place) => places.push(place),
            Err(why) => {
                return ConnectionDrainEnd::NotDrained(format!(
                    "cannot see the connections to {backend}: {why}"
                ));
            }
        }
    }
    let ours = |one: &TcpSocket| !one.listens && places.iter().any(|place| place.has(one));
    let until = Instant::now() + bound;
    let mut observed = BackendConnections::new(span, Instant::now());
    loop {
        let connections = match sockets::read() {
            Ok(all) => all.into_iter().filter(ours).collect(),
            Err(why) => return ConnectionDrainEnd::NotDrained(why),
        };
        if observed.observe(connections, Instant::now()) {
            return ConnectionDrainEnd::Drained;
        }
        let missing = observed.missing();
        report(&missing);
        if Instant::now() >= until {
            let bound = format_span(bound);
            return ConnectionDrainEnd::NotDrained(format!("waited {bound} for {missing}"));
        }
        if abort.run_until_cancelled(sleep(READ_INTERVAL)).await.is_none() {
            return ConnectionDrainEnd::Aborted;
        }
    }
}

/// Where a backend listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BackendSocket {
    port: u16,
    /// The address, if it listens at one alone: other sockets with this port belong to another
    /// process.
    address: Option<String>,
}

impl BackendSocket {
    fn has(&self, socket: &TcpSocket) -> bool {
        let other = self.address.as_ref().is_some_and(|address| *address != socket.address);
        socket.port == self.port && !other
    }
}

/// Finds where a backend listens: opens a test connection and looks for it in the table.
async fn find(backend: &Endpoint) -> Result<BackendSocket, String> {
    let address = (backend.host().to_string(), backend.port());
    let any = BackendSocket { port: backend.port(), address: None };
    let connected = timeout(TEST_CONNECTION, TcpStream::connect(address)).await;
    let stream = match connected {
        // Nothing listens any more; a client that is still connected shows, if it is on this
        // machine.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            let here = TcpListener::bind((backend.host().to_string(), 0)).await;
            return here
                .map(|_| any)
                .map_err(|_| "it is not an address of this machine".to_owned());
        }
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("it does not accept a test connection".to_owned()),
        Ok(Ok(stream)) => stream,
    };
    let own = stream.local_addr().map_err(|error| error.to_string())?.port();
    let until = Instant::now() + TEST_CONNECTION;
    loop {
        let all = sockets::read()?;
        let at = all.iter().find(|one| one.port == any.port && one.peer_port == own);
        if let Some(TcpSocket { address, .. }) = at {
            let alone = all
                .iter()
                .any(|one| one.listens && one.port == any.port && one.address == *address);
            return Ok(BackendSocket { address: alone.then(|| address.clone()), ..any });
        }
        if Instant::now() >= until {
            return Err("a test connection does not appear among the kernel's sockets; is the \
                        backend behind a forwarded port, or in another network namespace?"
                .to_owned());
        }
        sleep(READ_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(peer_port: u16, open: bool) -> TcpSocket {
        let (address, peer) = ("7f".to_owned(), "7f".to_owned());
        TcpSocket { address, port: 80, peer, peer_port, open, listens: false }
    }

    #[test]
    fn another_address_with_this_port_is_another_backend() {
        let alone = BackendSocket { port: 80, address: Some("7f".into()) };
        let elsewhere = TcpSocket { address: "0a".into(), ..socket(1, true) };
        assert!(alone.has(&socket(1, true)) && !alone.has(&elsewhere));
        assert!(BackendSocket { address: None, ..alone }.has(&elsewhere));
    }

    #[tokio::test]
    async fn drained_when_no_connection_is_open_and_none_has_come_for_the_span() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut observed = BackendConnections::new(second * 5, start);
        let mut at = |seconds: u32, all: &[TcpSocket]| {
            let ended = observed.observe(all.iter().cloned().collect(), start + second * seconds);
            (ended, observed.missing())
        };
        assert_eq!(at(0, &[socket(1, true)]), (false, "1 connection to end".into()));
        assert_eq!(at(6, &[socket(1, true)]), (false, "1 connection to end".into()));
        // Another was opened and closed between two readings.
        let none = "no new connection for 5s";
        assert_eq!(at(7, &[socket(1, false), socket(2, false)]), (false, none.into()));
        assert_eq!(at(11, &[socket(2, false)]), (false, none.into()));
        assert!(at(12, &[]).0);
    }

    #[tokio::test]
    async fn an_open_connection_is_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let backend: Endpoint = address.to_string().parse().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(
                    async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await },
                );
            }
        });
        let kept = TcpStream::connect(address).await.unwrap();
        let never = CancellationToken::new();
        let ms = Duration::from_millis;
        let mut message = Vec::new();
        let end = wait(
            std::slice::from_ref(&backend),
            ms(100),
            ms(600),
            |missing| message.push(missing.to_owned()),
            &never,
        )
        .await;
        assert!(
            matches!(&end, ConnectionDrainEnd::NotDrained(why) if why.ends_with("to end")),
            "{end:?}"
        );
        drop(kept);
        let end = wait(&[backend], ms(100), ms(5_000), |_| {}, &never).await;
        assert_eq!(end, ConnectionDrainEnd::Drained);
        serving.abort();
    }

    #[tokio::test]
    async fn a_backend_on_another_machine_is_never_reported_as_drained() {
        // An address for documentation: nothing answers.
        let elsewhere: Endpoint = "192.0.2.1:9".parse().unwrap();
        let never = CancellationToken::new();
        let second = Duration::from_secs(1);
        let end = wait(&[elsewhere], second, second, |_| {}, &never).await;
        assert!(
            matches!(end, ConnectionDrainEnd::NotDrained(why) if why.contains("cannot see the connections"))
        );
    }
}
