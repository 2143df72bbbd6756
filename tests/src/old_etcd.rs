//! An etcd of 2014 or 2015: a real one, behind a server that answers as those did where they
//! differ.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::etcd::Etcd;
use crate::lab::Lab;

/// Which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// 0.4: no refreshes, and a quorum read has the index of the key.
    V0_4,
    /// 2.2: no refreshes.
    V2_2,
    /// A member of 2.3 in a cluster of 2.2: it knows refreshes, the others empty the key.
    Mixed,
    /// A 2.3 as a proxy: the headers of a watch come with its event.
    Proxy,
    /// A 2.3 that has no history, whatever a watch asks for.
    NoHistory,
}

impl Age {
    fn version(self) -> &'static str {
        match self {
            Self::V0_4 => "etcd 0.4.9",
            Self::V2_2 => r#"{"etcdserver":"2.2.5","etcdcluster":"2.2.0"}"#,
            Self::Mixed => r#"{"etcdserver":"2.3.8","etcdcluster":"2.2.0"}"#,
            Self::Proxy | Self::NoHistory => r#"{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}"#,
        }
    }
}

/// A running one; ends when dropped.
pub struct OldEtcd {
    address: SocketAddr,
    refreshes: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
    task: AbortHandle,
}

type Body = http_body_util::Either<Full<Bytes>, Incoming>;

impl OldEtcd {
    /// One that keeps its keys in the v2 half of `etcd`.
    pub async fn before(lab: &Lab, etcd: &Etcd, age: Age) -> Self {
        let (address, to) = (lab.free(), etcd.address());
        let listener = TcpListener::bind(address).await.expect("the lab's address is free");
        let server = Server { to, age, refreshes: Arc::default(), reads: Arc::default() };
        let (refreshes, reads) = (Arc::clone(&server.refreshes), Arc::clone(&server.reads));
        let task = tokio::spawn(accept(listener, server)).abort_handle();
        Self { address, refreshes, reads, task }
    }

    /// `http://127.x.y.z:port`, for `--etcd`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many refreshes, in whatever form, have been answered.
    #[must_use]
    pub fn refreshes(&self) -> usize {
        self.refreshes.load(Ordering::SeqCst)
    }

    /// How many reads of whole trees have been answered.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

impl Drop for OldEtcd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Server {
    to: SocketAddr,
    age: Age,
    refreshes: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

async fn accept(listener: TcpListener, server: Server) {
    // Dropped with this task, and with it every connection.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let server = server.clone();
        connections.spawn(async move {
            let answer = service_fn(|request| answer(server.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            // A client may hang up at any time.
            let _ = http.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(server: Server, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
    let (mut head, body) = request.into_parts();
    let mut form = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    if head.uri.path() == "/version" {
        return Ok(text(StatusCode::OK, server.age.version()));
    }
    let refresh = head.method == Method::PUT && has(&form, "prevIndex");
    if has(&form, "refresh") && !matches!(server.age, Age::Proxy | Age::NoHistory) {
        if server.age == Age::Mixed && has(&form, "value") {
            let error = r#"{"errorCode":211,"message":"Value provided on refresh","index":1}"#;
            return Ok(text(StatusCode::BAD_REQUEST, error));
        }
        form = without_refresh(&form);
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(form.len()));
    }
    let query = head.uri.query().unwrap_or_default().to_owned();
    if server.age == Age::NoHistory && has(&query, "wait") {
        let error = r#"{"errorCode":401,"message":"outdated","cause":"[9/1]","index":1000}"#;
        return Ok(text(StatusCode::BAD_REQUEST, error));
    }
    if has(&query, "recursive") && !has(&query, "wait") {
        server.reads.fetch_add(1, Ordering::SeqCst);
    }
    let whole = (server.age == Age::Proxy && has(&query, "wait"))
        || (server.age == Age::V0_4 && has(&query, "quorum"));
    let response = forward(server.to, Request::from_parts(head, Full::from(form))).await?;
    if refresh {
        server.refreshes.fetch_add(1, Ordering::SeqCst);
    }
    if !whole {
        return Ok(response.map(Body::Right));
    }
    let (mut head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    if server.age == Age::V0_4 {
        let json: serde_json::Value = serde_json::from_slice(&body)?;
        if let Some(index) = json.pointer("/node/modifiedIndex").and_then(|index| index.as_u64()) {
            head.headers.insert("x-etcd-index", HeaderValue::from(index));
        }
    }
    head.headers.remove(TRANSFER_ENCODING);
    Ok(Response::from_parts(head, Body::Left(Full::from(body))))
}

fn has(form: &str, name: &str) -> bool {
    form.split('&').any(|pair| pair.split('=').next() == Some(name))
}

/// A server that does not know `refresh` ignores it, and a PUT without a value has an empty one.
fn without_refresh(form: &str) -> String {
    let mut pairs: Vec<&str> =
        form.split('&').filter(|pair| !pair.starts_with("refresh=")).collect();
    if !has(form, "value") {
        pairs.push("value=");
    }
    pairs.join("&")
}

async fn forward(
    to: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<Response<Incoming>> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>()?;
    let stream = TokioIo::new(TcpStream::connect(to).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    // It ends with the answer, or when the answer is dropped.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::Left(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert("x-etcd-index", HeaderValue::from(0));
    response
}
