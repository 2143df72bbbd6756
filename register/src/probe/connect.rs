//! Opening a connection to what is probed: TCP by address or name, or a unix
//! socket.
//!
//! Names are resolved by the system's resolver, which blocks a thread. A silent
//! name server must not collect threads, so only a few may be in it at a time; a
//! probe that finds no place in time is not made.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::either::Either;

use super::check::ProbeAddress;
use super::deadline::{ProbeDeadline, ProbeFailure};

/// How many names may be looked up at once, in the whole process.
const LOOKUPS: usize = 8;

static RESOLVER: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(LOOKUPS)));

/// A connection to what is probed.
pub(super) type ProbeStream = Either<TcpStream, UnixStream>;

pub(super) async fn open(
    address: &ProbeAddress,
    deadline: &ProbeDeadline,
) -> Result<ProbeStream, ProbeFailure> {
    let doing = format!("connecting to {address}");
    match address {
        ProbeAddress::Unix(path) => {
            let connected = async {
                UnixStream::connect(path).await.map_err(|error| cannot_connect(address, &error))
            };
            deadline.step(&doing, connected).await.map(Either::Right)
        }
        ProbeAddress::Port { host, port } => {
            let found = resolve(host, *port, deadline).await?;
            deadline.step(&doing, first(address, &found)).await.map(Either::Left)
        }
    }
}

fn cannot_connect(address: &ProbeAddress, error: &io::Error) -> ProbeFailure {
    ProbeFailure::of(&format!("cannot connect to {address}"), error)
}

/// Tries the addresses in the resolver's order; the last refusal is the reason.
async fn first(address: &ProbeAddress, found: &[SocketAddr]) -> Result<TcpStream, ProbeFailure> {
    let mut why = ProbeFailure::Unhealthy(format!("{address} has no address"));
    for at in found {
        match TcpStream::connect(at).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = cannot_connect(address, &error),
        }
    }
    Err(why)
}

async fn resolve(
    host: &str,
    port: u16,
    deadline: &ProbeDeadline,
) -> Result<Vec<SocketAddr>, ProbeFailure> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let place = deadline.place("name lookups", Arc::clone(&RESOLVER).acquire_owned()).await?;
    let (answer, found) = tokio::sync::oneshot::channel();
    let (name, doing) = (host.to_owned(), format!("cannot look up {host}"));
    // A thread of our own: without one, tokio would end the task.
    let lookup = std::thread::Builder::new().spawn(move || {
        // Kept until the resolver returns, even if the probe has long given up.
        let _place = place;
        let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The probe may be over.
        let _ = answer.send(addresses);
    });
    lookup.map_err(|e| ProbeFailure::NotMade(format!("{doing}: {e}")))?;
    let waiting = async {
        match found.await {
            Ok(addresses) => addresses.map_err(|error| ProbeFailure::of(&doing, &error)),
            Err(_) => Err(ProbeFailure::NotMade(doing.clone())),
        }
    };
    deadline.step(&format!("looking up {host}"), waiting).await
}
