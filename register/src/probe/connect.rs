//! Opening a connection to what is probed: TCP by address or name, or a unix
//! socket.
//!
//! Names are resolved by the system's resolver, which blocks a thread. A silent
//! name server must not collect threads, so only a few may be in it at a time; a
//! probe that finds no place in time is not made.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

use super::check::ProbeAddress;
use super::deadline::{ProbeDeadline, ProbeFailure};

/// How many names may be looked up at once, in the whole process.
const LOOKUPS: usize = 8;

static RESOLVER: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(LOOKUPS)));

/// A connection to what is probed.
pub(super) enum ProbeStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ProbeStream {
    pub(super) async fn open(
        address: &ProbeAddress,
        deadline: &ProbeDeadline,
    ) -> Result<Self, ProbeFailure> {
        let doing = format!("connecting to {address}");
        match address {
            ProbeAddress::Unix(path) => deadline
                .step(&doing, async {
                    UnixStream::connect(path).await.map_err(|e| cannot_connect(address, &e))
                })
                .await
                .map(Self::Unix),
            ProbeAddress::Port { host, port } => {
                let found = resolve(host, *port, deadline).await?;
                deadline.step(&doing, first(address, &found)).await.map(Self::Tcp)
            }
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

impl AsyncRead for ProbeStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ProbeStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}
