//! The status server: `/healthz`, `/metrics` and the like over HTTP.
//!
//! It serves what a handler answers and knows no route. Requests are bounded in size by having
//! no body read, in time by a deadline, in number by a semaphore.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::liveness::Liveness;
use crate::model::format_span;

/// The body of an answer; streams (server-sent events) fit as well as text.
pub type Body = BoxBody<Bytes, Infallible>;

/// An answer.
pub type StatusResponse = Response<Body>;

/// Answers requests. Must not wait for anything: it reads published state.
pub trait Handler: Send + Sync + 'static {
    /// The answer to a request; only its head matters.
    fn answer(&self, request: &Request<Incoming>) -> StatusResponse;
}

/// The status server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken or not ours.
    #[error(
        "cannot listen on {addr} for the status server; is the address free, and one of this machine?"
    )]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Reads `address:port`, `localhost:port`, or `:port` for every address of the machine.
///
/// # Errors
/// A text that says what to write instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| match host {
        "" => format!("0.0.0.0:{port}").parse().ok(),
        "localhost" => format!("127.0.0.1:{port}").parse().ok(),
        _ => text.parse().ok(),
    });
    parsed.ok_or_else(|| {
        format!(
            "`{}` is not an address; write 127.0.0.1:8080, or :8080 for all",
            text.escape_debug()
        )
    })
}

const CONNECTIONS: usize = 128;
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// Also a client that reads nothing more gives its connection back.
const LIFETIME: Duration = Duration::from_secs(3600);
const TEXT: &str = "text/plain; charset=utf-8";

/// The answer of `/healthz`: whether every loop reported in time.
#[must_use]
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
#[must_use]
pub fn plain(status: u16, content_type: &str, text: impl Into<Bytes>) -> StatusResponse {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("cache-control", "no-store")
        .body(Full::new(text.into()).boxed())
        .unwrap_or_else(|_| Response::new(Full::new(Bytes::new()).boxed()))
}

/// Listens on `addr` until `shutdown`; returns the address taken (port 0 is
/// allowed) once it listens.
///
/// # Errors
/// When the address cannot be had.
pub async fn serve(
    addr: SocketAddr,
    handler: Arc<dyn Handler>,
    shutdown: CancellationToken,
) -> Result<SocketAddr, HttpError> {
    let listener =
        TcpListener::bind(addr).await.map_err(|source| HttpError::Bind { addr, source })?;
    let taken = listener.local_addr().map_err(|source| HttpError::Bind { addr, source })?;
    tracing::info!(addr = %taken, "status server listens");
    tokio::spawn(async move {
        shutdown.run_until_cancelled(accept(listener, handler)).await;
    });
    Ok(taken)
}

async fn accept(listener: TcpListener, handler: Arc<dyn Handler>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let handler = Arc::clone(&handler);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = match *request.method() {
                    Method::GET | Method::HEAD => handler.answer(&request),
                    _ => plain(405, TEXT, "method not allowed: only GET and HEAD are served\n"),
                };
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that disconnects is no error.
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_DEADLINE)
                .serve_connection(TokioIo::new(stream), service);
            let _ = tokio::time::timeout(LIFETIME, served).await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_as_people_write_them() {
        let at = |text: &str| listen_address(text).map(|addr| addr.to_string());
        assert_eq!(at("127.0.0.1:8080").as_deref(), Ok("127.0.0.1:8080"));
        assert_eq!(at("[::1]:8080").as_deref(), Ok("[::1]:8080"));
        assert_eq!(at(":8080").as_deref(), Ok("0.0.0.0:8080"));
        assert_eq!(at("localhost:8080").as_deref(), Ok("127.0.0.1:8080"));
        for wrong in ["", "8080", "lb:8080", ":99999", "127.0.0.1"] {
            assert!(at(wrong).is_err_and(|why| why.contains(":8080")), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_is_stuck_is_not_healthy_whatever_answers() {
        let liveness = Liveness::default();
        let heartbeat = liveness.heartbeat("the agent of web", Duration::from_secs(30));
        assert_eq!(health(&liveness).status(), 200);
        tokio::time::advance(Duration::from_secs(31)).await;
        let stuck = health(&liveness);
        assert_eq!(stuck.status(), 503);
        let text = stuck.into_body().collect().await.map(|body| body.to_bytes());
        assert_eq!(text.as_deref().ok(), Some(&b"the agent of web: stuck, 1s overdue\n"[..]));
        heartbeat.beat(Duration::from_secs(30));
        assert_eq!(health(&liveness).status(), 200);
    }
}
