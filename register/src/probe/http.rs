//! HTTP probes over hyper, on a connection opened for this one request.
//!
//! hyper rather than a whole client: no pool, no proxy, no redirects to switch
//! off, and a fraction of the memory. Everything read is bounded: 64 KiB of
//! headers, 64 KiB of body, a number of interim answers. As much of the body must come
//! within the deadline; what comes after it is not waited for.

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::model::{Endpoint, Host};
use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::rt::Executor;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::check::{Check, HttpCheck, HttpOptions, Scheme};
use super::connect;
use super::deadline::{ProbeDeadline, ProbeFailure, one_line};
use super::tls::Connector;

/// The most that is read of headers, and of a body; bytes.
const LIMIT: usize = 64 * 1024;

/// The most headers that an answer may have; 64 KiB of them count first.
const HEADERS: usize = 1_000;

/// The most interim responses (1xx) before the real one. An endless series of them would keep a
/// processor busy until the deadline.
const INTERIM: usize = 20;

/// How long the rest of a body is read.
const DISCARD: Duration = Duration::from_millis(100);

const AGENT: &str = concat!("register/", env!("CARGO_PKG_VERSION"));

const HEAD: &str = "waiting for the status and headers";

type ProbeRequest = Request<Empty<Bytes>>;

pub(super) async fn ask(
    check: &HttpCheck,
    tls: Option<&Connector>,
    deadline: &ProbeDeadline,
) -> Result<(), ProbeFailure> {
    let stream = connect::open(&check.address, deadline).await?;
    match (check.scheme, tls) {
        (Scheme::H2c, _) => Ok(over_http2(check, stream, deadline).await?),
        (_, None) => Ok(over_http1(check, stream, deadline).await?),
        (_, Some(tls)) => {
            let secured = tls.secure(stream, &check.server_name, deadline).await?;
            Ok(over_http1(check, secured, deadline).await?)
        }
    }
}

async fn over_http1<S>(check: &HttpCheck, stream: S, deadline: &ProbeDeadline) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = request(check, check.path.clone())?;
    request.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
    let mut builder = http1::Builder::new();
    // The case does not matter, but to the simplest of servers.
    builder.max_buf_size(LIMIT).max_headers(HEADERS).title_case_headers(true);
    let shake = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream));
    let (mut sender, connection) = shake.await.map_err(|e| one_line(&e))?;
    let interim = Arc::new(Interim::default());
    interim.count_on(&mut request);
    let exchange = async {
        let head = async { sender.send_request(request).await.map_err(|e| no_http(&e)) };
        let head = deadline.step(HEAD, async {
            tokio::select! {
                head = head => head,
                () = interim.too_many.notified() => {
                    Err(format!("more than {INTERIM} interim responses (1xx) without a final one"))
                }
            }
        });
        judge(check, head.await?, deadline).await
    };
    beside(exchange, connection).await
}

/// Counts interim answers.
#[derive(Default)]
struct Interim {
    count: AtomicUsize,
    too_many: Notify,
}

impl Interim {
    fn count_on(self: &Arc<Self>, request: &mut ProbeRequest) {
        let this = Arc::clone(self);
        hyper::ext::on_informational(request, move |_| {
            if this.count.fetch_add(1, Ordering::Relaxed) >= INTERIM {
                this.too_many.notify_one();
            }
        });
    }
}

async fn over_http2<S>(check: &HttpCheck, stream: S, deadline: &ProbeDeadline) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request(check, format!("http://{}{}", check.authority, check.path))?;
    let tasks = Tasks::default();
    let _end = Ending(tasks.clone());
    let mut builder = http2::Builder::new(tasks);
    builder
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(64 * 1024)
        .max_header_list_size(64 * 1024);
    let shake = async {
        let shaken = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
        shaken.map_err(|e| no_http(&e))
    };
    let (mut sender, connection) = deadline.step("agreeing on HTTP/2", shake).await?;
    let exchange = async {
        let head = async { sender.send_request(request).await.map_err(|e| no_http(&e)) };
        judge(check, deadline.step(HEAD, head).await?, deadline).await
    };
    beside(exchange, connection).await
}

/// Whether a probe passes whose backend sends these bytes and ends; for [`crate::fuzz`].
pub(crate) fn judge_any(how: u8, answer: &[u8]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { return false };
    let (text, body) = match how % 3 {
        0 => ("http://127.0.0.1:1/", None),
        1 => ("http://127.0.0.1:1/", Some("ok".to_owned())),
        _ => ("h2c://127.0.0.1:1/", None),
    };
    let options = HttpOptions { body, ..HttpOptions::default() };
    let own = Endpoint::new(Host::V4(Ipv4Addr::LOCALHOST), 1);
    let check = own.ok().and_then(|own| Check::parse(text, &own, &options).ok());
    let Some(Check::Http(check)) = check else { return false };
    let judged = async {
        let (near, mut far) = tokio::io::duplex(2 * LIMIT);
        let deadline = ProbeDeadline::after(Duration::from_secs(2));
        let asked = async {
            match check.scheme {
                Scheme::H2c => over_http2(&check, near, &deadline).await,
                _ => over_http1(&check, near, &deadline).await,
            }
        };
        let answered = async {
            // A probe that is over reads no more.
            let _ = far.write_all(answer).await;
            let _ = far.shutdown().await;
            std::future::pending::<()>().await;
        };
        match select(pin!(asked), pin!(answered)).await {
            Either::Left((verdict, _)) => verdict.is_ok(),
            Either::Right(((), _)) => false,
        }
    };
    runtime.block_on(judged)
}

fn request(check: &HttpCheck, uri: String) -> Result<ProbeRequest, String> {
    let mut request = Request::get(uri);
    // HTTP/2 has it in the URI. In HTTP/1.1 it comes first, as it should.
    if check.scheme != Scheme::H2c {
        request = request.header(HOST, &check.authority);
    }
    let request = request.header(USER_AGENT, AGENT).header(ACCEPT, "*/*").body(Empty::new());
    request.map_err(|e| format!("the request cannot be made: {e}"))
}

fn no_http(error: &hyper::Error) -> String {
    if error.is_parse() {
        format!("the response is not HTTP of the expected version: {}", one_line(error))
    } else {
        one_line(error)
    }
}

/// Drives the connection while the exchange runs; both end here.
async fn beside<T, C>(exchange: impl Future<Output = T>, connection: C) -> T
where
    C: Future,
{
    match select(pin!(exchange), pin!(connection)).await {
        Either::Left((done, _)) => done,
        // The exchange learns of the connection's end, good or bad, as well.
        Either::Right((_, exchange)) => exchange.await,
    }
}

async fn judge(
    check: &HttpCheck,
    response: Response<Incoming>,
    deadline: &ProbeDeadline,
) -> Result<(), String> {
    let status = response.status();
    let mut body = response.into_body();
    let mut read = 0;
    let verdict = if check.expect.contains(status.as_u16()) {
        let reading = async {
            match &check.body {
                None => whole(&mut body, &mut read).await,
                Some(wanted) => find(wanted, &mut body, &mut read).await,
            }
        };
        deadline.step("reading the body", reading).await
    } else {
        Err(format!("status {status}, expected {}", check.expect))
    };
    // The answer is known. A server that is still writing would log the closed connection as
    // an error, every time; so a short rest is read.
    deadline.briefly(DISCARD, discard(&mut body, &mut read)).await;
    verdict
}

/// Reads to the end, or 64 KiB: a server that begins an answer and does not go on is as
/// unhealthy as a silent one.
async fn whole(body: &mut Incoming, read: &mut usize) -> Result<(), String> {
    while *read < LIMIT {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|e| breaks_off(&e))?;
        *read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
    }
    Ok(())
}

fn breaks_off(error: &hyper::Error) -> String {
    format!("the body ends early: {}", one_line(error))
}

/// Looks for `wanted` in the first 64 KiB.
async fn find(wanted: &str, body: &mut Incoming, read: &mut usize) -> Result<(), String> {
    let needle = wanted.as_bytes();
    let mut seen: Vec<u8> = Vec::new();
    while seen.len() < LIMIT {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|e| breaks_off(&e))?;
        let Some(data) = frame.data_ref() else { continue };
        *read = read.saturating_add(data.len());
        let from = seen.len().saturating_sub(needle.len().saturating_sub(1));
        seen.extend(data.iter().take(LIMIT - seen.len()));
        let fresh = seen.get(from..).unwrap_or_default();
        if fresh.windows(needle.len().max(1)).any(|part| part == needle) {
            return Ok(());
        }
    }
    Err(format!("the body (up to 64 KiB of it) does not contain `{}`", wanted.escape_debug()))
}

/// Reads the rest and drops it, as long as it stays within 64 KiB.
async fn discard(body: &mut Incoming, read: &mut usize) {
    while *read < LIMIT {
        let Some(Ok(frame)) = body.frame().await else { break };
        *read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
    }
}

/// Where hyper's HTTP/2 puts the tasks it needs. They end with the probe, however
/// the server behaves.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.spawn(async move {
            task.await;
        });
    }
}

/// Ends the tasks when the probe is over or dropped. The set cannot do so itself:
/// its tasks hold clones of it.
struct Ending(Tasks);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}
