//! Probes against real listeners that behave in all the ways backends do.

mod commands;
mod listeners;
mod parsing;
mod secured;

use std::time::Duration;

use common::model::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use listeners::{Answer, serve, serve_at, serve_unix};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What a check of this text finds.
async fn found(check: &str, options: &HttpOptions) -> Verdict {
    let own: Endpoint = "127.0.0.1:1".parse().unwrap();
    let check = Check::parse(check, &own, options).unwrap();
    // Long where an answer comes; where none does, time is paused.
    Probe::prepare(check, Duration::from_secs(10), &mut Trust::default()).unwrap().ask().await
}

async fn plain(check: &str) -> Verdict {
    found(check, &HttpOptions::default()).await
}

fn why(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => panic!("it passed"),
        Verdict::NotMade(why) => panic!("not made: {why}"),
        Verdict::Fail(why) => {
            assert_eq!(why.lines().count(), 1, "{why}");
            why
        }
    }
}

fn body(text: &str) -> HttpOptions {
    HttpOptions { body: Some(text.to_owned()), ..HttpOptions::default() }
}

#[tokio::test]
async fn an_answer_is_a_pass_and_the_request_is_what_was_asked() {
    let server = serve(Answer::Text(OK)).await;
    let at = server.address();
    assert_eq!(plain(&format!("http://{at}/health?x=1")).await, Verdict::Pass);
    let request = server.request().await;
    assert!(request.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("Host: {at}\r\n")), "{request}");
    assert!(request.contains("Connection: close\r\n"), "{request}");
    let options = HttpOptions { host: Some("www.example.com".into()), ..HttpOptions::default() };
    assert_eq!(found(&format!("http://{at}"), &options).await, Verdict::Pass);
    let request = server.request().await;
    assert!(request.contains("Host: www.example.com\r\n"), "{request}");
}

#[tokio::test]
async fn statuses_decide_and_redirects_are_not_followed() {
    for (status, passes) in [
        ("204 No Content", true),
        ("301 Moved", true),
        ("404 Not Found", false),
        ("503 Busy", false),
    ] {
        let text = format!(
            "HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        );
        let server = serve(Answer::Owned(text)).await;
        let verdict = plain(&format!("http://{}", server.address())).await;
        assert_eq!(verdict.passed(), passes, "{status}: {verdict:?}");
    }
    let server = serve(Answer::Text("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")).await;
    let strict = HttpOptions { expect: "200-299".parse().unwrap(), ..HttpOptions::default() };
    let message = why(found(&format!("http://{}", server.address()), &strict).await);
    assert_eq!(message, "status 302 Found, expected 200-299");
}

#[tokio::test]
async fn the_body_is_searched_as_far_as_64_kib_and_across_pieces() {
    let server = serve(Answer::Text(OK)).await;
    let at = format!("http://{}", server.address());
    assert_eq!(found(&at, &body("ok")).await, Verdict::Pass);
    let message = why(found(&at, &body("ready")).await);
    assert_eq!(message, "the body (up to 64 KiB of it) does not contain `ready`");
    // An endless body: a probe that read all of it would never end.
    let server = serve(Answer::Endless("HTTP/1.1 200 OK\r\n\r\nalive", "zzzzzzz")).await;
    let at = format!("http://{}", server.address());
    assert_eq!(plain(&at).await, Verdict::Pass);
    assert_eq!(found(&at, &body("alivezz")).await, Verdict::Pass);
    assert!(why(found(&at, &body("nope")).await).contains("does not contain"));
    let old = serve(Answer::Text("HTTP/1.0 200 OK\r\n\r\nuntil the end")).await;
    let at = format!("http://{}", old.address());
    assert_eq!(found(&at, &body("the end")).await, Verdict::Pass);
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort";
    let server = serve(Answer::Text(cut)).await;
    let message = why(found(&format!("http://{}", server.address()), &body("nope")).await);
    assert!(message.starts_with("the body ends early"), "{message}");
    let message = why(plain(&format!("http://{}", server.address())).await);
    assert!(message.starts_with("the body ends early"), "{message}");
}

#[tokio::test]
async fn a_server_that_is_still_writing_is_heard_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        stream.write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 30000\r\n\r\n").await.unwrap();
        for _ in 0..30 {
            tokio::task::yield_now().await;
            stream.write_all(&[b'x'; 1000]).await.unwrap();
        }
        // An end, not a reset.
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    };
    let (verdict, ()) = tokio::join!(plain(&url), serve);
    assert_eq!(why(verdict), "status 500 Internal Server Error, expected 200-399");
}

#[tokio::test(start_paused = true)]
async fn silence_and_dripping_end_at_the_deadline() {
    let head = "HTTP/1.1 200 OK\r\nX: ";
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    for (answer, phase) in [
        (Answer::Silence, "waiting for the status and headers"),
        (Answer::Drip("", "HTTP/1.1 200 OK\r\n"), "waiting for the status and headers"),
        (Answer::Drip(head, "xxxxxxxxxxxxxxxxxxxx"), "waiting for the status and headers"),
        (Answer::Drip(long, "xxxxxxxxxxxxxxxxxxxx"), "reading the body"),
    ] {
        let server = serve(answer).await;
        let message = why(found(&format!("http://{}", server.address()), &body("y")).await);
        assert_eq!(message, format!("no answer within 10s while {phase}"));
    }
    // Also where nothing in the body decides.
    let server = serve(Answer::Drip(long, "xxxxxxxxxxxxxxxxxxxx")).await;
    let message = why(plain(&format!("http://{}", server.address())).await);
    assert_eq!(message, "no answer within 10s while reading the body");
    let server = serve(Answer::Silence).await;
    let message = why(plain(&format!("h2c://{}", server.address())).await);
    assert!(message.starts_with("no answer within 10s while "), "{message}");
    let message = why(plain(&format!("https://{}", server.address())).await);
    assert_eq!(message, "no answer within 10s while negotiating TLS");
}

#[tokio::test]
async fn what_is_not_http_or_too_long_is_a_failure_with_a_reason() {
    let server = serve(Answer::Text("SSH-2.0-OpenSSH_9.2\r\n")).await;
    let message = why(plain(&format!("http://{}", server.address())).await);
    assert!(message.starts_with("the response is not HTTP of the expected version"), "{message}");
    let server = serve(Answer::Endless("HTTP/1.1 200 OK\r\nX: ", "zzzzzzzz")).await;
    let message = why(plain(&format!("http://{}", server.address())).await);
    assert!(message.contains("too large"), "{message}");
    let server = serve(Answer::Text("")).await;
    let message = why(plain(&format!("http://{}", server.address())).await);
    assert!(message.contains("closed"), "{message}");
    let server = serve(Answer::Reset).await;
    let message = why(plain(&format!("http://{}", server.address())).await);
    assert!(message.contains("reset"), "{message}");
}

#[tokio::test]
async fn tcp_is_a_connection_and_nothing_more() {
    let server = serve(Answer::Silence).await;
    let at = server.address();
    assert_eq!(plain(&format!("tcp://{at}")).await, Verdict::Pass);
    server.stop().await;
    let message = why(plain(&format!("tcp://{at}")).await);
    assert_eq!(message, format!("cannot connect to {at}: Connection refused"));
}

#[tokio::test]
async fn names_and_ipv6_are_reached() {
    let server = serve(Answer::Text(OK)).await;
    let port = server.address().port();
    // `localhost` may be ::1 first, where nothing listens.
    assert_eq!(plain(&format!("http://localhost:{port}/")).await, Verdict::Pass);
    let message = why(plain("http://no-such-name.invalid/").await);
    assert!(message.starts_with("cannot look up no-such-name.invalid"), "{message}");
    // Not every machine that tests run on has IPv6.
    if let Ok(server) = serve_at("[::1]:0", Answer::Text(OK)).await {
        let at = server.address();
        assert_eq!(plain(&format!("tcp://{at}")).await, Verdict::Pass);
        assert_eq!(plain(&format!("http://{at}/")).await, Verdict::Pass);
    }
}

#[tokio::test]
async fn unix_sockets_are_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let server = serve_unix(&path, Answer::Text(OK));
    let path = path.display();
    assert_eq!(plain(&format!("unix:{path}")).await, Verdict::Pass);
    let _ = server.request().await;
    assert_eq!(plain(&format!("http://unix:{path}:/health")).await, Verdict::Pass);
    let request = server.request().await;
    assert!(request.starts_with("GET /health HTTP/1.1\r\nHost: localhost\r\n"), "{request}");
    let message = why(plain("unix:/nowhere/app.sock").await);
    assert_eq!(message, "cannot connect to unix:/nowhere/app.sock: No such file or directory");
}

#[tokio::test]
async fn none_always_passes() {
    assert_eq!(plain("none").await, Verdict::Pass);
}
