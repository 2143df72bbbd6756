//! One client with at most one connection.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Outcome;

pub(super) struct Client {
    to: SocketAddr,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    pub(super) fn new(to: SocketAddr) -> Self {
        Self { to, connection: None }
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Sends one request, over the connection at hand if it is still open.
    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Outcome {
        let mut request = request;
        if let Some(mut connection) = self.connection.take()
            && connection.sender.ready().await.is_ok()
        {
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let outcome = read(response).await;
                    self.connection = Some(connection);
                    return outcome;
                }
                // Handed back unsent: the connection was closed before. As if it had been seen.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Outcome::StaleReuse,
                },
            }
        }
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(e) => return Outcome::Connect(e.to_string()),
        };
        match connection.sender.send_request(request).await {
            Ok(response) => {
                let outcome = read(response).await;
                self.connection = Some(connection);
                outcome
            }
            Err(e) => Outcome::Cut(format!("no answer on a new connection: {e}")),
        }
    }

    async fn connect(&self) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, driver: tokio::spawn(connection) })
    }
}

async fn read(response: hyper::Response<hyper::body::Incoming>) -> Outcome {
    let status = response.status();
    match response.into_body().collect().await {
        Err(e) => Outcome::Cut(format!("status {status}, then {e}")),
        Ok(_) if !status.is_success() => Outcome::Status(status.as_u16()),
        Ok(body) => {
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Outcome::Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
        }
    }
}
