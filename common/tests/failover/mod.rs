//! Members that die, hang, or lose the others; and servers of every kind, as `auto`
//! finds them.

mod old_server;

use std::time::Duration;

use common::model::{Key, Tree, Ttl};
use common::store::{
    Api, Connection, Etcd, Guard, KeyState, PutOutcome, RefreshOutcome, Store, StoreError,
    Timeouts, Watch, WatchEvent, connect, default_deadline as soon,
};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use self::old_server::OldServer;
use crate::etcd_server::EtcdServer;
use crate::to;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn tree(text: &str) -> Tree {
    text.parse().unwrap()
}

async fn refusal(connection: Connection) -> StoreError {
    connect(&connection).await.map(|_| ()).unwrap_err()
}

async fn dead_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

async fn renews_while_any_member_hangs(api: Api) {
    let members = EtcdServer::three().await;
    let endpoints = members.iter().map(EtcdServer::url).collect();
    // The request timeout is far away: the caller's deadline is what ends a request.
    let timeouts = Timeouts { request: Duration::from_secs(60), ..Timeouts::default() };
    let connection = Connection { endpoints, timeouts, ..to(String::new(), api) };
    let store = connect(&connection).await.unwrap();
    let attempt = Duration::from_millis(700);
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let written = loop {
        // A young cluster may still be electing.
        match store.put(&key("/web/a"), b"x", lease, &Guard::Absent, soon()).await {
            Ok(written) => break written,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    let PutOutcome::Written(mut mark) = written else { panic!("{written:?}") };
    for member in &members {
        member.hang();
        let started = Instant::now();
        let renewed = loop {
            // Three tries, and an election where the leader was the one.
            assert!(started.elapsed() < Duration::from_secs(10), "nobody else is asked");
            let keys = [(key("/web/a"), mark)];
            match store.refresh(lease, &keys, Instant::now() + attempt).await {
                Ok(RefreshOutcome::Refreshed { keys, .. }) => break keys,
                Ok(RefreshOutcome::LeaseLost) => panic!("the lease is gone"),
                Err(_) => {}
            }
        };
        member.resume();
        mark = match &renewed[..] {
            [KeyState::Ours(mark)] => *mark,
            // v2: an attempt that was given up has succeeded nevertheless.
            [KeyState::Foreign(entry)] if api == Api::V2 => {
                common::store::Ownership { lease: 0, modified: entry.modified }
            }
            other => panic!("{other:?}"),
        };
    }
}

#[tokio::test]
async fn v3_renews_while_any_member_hangs() {
    renews_while_any_member_hangs(Api::V3).await;
}

#[tokio::test]
async fn v2_renews_while_any_member_hangs() {
    renews_while_any_member_hangs(Api::V2).await;
}

/// Whatever happens to the server, a watch does not stay silent.
async fn ends<W: Watch>(mut watch: W) -> StoreError {
    let end = async {
        loop {
            match watch.next().await {
                Err(error) => return error,
                Ok(WatchEvent::Progress(_)) => {}
                Ok(event) => panic!("{event:?}"),
            }
        }
    };
    timeout(Duration::from_secs(30), end).await.expect("the watch is deaf")
}

#[tokio::test]
async fn a_watch_notices_that_its_server_hangs() {
    let server = EtcdServer::start().await;
    let mut watches = Vec::new();
    for api in [Api::V3, Api::V2] {
        let store = connect(&to(server.url(), api)).await.unwrap();
        let start = store.read(&[tree("/web")], soon()).await.unwrap().revision;
        watches.push(store.watch(&[tree("/web")], start, soon()).await.unwrap());
    }
    server.hang();
    let (v2, v3) = (watches.remove(1), watches.remove(0));
    let (v3, v2) = tokio::join!(ends(v3), ends(v2));
    assert!(matches!(v3, StoreError::Unreachable(_)), "{v3}");
    assert!(matches!(v2, StoreError::Unreachable(_)), "{v2}");
}

#[tokio::test]
async fn a_watch_notices_that_its_member_is_alone() {
    let mut members = EtcdServer::three().await;
    let mut watches = Vec::new();
    for api in [Api::V3, Api::V2] {
        let store = connect(&to(members[0].url(), api)).await.unwrap();
        let watch = loop {
            // A young cluster may still be electing.
            let started = async {
                let start = store.read(&[tree("/web")], soon()).await?.revision;
                store.watch(&[tree("/web")], start, soon()).await
            };
            match started.await {
                Ok(watch) => break watch,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        };
        watches.push(watch);
    }
    members[1].kill();
    members[2].kill();
    let (v2, v3) = (watches.remove(1), watches.remove(0));
    let (v3, v2) = tokio::join!(ends(v3), ends(v2));
    assert!(v3.is_transient() && v2.is_transient(), "{v3}, {v2}");
}

#[tokio::test]
async fn an_idle_watch_stays_open_and_delivers() {
    let server = EtcdServer::start().await;
    let quiet = async |api| {
        let store = connect(&to(server.url(), api)).await.unwrap();
        let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
        store.put(&key("/web/a"), b"x", lease, &Guard::Absent, soon()).await.unwrap();
        // A tree that is one key is no folder, which v2 makes a difference of.
        let start = store.read(&[tree("/web/a")], soon()).await.unwrap().revision;
        let mut watch = store.watch(&[tree("/web/a")], start, soon()).await.unwrap();
        // Longer than the silence after which the server is asked.
        let silence = timeout(Duration::from_secs(12), watch.next()).await;
        assert!(silence.is_err(), "{silence:?}");
        let same = Guard::Value(b"x".to_vec());
        store.put(&key("/web/a"), b"y", lease, &same, soon()).await.unwrap();
        let heard = timeout(Duration::from_secs(5), watch.next()).await;
        assert!(matches!(heard, Ok(Ok(WatchEvent::Changes(_)))), "{heard:?}");
    };
    tokio::join!(quiet(Api::V3), quiet(Api::V2));
}

#[tokio::test]
async fn auto_prefers_v3_and_passes_over_dead_endpoints() {
    let server = EtcdServer::start().await;
    let endpoints = vec![dead_port().await, server.url(), dead_port().await];
    for _ in 0..5 {
        let connection =
            Connection { endpoints: endpoints.clone(), ..to(String::new(), Api::Auto) };
        let store = connect(&connection).await.unwrap();
        assert!(matches!(store, Etcd::V3(_)));
        store.read(&[tree("/")], soon()).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_there_is_no_answer_for_now() {
    for api in [Api::Auto, Api::V3, Api::V2] {
        let url = dead_port().await;
        let error = refusal(to(url.clone(), api)).await;
        assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(url.trim_start_matches("http://")), "{text}");
        assert!(text.contains("refused"), "{text}");
    }
    let none = Connection { endpoints: Vec::new(), ..to(String::new(), Api::Auto) };
    assert!(matches!(refusal(none).await, StoreError::Setup(_)));
}

#[tokio::test]
async fn v2_that_is_switched_off_is_named() {
    let server = EtcdServer::with(&[]).await;
    let error = refusal(to(server.url(), Api::V2)).await;
    assert!(matches!(error, StoreError::Unsupported(_)), "{error}");
    assert!(error.to_string().contains("--enable-v2"), "{error}");
}

#[tokio::test]
async fn auto_takes_v2_only_from_a_server_that_has_nothing_else() {
    for version in [r#"{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}"#, "etcd 0.4.6"] {
        let old = OldServer::start(version).await;
        let store = connect(&to(old.url(), Api::Auto)).await.unwrap();
        assert!(matches!(store, Etcd::V2(_)), "{version}");
    }
    // A new server behind a proxy that knows no HTTP/2, or one that just starts.
    let new = OldServer::start(r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#).await;
    let error = refusal(to(new.url(), Api::Auto)).await;
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("not gRPC"), "{error}");
    // Whatever it is asked for, it answers with 200.
    let web = OldServer::web("<html>Welcome to nginx!</html>").await;
    for api in [Api::V3, Api::Auto, Api::V2] {
        assert!(refusal(to(web.url(), api)).await.is_transient());
    }
}

/// A server that has nothing of what is asked for.
async fn web_server() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer =
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            // Who hangs up early has seen enough.
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(answer).await;
        }
    });
    url
}

#[tokio::test]
async fn a_server_that_is_not_etcd_is_not_taken_for_one_without_v2() {
    let error = refusal(to(web_server().await, Api::Auto)).await;
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("not etcd; is the port right?"), "{error}");
}
