//! One HTTP request over a connection of its own, with a deadline.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::eventually::patience;

const DEADLINE: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
    /// The headers; names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Answer {
    /// The value of a header, asked for in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// `GET`.
///
/// # Errors
/// A sentence saying why there was no whole answer within 5 s.
pub async fn get(to: SocketAddr, path: &str) -> Result<Answer, String> {
    send(to, Method::GET, path, Bytes::new()).await
}

/// `POST` with a body.
///
/// # Errors
/// A sentence saying why there was no whole answer within 5 s.
pub async fn post(to: SocketAddr, path: &str, body: impl Into<Bytes>) -> Result<Answer, String> {
    send(to, Method::POST, path, body.into()).await
}

async fn send(to: SocketAddr, method: Method, path: &str, body: Bytes) -> Result<Answer, String> {
    match tokio::time::timeout(patience(DEADLINE), exchange(to, method, path, body)).await {
        Ok(result) => result.map_err(|e| format!("http://{to}{path}: {e}")),
        Err(_) => Err(format!("http://{to}{path}: no whole answer within {DEADLINE:?}")),
    }
}

async fn exchange(
    to: SocketAddr,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, to.to_string())
        .header(CONNECTION, "close")
        .body(Full::new(body))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    driver.abort();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Answer { status: head.status.as_u16(), body, headers })
}
