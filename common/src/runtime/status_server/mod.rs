//! The status server: a small HTTP server for `/healthz`, `/metrics` and the like.
//!
//! It serves what a handler answers and knows no route but the two that must always be
//! answered. What must hold: whatever clients do, the daemon's own loops are not delayed,
//! and a new client that asks for `/healthz` or `/readyz` is answered. Therefore it has a thread
//! of its own; reads no body; bounds the connections in all and of each peer, the
//! requests on each, the time for a head and for each write; and a document is rendered
//! once for all who read it ([`SharedDocument`]).

mod connections;
mod document;
mod host;
mod listen;
mod page;
mod write_deadline;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use document::{DocumentSource, SharedDocument};
pub use host::AllowedHosts;
pub use listen::ListenAddress;
pub use page::HtmlPage;

use self::connections::{Admitted, Connections};
use self::listen::Listener;
use self::write_deadline::WriteDeadline;
use super::liveness::Liveness;
use crate::model::format_span;

/// The body of an answer; streams (server-sent events) fit as well as text.
pub type Body = BoxBody<Bytes, Infallible>;

/// An answer.
pub type StatusResponse = Response<Body>;

/// What is done before an answer is made. It is bounded in time.
pub type Preparation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers requests. Must not wait for anything: it reads a published state.
pub trait Handler: Send + Sync + 'static {
    /// What has to be read first for the answer at this path. Others are answered meanwhile.
    fn before(&self, _path: &str) -> Option<Preparation> {
        None
    }

    /// The answer to a request; only its head matters.
    fn answer(&self, request: &Request<Incoming>) -> StatusResponse;

    /// The answer to a command: a `PUT` over a unix socket, whose mode says who may. Only its
    /// head matters.
    fn command(&self, _: &Request<Incoming>) -> StatusResponse {
        plain(405, TEXT, ONLY_READ)
    }
}

/// Where and to whom status is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusServer {
    pub address: ListenAddress,
    /// The names under which it may be asked.
    pub hosts: AllowedHosts,
}

/// Status is served until this is dropped: a process that ends leaves no unix socket behind.
#[derive(Debug)]
pub struct ServedStatus {
    end: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for ServedStatus {
    fn drop(&mut self) {
        self.end.cancel();
        // It waits for nothing but an answer that is being made.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const HEAD_DEADLINE: Duration = Duration::from_secs(5);
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// After so many requests a connection is closed, so that places change hands.
const REQUESTS: usize = 100;
/// Even a client that follows events gives its place back.
const LIFETIME: Duration = Duration::from_secs(3600);
/// An address that cannot be had now may be free later.
const BIND_AGAIN: Duration = Duration::from_secs(5);
const TEXT: &str = "text/plain; charset=utf-8";
const ONLY_READ: &str = "method not allowed; use GET or HEAD\n";

/// The answer of `/healthz`: whether every loop has reported as it promised.
pub fn health(liveness: &Liveness) -> StatusResponse {
    let late = liveness.late(Instant::now());
    if late.is_empty() {
        return plain(200, TEXT, "ok\n");
    }
    let lines: Vec<String> = late
        .iter()
        .map(|late| format!("{}: stuck, {} overdue\n", late.name, format_span(late.by)))
        .collect();
    plain(503, TEXT, lines.concat())
}

/// A plain answer with a content type.
pub fn plain(status: u16, content_type: &str, text: impl Into<Bytes>) -> StatusResponse {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("cache-control", "no-store")
        .body(Full::new(text.into()).boxed())
        .unwrap_or_else(|_| Response::new(Full::new(Bytes::new()).boxed()))
}

impl StatusServer {
    /// Serves until `shutdown` or until what is returned is dropped, on a thread of its own. An
    /// address that cannot be had is logged and tried again: the daemon works without.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn serve(
        self,
        handler: Arc<dyn Handler>,
        shutdown: &CancellationToken,
    ) -> io::Result<ServedStatus> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let end = shutdown.child_token();
        let ended = end.clone();
        let thread = std::thread::Builder::new().name("status".to_owned()).spawn(move || {
            runtime.block_on(ended.run_until_cancelled(self.run(handler)));
            runtime.shutdown_background();
        })?;
        Ok(ServedStatus { end, thread: Some(thread) })
    }

    async fn run(self, handler: Arc<dyn Handler>) {
        let listener = self.bind().await;
        let connections = Connections::new();
        let server = Arc::new(Served { handler, hosts: self.hosts });
        loop {
            match &listener {
                Listener::Tcp(listener) => match listener.accept().await {
                    Ok((stream, peer)) => {
                        server.take(Box::new(stream), Some(peer.ip()), &connections);
                    }
                    Err(_) => out_of_files().await,
                },
                Listener::Unix { listener, .. } => match listener.accept().await {
                    Ok((stream, _)) => server.take(Box::new(stream), None, &connections),
                    Err(_) => out_of_files().await,
                },
            }
        }
    }

    async fn bind(&self) -> Listener {
        let mut failed = false;
        loop {
            match Listener::bind(&self.address).await {
                Ok(listener) => {
                    let taken = listener.local_addr().map(|addr| addr.to_string());
                    let addr = taken.unwrap_or_else(|| self.address.to_string());
                    tracing::info!(%addr, "status server listening");
                    return listener;
                }
                Err(error) if !failed => {
                    let hint = hint(&self.address, &error);
                    tracing::error!(
                        "cannot listen on {}: {error}{hint}; trying again",
                        self.address
                    );
                    failed = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(BIND_AGAIN).await;
        }
    }
}

/// What to do about an address that cannot be had.
fn hint(address: &ListenAddress, error: &io::Error) -> &'static str {
    match (error.kind(), address) {
        (io::ErrorKind::PermissionDenied, ListenAddress::Tcp(addr)) if addr.port() < 1024 => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE"
        }
        (io::ErrorKind::AddrInUse, _) => "; another process listens there",
        (io::ErrorKind::AddrNotAvailable, _) => "; this machine does not have that address",
        _ => "",
    }
}

/// Gives others time to close theirs.
async fn out_of_files() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// What every connection is served with.
struct Served {
    handler: Arc<dyn Handler>,
    hosts: AllowedHosts,
}

/// What a client is connected by, of either kind of socket: so there is one HTTP server, and not
/// one for each.
trait ClientStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> ClientStream for S {}

impl Served {
    fn take(
        self: &Arc<Self>,
        stream: Box<dyn ClientStream>,
        peer: Option<IpAddr>,
        connections: &Connections,
    ) {
        // Without a place the connection is closed: answers are being made on all of them.
        let Some(admitted) = connections.admit(peer) else { return };
        let server = Arc::clone(self);
        tokio::spawn(async move { server.serve(stream, peer.is_some(), Arc::new(admitted)).await });
    }

    async fn serve(&self, stream: Box<dyn ClientStream>, by_name: bool, place: Arc<Admitted>) {
        let served = AtomicUsize::new(0);
        let service = service_fn(|request: Request<Incoming>| {
            place.busy();
            let last = served.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS;
            let place = Arc::clone(&place);
            async move {
                if let Some(preparation) = self.handler.before(request.uri().path()) {
                    preparation.await;
                }
                let mut answer = self.answer(&request, by_name);
                if last {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                place.idle();
                Ok::<_, Infallible>(answer)
            }
        });
        let stream = TokioIo::new(WriteDeadline::new(stream, WRITE_DEADLINE));
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .serve_connection(stream, service);
        // A client that goes away is not our concern.
        let _ = place.end.run_until_cancelled(tokio::time::timeout(LIFETIME, serving)).await;
    }

    fn answer(&self, request: &Request<Incoming>, by_name: bool) -> StatusResponse {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::PUT if !by_name => return self.handler.command(request),
            _ => return plain(405, TEXT, ONLY_READ),
        }
        let always = ["/healthz", "/readyz"].contains(&request.uri().path());
        if by_name && !always && !self.hosts.allow_request(request) {
            return plain(
                421,
                TEXT,
                "this process is not known by that name: ask it by its address, or add the \
                 name to the allowed hosts\n",
            );
        }
        self.handler.answer(request)
    }
}

#[cfg(test)]
mod tests;
