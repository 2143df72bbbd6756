use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

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

/// Answers `/large` with a megabyte, and anything else with its path.
struct Large(Bytes);

impl Handler for Large {
    fn answer(&self, request: &Request<Incoming>) -> StatusResponse {
        match request.uri().path() {
            "/large" => plain(200, TEXT, self.0.clone()),
            path => plain(200, TEXT, path.to_owned()),
        }
    }
}

async fn served() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let handler = Arc::new(Large(Bytes::from(vec![b'x'; 1 << 20])));
    let server = Arc::new(Served { handler, hosts: AllowedHosts::new([]) });
    let connections = Connections::new();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            server.take(Box::new(stream), Some(peer.ip()), &connections);
        }
    });
    addr
}

/// Everything that comes until the server closes the connection.
async fn asked(addr: SocketAddr, requests: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    // A connection that was reset has ended too.
    let _ = stream.read_to_end(&mut answers).await;
    String::from_utf8_lossy(&answers).into_owned()
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[tokio::test]
async fn clients_that_never_read_do_not_block_healthz() {
    let addr = served().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // Some are closed already for newer ones.
        let _ = stream.write_all(get("/large", "127.0.0.1").repeat(50).as_bytes()).await;
        idle.push(stream);
    }
    let answer = asked(addr, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.ends_with("/healthz"), "{answer}");
}

#[tokio::test]
async fn a_connection_is_closed_after_its_share_of_requests() {
    let answers = asked(served().await, &get("/x", "127.0.0.1").repeat(REQUESTS + 7)).await;
    assert_eq!(answers.matches("200 OK").count(), REQUESTS);
}

#[tokio::test]
async fn a_page_from_elsewhere_reads_nothing_by_a_name_of_its_own() {
    let addr = served().await;
    let strange =
        get("/status", "attacker.example").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let answer = asked(addr, &strange).await;
    assert!(answer.starts_with("HTTP/1.1 421") && answer.contains("allowed hosts"), "{answer}");
    let answer = asked(addr, &strange.replace("/status", "/readyz")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(asked(addr, post).await.starts_with("HTTP/1.1 405"));
}
