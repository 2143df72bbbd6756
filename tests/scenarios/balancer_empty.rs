//! An upstream without members behind each module of nginx that speaks to upstreams: the answer,
//! and the wait for a member.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use confsync::proxy::membership::nginx_text::{BalancerSettings, Balancing};
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::{Bytes, Frame};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tests::eventually::check;
use tests::http::{get, post};
use tests::process::Process;
use tests::{Backend, Behaviour, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::balancer_counts::{self, http2};
use crate::balancer_members::{echo, member};
use crate::balancer_scene::{Conf, Scene};

/// What a location speaks, as its name.
const SPOKEN: [&str; 10] =
    ["http", "https", "verified", "grpc", "grpcs", "fastcgi", "kept", "uwsgi", "suwsgi", "scgi"];

/// Bodies of which one is sent with the head, and one long after.
const BODIES: [usize; 2] = [10, 3_000_000];

/// A location for each; TLS with a certificate of the client's, which only these locations know.
fn site(keys: &Path) -> String {
    let keys = keys.display();
    let client = |module: &str| {
        format!("{module}_ssl_certificate {keys}/crt; {module}_ssl_certificate_key {keys}/key;")
    };
    let (proxy, grpc, uwsgi) = (client("proxy"), client("grpc"), client("uwsgi"));
    format!(
        "client_max_body_size 0; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         location /http {{ proxy_pass http://app; }} \
         location /https {{ proxy_pass https://app; {proxy} }} \
         location /verified {{ proxy_pass https://app; {proxy} \
             proxy_ssl_verify on; proxy_ssl_trusted_certificate {keys}/crt; }} \
         location /grpc {{ grpc_pass grpc://app; }} \
         location /grpcs {{ grpc_pass grpcs://app; {grpc} }} \
         location /fastcgi {{ fastcgi_pass app; fastcgi_param A b; }} \
         location /kept {{ fastcgi_pass app; fastcgi_keep_conn on; fastcgi_param A b; }} \
         location /uwsgi {{ uwsgi_pass app; uwsgi_param CONTENT_LENGTH $content_length; }} \
         location /suwsgi {{ uwsgi_pass suwsgi://app; {uwsgi} }} \
         location /scgi {{ scgi_pass app; scgi_param A b; }}"
    )
}

/// With a member for TLS, which is nginx itself and asks for the certificate.
async fn start(hold: Duration, more: &str) -> Option<(Scene, Process, SocketAddr)> {
    let scene = Scene::prepare(&Conf::default())?;
    let keys = scene.lab.folder("keys");
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["app".into()]).unwrap();
    std::fs::write(keys.join("crt"), cert.pem()).unwrap();
    std::fs::write(keys.join("key"), signing_key.serialize_pem()).unwrap();
    let (member, keys_at) = (scene.lab.free(), keys.display());
    // What the operator sets for all is not for our servers.
    let http = format!(
        "proxy_intercept_errors on; ssl_protocols TLSv1.3; lua_check_client_abort on; \
         server {{ ssl_protocols TLSv1.2; listen {member} ssl http2; keepalive_timeout 0; ssl_certificate {keys_at}/crt; \
         ssl_certificate_key {keys_at}/key; ssl_verify_client on; \
         ssl_client_certificate {keys_at}/crt; client_max_body_size 0; \
         location / {{ return 200 \"got $content_length\\n\"; }} }}"
    );
    let settings = BalancerSettings::with(Balancing { hold, ..Balancing::default() });
    let site = site(&keys) + &more.replace("KEYS", &keys_at.to_string());
    scene.write_conf(&Conf { http: &http, site: &site, settings, ..Conf::default() }).unwrap();
    let nginx = scene.nginx.start().await;
    scene.state().await;
    Some((scene, nginx, member))
}

async fn assert_is_503(scene: &Scene, spoken: &str) {
    let to = scene.nginx.address();
    let path = format!("/{spoken}");
    let mut answers = vec![get(to, &path).await.unwrap()];
    for length in BODIES {
        answers.push(post(to, &path, vec![b'x'; length]).await.unwrap());
    }
    // nginx does not believe whoever answers that it is the upstream, and is told not to.
    let expected = if spoken == "verified" { (502, None) } else { (503, Some("5")) };
    for answer in answers {
        assert_eq!((answer.status, answer.header("retry-after")), expected, "{spoken}: {answer:?}");
    }
}

fn assert_no_warning(scene: &Scene) {
    let log = scene.nginx.error_log();
    let bad =
        |line: &&String| ["[warn]", "[crit]", "[alert]", "lua"].iter().any(|w| line.contains(w));
    let bad: Vec<_> =
        log.iter().filter(bad).filter(|line| !line.contains("is buffered to")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[tokio::test]
async fn each_module_is_answered_503() {
    // Without further tries, too, where TLS is known beforehand.
    let more = "location /once { proxy_pass https://app; proxy_next_upstream off; }";
    let Some((scene, _nginx, _)) = start(Duration::ZERO, more).await else { return };
    for spoken in SPOKEN.into_iter().chain(["once"]) {
        assert_is_503(&scene, spoken).await;
    }
    assert_no_warning(&scene);
}

#[tokio::test]
async fn each_module_is_answered_503_when_a_hold_ends() {
    let more = "location /tries { proxy_pass https://app; proxy_next_upstream_tries 1; }";
    let Some((scene, _nginx, _)) = start(Duration::from_millis(50), more).await else { return };
    for spoken in SPOKEN.into_iter().chain(["tries"]) {
        assert_is_503(&scene, spoken).await;
    }
    assert_no_warning(&scene);
}

#[tokio::test]
async fn without_another_try_tls_cannot_be_told_from_the_rest() {
    let more = "location /never { grpc_pass grpcs://app; grpc_next_upstream off; }";
    let Some((scene, _nginx, _)) = start(Duration::ZERO, more).await else { return };
    assert_eq!(get(scene.nginx.address(), "/never").await.unwrap().status, 502);
}

#[tokio::test]
async fn a_503_is_not_asked_for_again_and_is_seen_by_error_page() {
    let more = "location /next { grpc_pass grpc://app; grpc_next_upstream error http_503; } \
                location /page { fastcgi_pass app; fastcgi_intercept_errors on; \
                                 error_page 503 /sorry; } \
                location /sorry { return 200 \"sorry\\n\"; }";
    let Some((scene, _nginx, _)) = start(Duration::ZERO, more).await else { return };
    assert_is_503(&scene, "next").await;
    assert_eq!(get(scene.nginx.address(), "/page").await.unwrap().body, "sorry\n");
}

/// Requests that are with the server that holds them.
fn held(scene: &Scene) -> usize {
    let socket = scene.folder.path().join("app.sock").display().to_string();
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let is_open = |line: &&str| line.contains(" 0001 03 ") && line.ends_with(&socket);
    sockets.lines().filter(is_open).count()
}

async fn are_held(scene: &Scene, count: usize) {
    eventually(format!("{count} are held"), || async {
        let now = held(scene);
        check(now == count, || format!("{now} are"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_module_waits_for_a_member() {
    let Some((scene, _nginx, secure)) = start(Duration::from_secs(30), "").await else { return };
    for spoken in SPOKEN {
        let at = match spoken {
            "https" | "verified" | "grpcs" => secure,
            _ => scene.lab.free(),
        };
        if at != secure {
            let listener = TcpListener::bind(at).await.unwrap();
            tokio::spawn(member(listener, spoken));
        }
        if spoken == "suwsgi" {
            // What is below TLS is the same as with https.
            continue;
        }
        let to = scene.nginx.address();
        let path = format!("/{spoken}");
        let calls = BODIES.map(|length| {
            let path = path.clone();
            tokio::spawn(async move { post(to, &path, vec![b'x'; length]).await })
        });
        are_held(&scene, calls.len()).await;
        scene.join_at(at, 1, 0.0);
        for (call, length) in calls.into_iter().zip(BODIES) {
            let answer = call.await.unwrap().unwrap();
            let got = (answer.status, answer.body.as_str());
            assert_eq!(got, (200, format!("got {length}\n").as_str()), "{spoken}");
        }
        let slot = scene.leave_at(at);
        scene.flying(slot, 0).await;
        // No connection is kept to a member that may leave.
        if spoken != "http" {
            are_held(&scene, 0).await;
        }
    }
    assert_no_warning(&scene);
}

/// Whatever a location may do with HTTP, it does after a wait as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_held_request_of_http_is_as_any_other() {
    let more = "error_page 400 /sorry; proxy_intercept_errors off; \
                location /sorry { return 200 \"sorry\\n\"; } \
                location /paged { proxy_pass http://app; proxy_intercept_errors on; } \
                location /http/raw { proxy_pass http://app; proxy_request_buffering off; } \
                location /tried { try_files /none @app; } location @app { proxy_pass http://app; } \
                location /socket { proxy_pass http://app; proxy_set_header Connection Upgrade; \
                                   proxy_set_header Upgrade $http_upgrade; }";
    let Some((scene, _nginx, _)) = start(Duration::from_secs(30), more).await else { return };
    let to = scene.nginx.address();
    let backend = Backend::start(&scene.lab, "app").await;
    for (path, status, expected) in [
        ("/http", 200, "app got 3000000\n"),
        ("/http/raw", 200, "app got 3000000\n"),
        ("/tried", 200, "app got 3000000\n"),
        ("/http", 400, "app got 3000000\n"),
        ("/paged", 400, "sorry\n"),
    ] {
        match status {
            200 => backend.behave(Behaviour::Healthy),
            _ => backend.behave(Behaviour::Status(status)),
        }
        let call = tokio::spawn(async move { post(to, path, vec![b'x'; 3_000_000]).await });
        are_held(&scene, 1).await;
        scene.join(&backend);
        assert_eq!(call.await.unwrap().unwrap().body, expected, "{path}");
        let slot = scene.leave(&backend);
        scene.flying(slot, 0).await;
        are_held(&scene, 0).await;
    }
    let request = "GET /socket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
    let mut client = balancer_counts::send(to, request).await;
    are_held(&scene, 1).await;
    let at = scene.lab.free();
    tokio::spawn(balancer_counts::echo(TcpListener::bind(at).await.unwrap()));
    scene.join_at(at, 1, 0.0);
    let mut answer = vec![0; 4096];
    let length = client.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 101"));
    client.write_all(b"hello").await.unwrap();
    client.read_exact(&mut answer[..5]).await.unwrap();
    assert_eq!(&answer[..5], b"hello");
}

/// nginx's own patience ends before that of `hold`.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_done_once_however_often_nginx_asks_while_it_is_held() {
    let more = "location /soon { proxy_pass https://app; proxy_connect_timeout 50ms; \
                    proxy_ssl_certificate KEYS/crt; proxy_ssl_certificate_key KEYS/key; } \
                location /php { fastcgi_pass app; fastcgi_read_timeout 50ms; }";
    let Some((scene, _nginx, secure)) = start(Duration::from_secs(30), more).await else { return };
    let (to, at) = (scene.nginx.address(), scene.lab.free());
    let timeouts = async |count: usize| {
        eventually("nginx has asked again", || async {
            let log = scene.nginx.error_log();
            let seen = log.iter().filter(|line| line.contains("upstream timed out")).count();
            check(seen >= count, || format!("{seen} times"))
        })
        .await;
    };
    let held = tokio::spawn(async move { post(to, "/soon", "0123456789").await });
    timeouts(2).await;
    scene.join_at(secure, 1, 0.0);
    assert_eq!(held.await.unwrap().unwrap().body, "got 10\n");
    scene.leave_at(secure);
    let held = tokio::spawn(async move { get(to, "/php").await });
    timeouts(4).await;
    let listener = TcpListener::bind(at).await.unwrap();
    tokio::spawn(member(listener, "fastcgi"));
    scene.join_at(at, 1, 0.0);
    assert_eq!(held.await.unwrap().unwrap().body, "got 0\n");
    are_held(&scene, 0).await;
    assert_eq!(scene.traffic(scene.slot_at(at)).requests, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_call_of_grpc_streams_both_ways() {
    let Some(scene) = Scene::prepare(&Conf::default()) else { return };
    let (front, at) = (scene.lab.free(), scene.lab.free());
    let http = format!("server {{ listen {front} http2; location / {{ grpc_pass grpc://app; }} }}");
    let hold = Duration::from_secs(30);
    let settings = BalancerSettings::with(Balancing { hold, ..Balancing::default() });
    scene.write_conf(&Conf { http: &http, settings, ..Conf::default() }).unwrap();
    let _nginx = scene.nginx.start().await;
    scene.state().await;
    let (send, body) = tokio::sync::mpsc::unbounded_channel::<&'static str>();
    let body = futures_util::stream::unfold(body, |mut body| async {
        let text = body.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(text.as_bytes()))), body))
    });
    let mut client = http2(front).await;
    let request = Request::post(format!("http://{front}/service/Call"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(Box::pin(body)))
        .unwrap();
    send.send("one").unwrap();
    let call = tokio::spawn(client.send_request(request));
    are_held(&scene, 1).await;
    tokio::spawn(echo(TcpListener::bind(at).await.unwrap()));
    scene.join_at(at, 1, 0.0);
    let mut answer = call.await.unwrap().unwrap().into_body();
    let mut next = async || answer.frame().await.unwrap().unwrap();
    assert_eq!(next().await.into_data().unwrap(), "one");
    send.send("two").unwrap();
    assert_eq!(next().await.into_data().unwrap(), "two");
    let slot = scene.leave_at(at);
    assert_eq!(scene.in_flight(slot), 1);
    drop(send);
    assert_eq!(next().await.into_trailers().unwrap()["grpc-status"], "0");
    // The connection is not kept, which would be in flight for ever.
    scene.flying(slot, 0).await;
}
