//! Servers on the loopback with bad manners.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// How a server answers each connection.
#[derive(Clone)]
pub(super) enum Answer {
    /// This, then the end.
    Text(&'static str),
    Owned(String),
    /// Nothing, and the connection stays.
    Silence,
    /// The first at once, the second a byte a second, then silence.
    Drip(&'static str, &'static str),
    /// The first once, the second from then on.
    Endless(&'static str, &'static str),
    /// RST.
    Reset,
}

pub(super) struct Server {
    address: Option<SocketAddr>,
    requests: Mutex<mpsc::UnboundedReceiver<String>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// The beginning of the next connection's request.
    pub(super) async fn request(&self) -> String {
        self.requests.lock().await.recv().await.unwrap()
    }
}

impl Server {
    /// Ends when nothing listens any more.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn serve(answer: Answer) -> Server {
    serve_at("127.0.0.1:0", answer).await.unwrap()
}

pub(super) async fn serve_at(at: &str, answer: Answer) -> std::io::Result<Server> {
    let listener = TcpListener::bind(at).await?;
    let address = Some(listener.local_addr().unwrap());
    let (tell, requests) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if matches!(answer, Answer::Reset) {
                reset(stream).await;
            } else {
                tokio::spawn(serve_one(stream, answer.clone(), tell.clone()));
            }
        }
    });
    Ok(Server { address, requests: Mutex::new(requests), task })
}

pub(super) fn serve_unix(path: &Path, answer: Answer) -> Server {
    let listener = UnixListener::bind(path).unwrap();
    let (tell, requests) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_one(stream, answer.clone(), tell.clone()));
        }
    });
    Server { address: None, requests: Mutex::new(requests), task }
}

/// Closing with the request unread makes the kernel send RST.
async fn reset(stream: TcpStream) {
    stream.readable().await.unwrap();
    drop(stream);
}

async fn serve_one(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: Answer,
    tell: mpsc::UnboundedSender<String>,
) {
    let mut request = vec![0; 4096];
    let n = stream.read(&mut request).await.unwrap_or(0);
    let _ = tell.send(String::from_utf8_lossy(&request[..n]).into_owned());
    // The other side may close at any time.
    let _ = match answer {
        Answer::Text(text) => stream.write_all(text.as_bytes()).await,
        Answer::Owned(text) => stream.write_all(text.as_bytes()).await,
        Answer::Drip(first, slow) => {
            let _ = stream.write_all(first.as_bytes()).await;
            for byte in slow.bytes() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = stream.write_all(&[byte]).await;
            }
            std::future::pending().await
        }
        Answer::Endless(first, again) => {
            let _ = stream.write_all(first.as_bytes()).await;
            while stream.write_all(again.as_bytes()).await.is_ok() {}
            Ok(())
        }
        Answer::Silence | Answer::Reset => std::future::pending().await,
    };
}
