//! The surface says what is known and no more: of an nginx that has ended, of a refusal
//! that is over, to clients of any kind.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tests::eventually::check;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, Signal, eventually, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn is(status: u16, at: SocketAddr, text: &str) {
    eventually(format!("/readyz says {status} and `{text}`"), || async {
        let answer = http::get(at, "/readyz").await?;
        let good = answer.status == status && answer.body.contains(text);
        check(good, || format!("{} {}", answer.status, answer.body))
    })
    .await;
}

/// Of the one set: whether it is in sync, and which of its backends are live.
async fn live(at: SocketAddr) -> (bool, Vec<bool>) {
    let status = http::get(at, "/status").await.unwrap().body;
    let status: Value = serde_json::from_str(&status).unwrap();
    let set = &status["sets"][0];
    let backends = set["backends"].as_array().unwrap().iter();
    let live = backends.map(|backend| backend["live"].as_bool().unwrap());
    (set["in_sync"].as_bool().unwrap(), live.collect())
}

/// Every name in the JSON of a surface is in the documentation.
async fn is_documented(at: SocketAddr) {
    fn names(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.keys().cloned());
                fields.values().for_each(|value| names(value, found));
            }
            Value::Array(all) => all.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let status = http::get(at, "/status").await.unwrap().body;
    let mut found = Vec::new();
    names(&serde_json::from_str(&status).unwrap(), &mut found);
    let page = include_str!("../../docs/operations.md");
    let missing: Vec<_> =
        found.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(found.len() > 5 && missing.is_empty(), "docs/operations.md lacks {missing:?}");
}

/// nginx runs by itself, known by its pid file.
#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_that_has_ended_is_noticed_and_so_is_its_return() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let address = backend.address().to_string();
    etcd.ctl(Api::V3).put("/services/apache/one", &address).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let running = nginx.start().await;
    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", status.to_string()).start();
    confsync.ready().await;
    is(200, status, "1 backend in rotation").await;
    assert_eq!(live(status).await, (true, vec![true]));

    is_documented(status).await;
    nginx.signal(Signal::TERM);
    running.ended(Duration::from_secs(20)).await.unwrap();
    is(503, status, "the proxy is not running").await;
    assert_eq!(live(status).await, (false, vec![false]));

    let _running = nginx.start().await;
    is(200, status, "1 backend in rotation").await;
    assert_eq!(live(status).await, (true, vec![true]));
}

/// In rotation are the backends in the file, whatever keys there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_the_template_leaves_out_is_not_counted_in_rotation() {
    let lab = Lab::new();
    let (etcd, ctl) = (Etcd::start(&lab).await, "/services/apache");
    let (one, two) = (Backend::start(&lab, "one").await, Backend::start(&lab, "two").await);
    let put = async |name: &str, backend: &Backend, zone: &str| {
        let value = format!(r#"{{"addr":"{}","zone":"{zone}"}}"#, backend.address());
        etcd.ctl(Api::V3).put(&format!("{ctl}/{name}"), &value).await;
    };
    put("one", &one, "a").await;
    put("two", &two, "b").await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    confdir.edit("conf.d/nginx.toml", |toml| {
        let toml = toml.replace("nginx.tmpl", "zone.hbs");
        // Two changes are one.
        toml.replace("[template]", "[template]\ndebounce = \"2s\"")
    });
    let site = |listen: SocketAddr| {
        format!(
            "upstream apache {{\n{{{{#each backends}}}}{{{{#if (eq zone \"a\")}}}}server {{{{addr}}}};\n\
             {{{{/if}}}}{{{{/each}}}}}}\nserver {{ listen {listen}; location / {{ proxy_pass \
             http://apache; }} }}\n"
        )
    };
    confdir.template("zone.hbs", &site(nginx.address()));
    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", status.to_string()).supervising(&nginx).start();
    confsync.ready().await;
    is(200, status, "1 backend in rotation and 1 not used").await;
    assert_eq!(live(status).await, (true, vec![true, false]));
    let served = http::get(status, "/metrics").await.unwrap().body;
    for (name, count) in [("backends", 2), ("backends_in_rotation", 1)] {
        let line = format!(
            "confsync_{name}{{set=\"nginx\",resource=\"nginx\",service=\"apache\"}} {count}\n"
        );
        assert!(served.contains(&line), "{line}{served}");
    }

    // It is written from now on: one reload, and both count.
    put("two", &two, "a").await;
    is(200, status, "2 backends in rotation at").await;
    // The same address by another name makes the same file, which nobody loads.
    put("three", &two, "a").await;
    etcd.ctl(Api::V3).del(&format!("{ctl}/two")).await;
    eventually("the other name is known, and in rotation", || async {
        let status = http::get(status, "/status").await?.body;
        let set = serde_json::from_str::<Value>(&status).unwrap()["sets"][0].clone();
        let backends = set["backends"].to_string();
        let is_renamed = backends.contains("/three") && !backends.contains("/two");
        check(is_renamed && set["loads_total"] == 2, || status)
    })
    .await;
    assert_eq!(live(status).await, (true, vec![true, true]));
    // Nor is it silent: by the log it can be told later who was there when.
    for change in ["added=\"", "removed=\""] {
        let name = if change.starts_with('a') { "three" } else { "two" };
        let line = format!("{change}{} (/services/apache/{name}", two.address());
        assert!(confsync.log().contains(&line), "no {line} in {}", confsync.log());
    }
}

/// A template that writes other addresses than etcd has: which backends it uses is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn backends_whose_addresses_are_mapped_count_by_their_keys() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    // What etcd has is an address of another network.
    etcd.ctl(Api::V3).put("/services/apache/one", "192.0.2.1:80").await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    confdir.edit("templates/nginx.tmpl", |text| {
        text.replace("server {{ . }};", &format!("server {};", backend.address()))
    });
    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", status.to_string()).supervising(&nginx).start();
    confsync.ready().await;
    is(200, status, "1 backend in rotation (by their keys) at").await;
    assert_eq!(live(status).await, (true, vec![true]));
    let served = http::get(status, "/metrics").await.unwrap().body;
    let counted = "confsync_counted_by_keys{set=\"nginx\",resource=\"nginx\"} 1\n";
    assert!(served.contains(counted), "{served}");
    is_documented(status).await;
}

/// A value makes nginx refuse the file, and goes away again: what is wanted is what is
/// live all along, so no load comes that could end the trouble.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_over_when_its_cause_is() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let ctl = etcd.ctl(Api::V3);
    let backend = Backend::start(&lab, "one").await;
    ctl.put("/services/apache/one", &backend.address().to_string()).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    confdir.edit("conf.d/nginx.toml", |toml| {
        toml.replace("\"/services/apache\"", "\"/services/apache\", \"/extra\"")
    });
    confdir.edit("templates/nginx.tmpl", |text| {
        text + "{{ if exists \"/extra/line\" }}{{ getv \"/extra/line\" }}{{ end }}\n"
    });
    let status = lab.free();
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", status.to_string()).supervising(&nginx).start();
    confsync.ready().await;
    is(200, status, "1 backend in rotation").await;

    ctl.put("/extra/line", "no_such_directive;").await;
    is(200, status, "rejected: ").await;
    assert_eq!(live(status).await, (false, vec![true]), "what was live goes on");
    ctl.del("/extra/line").await;
    is(200, status, "1 backend in rotation").await;
    assert_eq!(live(status).await, (true, vec![true]));

    // The same of a template: who reads it again still knows what nginx runs by.
    confdir.edit("templates/nginx.tmpl", |text| text.replace("proxy_pass ", "proxy_pas "));
    confsync.signal(Signal::HUP);
    is(200, status, "proxy_pas").await;
    assert_eq!(live(status).await, (false, vec![true]));
    // Nor does the SIGHUP make the counters begin anew.
    let metrics = http::get(status, "/metrics").await.unwrap().body;
    assert!(metrics.contains("confsync_refusals_total{set=\"nginx\"} 2\n"), "{metrics}");
}

async fn answers(at: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    // Who is refused half-way sees the connection close under its hands.
    let _ = stream.write_all(request).await;
    let mut answer = [0; 200];
    let read = stream.read(&mut answer).await.unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_keeps_the_others_from_an_answer() {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab);
    let at = lab.free();
    let register = Daemon::register(&lab).backend("apache", lab.free()).etcd(&etcd, Api::V3);
    let _register = register.flag("--status", at.to_string()).start();
    eventually("it listens", || http::get(at, "/healthz")).await;

    is_documented(at).await;
    let huge = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(2_000_000));
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    for (request, answer) in [
        ("HEAD /readyz HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 503"),
        ("HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 200"),
        ("GET /no HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 404"),
        ("DELETE / HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1.1 405"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
        (&long, "HTTP/1.1 414"),
    ] {
        let message = answers(at, request.as_bytes()).await;
        assert!(message.starts_with(answer), "{}: {message}", &request[..20.min(request.len())]);
    }
    let message = answers(at, huge.as_bytes()).await;
    assert!(message.is_empty() || message.starts_with("HTTP/1.1 431"), "{message}");
    // More than it has places for, and none of them ever asks anything.
    let mut idle = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(b"GET /healthz HT").await.unwrap();
        idle.push(stream);
    }
    eventually("an answer all the same", || http::get(at, "/healthz")).await;
}
