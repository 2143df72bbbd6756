//! An HTTP/1.1 server that says it is some etcd, and knows no gRPC.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

pub(crate) struct OldServer {
    address: String,
    task: AbortHandle,
}

impl OldServer {
    /// One whose `/version` says `version`, and that has `/v2/machines`.
    pub(crate) async fn start(version: &'static str) -> Self {
        Self::with(version, "http://127.0.0.1:4001").await
    }

    /// No etcd at all: the same page for everything.
    pub(crate) async fn web(page: &'static str) -> Self {
        Self::with(page, page).await
    }

    async fn with(version: &'static str, machines: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = answer(stream, version, machines).await;
            }
        };
        Self { address, task: tokio::spawn(accept).abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, version: &str, machines: &str) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let (status, body) = match request.split(' ').nth(1) {
        Some("/version") => ("200 OK", version),
        Some("/v2/machines") => ("200 OK", machines),
        _ => ("400 Bad Request", "400 Bad Request"),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
