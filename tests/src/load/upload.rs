//! Slow uploads: a body that takes its time, on a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Outcome;

const PIECES: usize = 10;
const PIECE: usize = 1_000;

/// Posts 10 kB in ten pieces, spread over `span`.
pub(super) async fn upload(to: SocketAddr, path: &str, span: Duration) -> Outcome {
    let mut stream = match TcpStream::connect(to).await {
        Ok(stream) => stream,
        Err(e) => return Outcome::Connect(e.to_string()),
    };
    match exchange(&mut stream, to, path, span).await {
        Ok(answer) => judge(&answer),
        Err(e) => Outcome::Cut(format!("in an upload: {e}")),
    }
}

async fn exchange(
    stream: &mut TcpStream,
    to: SocketAddr,
    path: &str,
    span: Duration,
) -> std::io::Result<String> {
    let length = PIECES * PIECE;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut beat = tokio::time::interval(span / 10);
    for _ in 0..PIECES {
        beat.tick().await;
        stream.write_all(&[b'x'; PIECE]).await?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn judge(answer: &str) -> Outcome {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return Outcome::Cut(format!("an upload was answered with {answer:?}"));
    };
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse::<u16>().ok());
    let got = format!("got {}", PIECES * PIECE);
    match status {
        Some(200) if body.contains(&got) => {
            // The body may be chunked; the backend's name is the word before.
            let name = body.split(" got").next().and_then(|text| text.lines().last());
            Outcome::Ok(name.unwrap_or_default().to_owned())
        }
        Some(status) if status != 200 => Outcome::Status(status),
        _ => Outcome::Cut(format!("an upload was answered with {answer:?}")),
    }
}
