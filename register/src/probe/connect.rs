//! Opening a connection to what is probed: TCP by address or name, or a unix
//! socket.
//!
//! Names are resolved by the system's resolver, which blocks a thread. A silent
//! name server must not collect threads, so only a few may be in it at a time; who
//! finds no place in time fails, saying so.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;

use super::check::Address;
use super::deadline::{Deadline, words};

/// How many names may be looked up at once, in the whole process.
const LOOKUPS: usize = 8;

static RESOLVER: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(LOOKUPS)));

/// A connection to what is probed.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) async fn open(address: &Address, deadline: &Deadline) -> Result<Self, String> {
        match address {
            Address::Unix(path) => deadline
                .step(&format!("connecting to {address}"), async {
                    UnixStream::connect(path).await.map_err(|e| cannot(address, &e))
                })
                .await
                .map(Self::Unix),
            Address::Port { host, port } => {
                let doing = format!("looking up {host}");
                let found = deadline.step(&doing, resolve(host, *port)).await?;
                let doing = format!("connecting to {address}");
                deadline.step(&doing, first(address, &found)).await.map(Self::Tcp)
            }
        }
    }
}

fn cannot(address: &Address, error: &io::Error) -> String {
    format!("cannot connect to {address}: {}", words(error))
}

/// Tries the addresses in the resolver's order; the last refusal is the reason.
async fn first(address: &Address, found: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut why = format!("{address} has no address");
    for at in found {
        match TcpStream::connect(at).await {
            Ok(stream) => return Ok(stream),
            Err(e) => why = cannot(address, &e),
        }
    }
    Err(why)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let no = |e: &dyn std::fmt::Display| format!("cannot look up {host}: {e}");
    let place = Arc::clone(&RESOLVER).acquire_owned().await.map_err(|e| no(&e))?;
    let name = host.to_owned();
    let lookup = tokio::task::spawn_blocking(move || {
        // Held until the resolver comes back, however long nobody waits any more.
        let _place = place;
        (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
    });
    lookup.await.map_err(|e| no(&e))?.map_err(|e: io::Error| no(&words(&e)))
}

impl AsyncRead for Stream {
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

impl AsyncWrite for Stream {
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
