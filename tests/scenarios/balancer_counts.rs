//! Whatever kind of request it is, the balancer counts it while its backend has it, and
//! not longer.

use std::net::SocketAddr;

use confsync::proxy::membership::nginx_text::BalancerSettings;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::eventually::check;
use tests::{Backend, Behaviour, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::balancer_scene::{Conf, SITE, Scene};

/// Sends bytes and leaves the connection open.
pub(crate) async fn send(to: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// All kinds of sites: a request to `path` is counted once while the backend hangs, and
/// not at all when it has been answered.
async fn counted_to_the_end(conf: &Conf<'_>, path: &str, in_flight: u64) {
    let Some((scene, _nginx)) = Scene::start(conf).await else { return };
    let backend = Backend::start(&scene.lab, "app").await;
    scene.join(&backend);
    let slot = scene.slot(&backend);
    for _ in 0..20 {
        scene.nginx.get(path).await.unwrap();
    }
    scene.flying(slot, 0).await;
    backend.behave(Behaviour::Hang);
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let client = send(scene.nginx.address(), &request).await;
    scene.flying(slot, in_flight).await;
    // The client goes: nginx gives up on the backend.
    drop(client);
    scene.flying(slot, 0).await;
    assert!(scene.folder.workers.is_exact().unwrap());
}

#[tokio::test]
async fn a_plain_request() {
    counted_to_the_end(&Conf::default(), "/", 1).await;
}

#[tokio::test]
async fn a_request_that_is_redirected_inside_nginx() {
    let site = "location / { proxy_pass http://app; proxy_intercept_errors on; error_page 404 = @again; } \
                location @again { proxy_pass http://app; } \
                location /try { try_files /none @again; } \
                location /first { error_page 418 = @again; return 418; }";
    for path in ["/", "/try", "/first"] {
        counted_to_the_end(&Conf { site, ..Conf::default() }, path, 1).await;
    }
}

#[tokio::test]
async fn an_error_page_that_asks_the_upstream_again() {
    let site = "location / { proxy_pass http://app; proxy_intercept_errors on; error_page 404 = @again; } \
                location @again { proxy_pass http://app; }";
    let Some((scene, _nginx)) = Scene::start(&Conf { site, ..Conf::default() }).await else {
        return;
    };
    let backend = Backend::start(&scene.lab, "app").await;
    backend.behave(Behaviour::Status(404));
    scene.join(&backend);
    for _ in 0..10 {
        assert_eq!(scene.nginx.get("/").await.unwrap().status, 404);
    }
    scene.flying(scene.slot(&backend), 0).await;
    assert_eq!(scene.traffic(scene.slot(&backend)).requests, 20.0);
    assert_eq!(scene.traffic(scene.slot(&backend)).failures, 0);
}

#[tokio::test]
async fn subrequests_and_mirrors_end_with_their_request() {
    let site = "location / { auth_request /auth; mirror /mirror; proxy_pass http://app; } \
                location = /auth { internal; proxy_pass http://app; } \
                location = /mirror { internal; proxy_pass http://app; }";
    let Some((scene, _nginx)) = Scene::start(&Conf { site, ..Conf::default() }).await else {
        return;
    };
    let backend = Backend::start(&scene.lab, "app").await;
    scene.join(&backend);
    for _ in 0..20 {
        assert_eq!(scene.nginx.get("/").await.unwrap().status, 200);
    }
    scene.flying(scene.slot(&backend), 0).await;
    assert_eq!(scene.traffic(scene.slot(&backend)).requests, 60.0);
}

#[tokio::test]
async fn logged_subrequests_do_not_end_their_request() {
    let site = "log_subrequest on; \
                location / { auth_request /auth; proxy_pass http://app; } \
                location = /auth { internal; proxy_pass http://app/auth; }";
    counted_to_the_end(&Conf { site, ..Conf::default() }, "/", 1).await;
}

#[tokio::test]
async fn without_lua_code_cache() {
    let conf = Conf { http: "lua_code_cache off;", ..Conf::default() };
    counted_to_the_end(&conf, "/", 1).await;
}

#[tokio::test]
async fn an_upload_that_is_not_buffered_counts_from_its_first_byte() {
    let site = "location / { proxy_pass http://app; proxy_http_version 1.1; proxy_request_buffering off; }";
    let Some((scene, _nginx)) = Scene::start(&Conf { site, ..Conf::default() }).await else {
        return;
    };
    let backend = Backend::start(&scene.lab, "app").await;
    scene.join(&backend);
    let slot = scene.slot(&backend);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n12345";
    let mut client = send(scene.nginx.address(), head).await;
    scene.flying(slot, 1).await;
    client.write_all(b"67890").await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("app got 10\n") {
        let mut bytes = [0; 1024];
        let length = client.read(&mut bytes).await.unwrap();
        assert!(length > 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    scene.flying(slot, 0).await;
}

/// Answers each upgrade and sends back what comes.
pub(crate) async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            let _ = stream.write_all(head.as_bytes()).await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}

#[tokio::test]
async fn a_websocket_counts_until_it_is_closed_and_outlives_its_backends_leaving() {
    let site = "location / { proxy_pass http://app; proxy_http_version 1.1; \
                proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection Upgrade; }";
    let Some((scene, _nginx)) = Scene::start(&Conf { site, ..Conf::default() }).await else {
        return;
    };
    let backend = Backend::prepare_at(scene.lab.free(), "echo");
    let listener = TcpListener::bind(backend.address()).await.unwrap();
    let _server = tokio::spawn(echo(listener));
    scene.join(&backend);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    let mut client = send(scene.nginx.address(), request).await;
    let slot = scene.slot(&backend);
    scene.flying(slot, 1).await;
    scene.leave(&backend);
    let mut answer = vec![0; 4096];
    let length = client.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 101"));
    client.write_all(b"hello").await.unwrap();
    let length = client.read(&mut answer).await.unwrap();
    assert_eq!(&answer[..length], b"hello");
    assert_eq!(scene.in_flight(slot), 1);
    drop(client);
    scene.flying(slot, 0).await;
}

/// An h2 connection without TLS.
pub(crate) async fn http2<B>(to: SocketAddr) -> hyper::client::conn::http2::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(to).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn each_stream_of_http2_counts_by_itself() {
    let lab_site = SITE;
    let Some(scene) = Scene::prepare(&Conf::default()) else { return };
    let front = scene.lab.free();
    let http = format!("server {{ listen {front} http2; {lab_site} }}");
    scene.write_conf(&Conf { http: &http, ..Conf::default() }).unwrap();
    let _nginx = scene.nginx.start().await;
    scene.state().await;
    let backend = Backend::start(&scene.lab, "app").await;
    backend.behave(Behaviour::Hang);
    scene.join(&backend);
    let mut sender = http2(front).await;
    let streams: Vec<_> = (0..10)
        .map(|_| {
            let request = Request::get(format!("http://{front}/")).body(Full::default()).unwrap();
            tokio::spawn(sender.send_request(request))
        })
        .collect();
    let slot = scene.slot(&backend);
    scene.flying(slot, 10).await;
    streams[0].abort();
    scene.flying(slot, 9).await;
    streams.iter().for_each(tokio::task::JoinHandle::abort);
    drop(sender);
    scene.flying(slot, 0).await;
}

/// A gRPC service: answers when `open` turns true, with the trailer that ends a call.
async fn grpc(listener: TcpListener, open: watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        let open = open.clone();
        let service = hyper::service::service_fn(move |_| {
            let mut open = open.clone();
            async move {
                let _ = open.wait_for(|open| *open).await;
                let trailers = [("grpc-status", "0")].map(|(name, value)| {
                    (
                        hyper::header::HeaderName::from_static(name),
                        hyper::header::HeaderValue::from_static(value),
                    )
                });
                let body = Full::new(Bytes::from_static(b"\0\0\0\0\0"))
                    .with_trailers(async move { Some(Ok(trailers.into_iter().collect())) });
                let response = Response::builder().header("content-type", "application/grpc");
                Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
            }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

#[tokio::test]
async fn a_call_of_grpc_counts() {
    let Some(scene) = Scene::prepare(&Conf::default()) else { return };
    let front = scene.lab.free();
    let http = format!("server {{ listen {front} http2; location / {{ grpc_pass grpc://app; }} }}");
    scene.write_conf(&Conf { http: &http, ..Conf::default() }).unwrap();
    let _nginx = scene.nginx.start().await;
    scene.state().await;
    let backend = Backend::prepare_at(scene.lab.free(), "grpc");
    let (open, opening) = watch::channel(false);
    let listener = TcpListener::bind(backend.address()).await.unwrap();
    let _server = tokio::spawn(grpc(listener, opening));
    scene.join(&backend);
    let mut sender = http2(front).await;
    let request = Request::post(format!("http://{front}/service/Call"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
        .unwrap();
    let call = tokio::spawn(sender.send_request(request));
    let slot = scene.slot(&backend);
    scene.flying(slot, 1).await;
    open.send_replace(true);
    let response = call.await.unwrap().unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    scene.flying(slot, 0).await;
}

#[tokio::test]
async fn where_a_log_by_lua_of_the_operator_hides_ours_nothing_is_counted() {
    let settings = BalancerSettings { counted: false, ..BalancerSettings::default() };
    let site = "log_by_lua_block { local mine = 1 } \
                location / { proxy_pass http://app; }";
    let Some((scene, _nginx)) = Scene::start(&Conf { settings, site, ..Conf::default() }).await
    else {
        return;
    };
    let backend = Backend::start(&scene.lab, "app").await;
    scene.join(&backend);
    for _ in 0..10 {
        assert_eq!(scene.nginx.get("/").await.unwrap().status, 200);
    }
    let traffic = scene.traffic(scene.slot(&backend));
    assert_eq!((traffic.in_flight, traffic.requests), (0, 10.0));
}

#[tokio::test]
async fn the_operators_lua_of_every_phase_goes_on_beside_ours() {
    let conf = Conf {
        http: "init_by_lua_block { started = 1 } init_worker_by_lua_block { worker = 1 } \
               lua_package_path '/nowhere/?.lua;;'; access_by_lua_block { ngx.ctx.seen = 1 } \
               lua_shared_dict mine 1m; header_filter_by_lua_block { ngx.header.mine = started }",
        ..Conf::default()
    };
    let Some((scene, _nginx)) = Scene::start(&conf).await else { return };
    let backend = Backend::start(&scene.lab, "app").await;
    scene.join(&backend);
    let answer = scene.nginx.get("/").await.unwrap();
    assert_eq!((answer.status, answer.header("mine")), (200, Some("1")));
    scene.flying(scene.slot(&backend), 0).await;
}

/// A kept connection that its backend has closed meanwhile costs no request: nginx tries
/// once more, with the only backend as well.
#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let Some((scene, _nginx)) = Scene::start(&Conf::default()).await else { return };
    let backend = Backend::start(&scene.lab, "app").await;
    scene.join(&backend);
    for _ in 0..10 {
        assert_eq!(scene.nginx.get("/").await.unwrap().status, 200);
        backend.die().await;
        backend.come_up().await;
    }
    assert_eq!(scene.nginx.get("/").await.unwrap().status, 200);
    eventually("all is counted down", || async {
        let now = scene.in_flight(scene.slot(&backend));
        check(now == 0, || format!("{now}"))
    })
    .await;
}
