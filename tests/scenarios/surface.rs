//! What the daemons serve to machines: health, readiness, metrics, events; and that
//! the documentation, the dashboard and the alert rules name what exists.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tests::eventually::check;
use tests::process::{Spec, run};
use tests::skip::skip;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, bins, eventually, http};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PAGE: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../docs/grafana/fleet.json");
const ALERTS: &str = include_str!("../../docs/alerts.yml");

/// Words of a text that are a metric of ours, as they are written.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let prefixes = ["confsync_", "register_", "process_"];
    let ours = words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
    ours.map(str::to_owned).collect()
}

/// The names of the samples in what a daemon serves.
fn samples(served: &str) -> BTreeSet<String> {
    let lines = served.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    lines.map(name).collect()
}

/// The metric of a sample: a histogram's three are one.
fn metric(sample: &str) -> String {
    let parts = ["_bucket", "_sum", "_count"];
    parts.iter().find_map(|part| sample.strip_suffix(part)).unwrap_or(sample).to_owned()
}

/// Prometheus' own tool finds nothing to complain about in what is served and in the rules.
async fn promtool_reads(lab: &Lab, served: &str) {
    if !bins::on_path("promtool") {
        return skip(
            "promtool is not installed (Debian: prometheus): metrics and alert rules are not linted",
        );
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(lab.path().join("served"), served).unwrap();
    for line in [
        "promtool check metrics < served",
        "promtool check rules \"$0/../docs/alerts.yml\"",
        "promtool test rules \"$0/alerts.yml\"",
    ] {
        let path = std::env::var("PATH").unwrap_or_default();
        let spec = Spec::new("promtool", "sh", lab.path()).args(["-c", line]).args([docs]);
        let ended = run(spec.env("PATH", path), Duration::from_secs(30)).await;
        assert!(ended.exit.success(), "{line}: {}{}", ended.stdout(), ended.stderr());
    }
}

async fn is(status: u16, at: SocketAddr, path: &str, text: &str) {
    eventually(format!("{path} says {status} and `{text}`"), || async {
        let answer = http::get(at, path).await?;
        let good = answer.status == status && answer.body.contains(text);
        check(good, || format!("{} {}", answer.status, answer.body))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_is_spoken_of_is_served() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "one").await;
    let (ours, theirs) = (lab.free(), lab.free());
    let register = Daemon::register(&lab).backend("apache", backend.address());
    let register = register.etcd(&etcd, Api::V3).flag("--status", theirs.to_string()).start();
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::handlebars(&lab, &nginx);
    // A driver that knows what each backend has had.
    let lua = tests::nginx::load_lua();
    nginx.write_conf_with(lua.as_deref().unwrap_or_default(), "");
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", ours.to_string()).supervising(&nginx).start();
    register.ready().await;
    confsync.ready().await;
    eventually("the backend is in rotation", || async {
        let answer = nginx.get("/").await?;
        check(answer.status == 200, || answer.body)
    })
    .await;

    let answer = http::get(ours, "/metrics").await.unwrap();
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let of_register = http::get(theirs, "/metrics").await.unwrap().body;
    promtool_reads(&lab, &of_register).await;
    promtool_reads(&lab, &answer.body).await;
    let served = answer.body + &of_register;
    let samples = samples(&served);
    let metrics: BTreeSet<String> =
        samples.iter().map(|s| metric(s)).filter(|m| !m.is_empty()).collect();
    let mut documented = named(PAGE);
    if lua.is_none() {
        skip(
            "there is no libnginx-mod-http-lua here: metrics of single backends are not looked at",
        );
        documented.retain(|name| !name.starts_with("confsync_backend_"));
    }
    assert_eq!(documented, metrics, "docs/metrics.md and what is served");
    for (file, text) in [("the dashboard", DASHBOARD), ("the alerts", ALERTS)] {
        let unknown: Vec<_> = named(text).into_iter().filter(|n| !samples.contains(n)).collect();
        assert!(unknown.is_empty(), "{file} ask for {unknown:?}");
    }
    for line in [
        "confsync_backends{set=\"nginx\",resource=\"nginx\",service=\"apache\"} 1",
        "confsync_in_sync{set=\"nginx\"} 1",
        "confsync_backends_in_rotation{set=\"nginx\",resource=\"nginx\",service=\"apache\"} 1",
        "confsync_etcd_endpoint{api=\"v3\",endpoint=\"127.",
        "confsync_joined 1",
        "register_etcd_requests_total{api=\"v3\",endpoint=\"127.",
        "register_etcd_endpoint{api=\"v3\",endpoint=\"127.",
    ] {
        assert!(served.contains(line), "no `{line}` in\n{served}");
    }
}

/// Each alert leads to what to do; and it was tried when it fires, and when not.
#[test]
fn every_alert_has_a_section_of_what_to_do() {
    let days = include_str!("../alerts.yml");
    let page = include_str!("../../docs/troubleshooting.md");
    let rules: Vec<&str> = ALERTS.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10, "the rules were read");
    for rule in rules {
        let name = rule.lines().next().unwrap();
        assert!(page.contains(&format!("\n### {name}\n")), "troubleshooting.md lacks {name}");
        let link = format!("runbook_url: \"troubleshooting.md#{}\"", name.to_lowercase());
        assert!(rule.contains(&link), "{name}: {link}");
        for day in [" }\n", "\n        exp_alerts:\n"] {
            assert!(days.contains(&format!("alertname: {name}{day}")), "{name}: {day}");
        }
        assert!(rule.contains("severity: page") != rule.contains("severity: ticket"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_only_while_it_is_true() {
    let lab = Lab::new();
    let etcd = Etcd::prepare(&lab);
    let backend = Backend::start(&lab, "one").await;
    let (ours, theirs) = (lab.free(), lab.free());
    let register = Daemon::register(&lab).quick().backend("apache", backend.address());
    let register = register.etcd(&etcd, Api::V3).flag("--status", theirs.to_string()).start();
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", ours.to_string()).supervising(&nginx).start();
    for at in [ours, theirs] {
        is(503, at, "/readyz", "waiting for etcd").await;
        // Waiting is work: nothing is stuck.
        is(200, at, "/healthz", "ok").await;
    }
    etcd.up().await;
    is(200, theirs, "/readyz", "registered").await;
    is(200, ours, "/readyz", "1 backend in rotation").await;

    etcd.kill().await;
    is(503, ours, "/readyz", "in rotation at revision").await;
    // Registered as long as its lease may live, and then registering: which of both is a moment.
    is(503, theirs, "/readyz", "s: etcd is not reachable").await;
    etcd.up().await;
    is(200, ours, "/readyz", "in rotation").await;
    is(200, theirs, "/readyz", "registered").await;
    for at in [ours, theirs] {
        is(200, at, "/healthz", "ok").await;
        assert_eq!(http::post(at, "/status", "x").await.unwrap().status, 405);
        let status = http::get(at, "/status").await.unwrap().body;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["ready"], true, "{status}");
    }
    register.stop().await;
    confsync.stop().await;
}

/// Readers cost little, and their number is bounded: the next is asked to retry.
#[tokio::test(flavor = "multi_thread")]
async fn events_have_a_bound_and_places_are_given_back() {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let status = lab.free();
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--status", status.to_string()).supervising(&nginx).start();
    is(200, status, "/healthz", "ok").await;
    confsync.logged("following the keys in etcd").await;

    let mut streams = Vec::new();
    let refused = loop {
        let (line, stream) = look(status).await;
        if !line.contains(" 200 ") {
            break line;
        }
        streams.push(stream);
        assert!(streams.len() < 100, "no client is turned away");
    };
    assert!(refused.contains(" 503 "), "{refused}");
    // The others go on, and one that leaves makes room.
    is(200, status, "/healthz", "ok").await;
    let mut first = streams.swap_remove(0);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(first.read_line(&mut line).await.unwrap(), 0);
        // Until the load balancers were read for it.
        if line.contains("\"load_balancers\":null") {
            line.clear();
        }
    }
    let log = confsync.log();
    assert_eq!(log.matches("following the keys").count(), 1, "a reader is no news: {log}");
    let state: serde_json::Value = serde_json::from_str(line.trim_start_matches("data: ")).unwrap();
    assert_eq!(state["stuck"], serde_json::json!([]), "{state}");
    drop(first);
    eventually("a place", || async {
        let (line, _) = look(status).await;
        check(line.contains(" 200 "), || line)
    })
    .await;
}

async fn look(at: SocketAddr) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    (line, stream)
}
