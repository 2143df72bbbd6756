//! A wait for the connections to our backends, seen from the kernel: for load balancers that are
//! not ours and acknowledge nothing. The backends are quiet when no new connection has come for a
//! while and none is open.
//!
//! * [`sockets`] reads the kernel's table of TCP sockets;
//! * [`Quiet`] decides what it means (pure);
//! * [`wait`] looks again and again, within a bound.
//!
//! What cannot be seen (another machine, another network namespace, ports that are forwarded) is
//! never called quiet: before the wait, a connection of our own must show in the table.

mod sockets;

use std::collections::BTreeSet;
use std::time::Duration;

use common::model::{Endpoint, format_span, plural};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use sockets::TcpSocket;

/// How often the table is read.
const LOOK: Duration = Duration::from_millis(100);

/// How long the connection of our own may take to be made, and to show.
const OWN: Duration = Duration::from_secs(2);

/// How the wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuietEnd {
    /// No new connection for the whole span, and none is open.
    Quiet,
    /// Not within the bound, or it cannot be seen, for this reason.
    NotQuiet(String),
    /// `abort` was cancelled.
    Aborted,
}

/// What was seen of the connections so far. Pure.
#[derive(Debug)]
struct Quiet {
    span: Duration,
    known: BTreeSet<TcpSocket>,
    open: usize,
    /// When a connection was last new, or open.
    last: Instant,
    /// Whether it was new.
    came: bool,
}

impl Quiet {
    fn new(span: Duration, now: Instant) -> Self {
        Self { span, known: BTreeSet::new(), open: 0, last: now, came: false }
    }

    /// Takes in all connections to the backends, closed ones that the kernel still knows of
    /// included. Whether it is quiet.
    fn observe(&mut self, connections: BTreeSet<TcpSocket>, now: Instant) -> bool {
        self.came = connections.iter().any(|one| !self.known.contains(one));
        self.open = connections.iter().filter(|one| one.open).count();
        // A connection that is closed is another entry, and no new one.
        self.known = connections
            .into_iter()
            .flat_map(|one| [one.as_open(true), one.as_open(false)])
            .collect();
        if self.came {
            self.last = now;
        }
        self.open == 0 && now.saturating_duration_since(self.last) >= self.span
    }

    /// What it waits for.
    fn missing(&self) -> String {
        match self.open {
            0 => format!("no new connection for {}", format_span(self.span)),
            open => format!("{} to end", plural(open, "connection")),
        }
    }
}

/// Waits until the backends at these addresses are quiet, until `bound` at most. `report` gets
/// what is waited for, when that changes.
pub async fn wait(
    backends: &[Endpoint],
    span: Duration,
    bound: Duration,
    mut report: impl FnMut(&str),
    abort: &CancellationToken,
) -> QuietEnd {
    let mut places = Vec::new();
    for backend in backends {
        match find(backend).await {
            Ok(place) => places.push(place),
            Err(why) => {
                return QuietEnd::NotQuiet(format!(
                    "cannot see the connections to {backend}: {why}"
                ));
            }
        }
    }
    let ours = |one: &TcpSocket| !one.listens && places.iter().any(|place| place.has(one));
    let until = Instant::now() + bound;
    let mut quiet = Quiet::new(span, Instant::now());
    loop {
        let connections = match sockets::read() {
            Ok(all) => all.into_iter().filter(ours).collect(),
            Err(why) => return QuietEnd::NotQuiet(why),
        };
        if quiet.observe(connections, Instant::now()) {
            return QuietEnd::Quiet;
        }
        let missing = quiet.missing();
        report(&missing);
        if Instant::now() >= until {
            let bound = format_span(bound);
            return QuietEnd::NotQuiet(format!("waited {bound} for {missing}"));
        }
        if abort.run_until_cancelled(sleep(LOOK)).await.is_none() {
            return QuietEnd::Aborted;
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

/// Finds a connection to the backend in the table, at its end.
async fn find(backend: &Endpoint) -> Result<BackendSocket, String> {
    let address = (backend.host().to_string(), backend.port());
    let any = BackendSocket { port: backend.port(), address: None };
    let connected = timeout(OWN, TcpStream::connect(address)).await;
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
    let until = Instant::now() + OWN;
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
        sleep(LOOK).await;
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
    async fn quiet_is_when_none_is_open_and_none_has_come_for_the_span() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut quiet = Quiet::new(second * 5, start);
        let mut at = |seconds: u32, all: &[TcpSocket]| {
            let ended = quiet.observe(all.iter().cloned().collect(), start + second * seconds);
            (ended, quiet.missing())
        };
        assert_eq!(at(0, &[socket(1, true)]), (false, "1 connection to end".into()));
        assert_eq!(at(6, &[socket(1, true)]), (false, "1 connection to end".into()));
        // Another came and went between two looks.
        let none = "no new connection for 5s";
        assert_eq!(at(7, &[socket(1, false), socket(2, false)]), (false, none.into()));
        assert_eq!(at(11, &[socket(2, false)]), (false, none.into()));
        assert!(at(12, &[]).0);
    }

    #[tokio::test]
    async fn connections_are_seen_to_end() {
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
        assert!(matches!(&end, QuietEnd::NotQuiet(why) if why.ends_with("to end")), "{end:?}");
        drop(kept);
        let end = wait(&[backend], ms(100), ms(5_000), |_| {}, &never).await;
        assert_eq!(end, QuietEnd::Quiet);
        serving.abort();
    }

    #[tokio::test]
    async fn what_cannot_be_seen_is_not_called_quiet() {
        // Nobody answers there.
        let elsewhere: Endpoint = "192.0.2.1:9".parse().unwrap();
        let never = CancellationToken::new();
        let second = Duration::from_secs(1);
        let end = wait(&[elsewhere], second, second, |_| {}, &never).await;
        assert!(
            matches!(end, QuietEnd::NotQuiet(why) if why.contains("cannot see the connections"))
        );
    }
}
