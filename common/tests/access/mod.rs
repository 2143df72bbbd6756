//! Users, passwords, tokens and certificates, against a real etcd.

mod certificates;
mod renewal;

use std::path::PathBuf;
use std::time::Duration;

use common::model::{Key, Revision, Tree, Ttl};
use common::store::{
    Api, Connection, Credentials, Guard, Password, PutOutcome, Store, StoreError, Watch,
    WatchEvent, connect, default_deadline as soon,
};
use common::tls::TlsFiles;
use tokio::time::timeout;

use self::certificates::Certificates;
use crate::etcd_server::EtcdServer;
use crate::to;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn tree(text: &str) -> Tree {
    text.parse().unwrap()
}

fn as_user(server: &EtcdServer, api: Api, user: &str, password: &str) -> Connection {
    let credentials = Credentials { user: user.into(), password: Password::Given(password.into()) };
    Connection { credentials: Some(credentials), ..to(server.url(), api) }
}

fn denied<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Denied(text)) => text,
        other => panic!("not denied: {other:?}"),
    }
}

/// An etcd where `web` may use `/web` and nothing else.
async fn with_users(api: &str) -> EtcdServer {
    // The least that bcrypt takes: a test machine has better things to do.
    let server =
        EtcdServer::with(&["--enable-v2", "--bcrypt-cost", "4", "--auth-token-ttl", "1"]).await;
    let run = |line: &str| server.ctl(api, &line.split(' ').collect::<Vec<_>>());
    if api == "3" {
        run("user add root:root");
        run("user grant-role root root");
        run("role add web");
        run("role grant-permission web readwrite /web /web0");
        run("user add web:s3cret");
        run("user grant-role web web");
        run("auth enable");
    } else {
        run("user add root:root");
        run("role add web");
        run("role grant web --path /web* --readwrite");
        run("user add web:s3cret");
        run("user grant web --roles web");
        run("auth enable");
        run("--username root:root role revoke guest --path /* --readwrite");
    }
    server
}

async fn write<S: Store>(store: &S, name: &str) -> Result<Revision, StoreError> {
    let lease = store.grant(Ttl::DEFAULT, soon()).await?;
    match store.put(&key(name), b"x", lease, &Guard::Absent, soon()).await? {
        PutOutcome::Written(ours) => Ok(ours.modified),
        other => panic!("{other:?}"),
    }
}

async fn sees<W: Watch>(watch: &mut W, at: Revision) {
    let seen = async {
        loop {
            if let WatchEvent::Changes(changes) = watch.next().await.unwrap() {
                return changes[0].revision();
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(10), seen).await.expect("the watch is deaf"), at);
}

async fn users(api: Api) {
    let mut server = with_users(if api == Api::V3 { "3" } else { "2" }).await;

    let nobody = connect(&to(server.url(), api)).await.unwrap();
    let text = denied(nobody.read(&[tree("/web")], soon()).await);
    assert!(text.contains("user"), "{text}");
    let wrong = match connect(&as_user(&server, api, "web", "wrong")).await {
        Ok(store) => store.read(&[tree("/web")], soon()).await.map(|_| ()),
        Err(error) => Err(error),
    };
    let text = denied(wrong);
    assert!(!text.contains("wrong"), "a password in a message: {text}");

    let store = connect(&as_user(&server, api, "web", "s3cret")).await.unwrap();
    let start = store.read(&[tree("/web")], soon()).await.unwrap().revision;
    let mut watch = store.watch(&[tree("/web")], start, soon()).await.unwrap();
    let at = write(&store, "/web/a").await.unwrap();
    sees(&mut watch, at).await;
    denied(store.read(&[tree("/other")], soon()).await);
    denied(write(&store, "/other/a").await);
    for trees in [vec![tree("/other")], vec![tree("/web"), tree("/other")]] {
        let refused = match store.watch(&trees, start, soon()).await {
            Ok(mut watch) => watch.next().await.map(|_| ()),
            Err(error) => Err(error),
        };
        let text = denied(refused);
        assert!(api == Api::V2 || text.contains("[/other, /other0)"), "{text}");
    }

    // A token ends while nobody uses it; the watch that it opened does not. The
    // first call after that is a watch, where an old token is no error but a
    // cancelled watch.
    let silence = timeout(Duration::from_secs(3), watch.next()).await;
    assert!(silence.is_err(), "{silence:?}");
    let mut late = store.watch(&[tree("/web")], at, soon()).await.unwrap();
    let at = write(&store, "/web/b").await.unwrap();
    sees(&mut watch, at).await;
    sees(&mut late, at).await;

    // No server keeps its tokens over a restart.
    server.kill();
    server.revive().await;
    let at = loop {
        match write(&store, "/web/c").await {
            Ok(at) => break at,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    let mut watch = store.watch(&[tree("/web")], Revision(at.0 - 1), soon()).await.unwrap();
    sees(&mut watch, at).await;
}

#[tokio::test]
async fn v3_users_are_let_in_and_kept_out() {
    users(Api::V3).await;
}

#[tokio::test]
async fn v2_users_are_let_in_and_kept_out() {
    users(Api::V2).await;
}

#[tokio::test]
async fn a_user_is_accepted_where_etcd_requires_none() {
    let server = EtcdServer::start().await;
    for api in [Api::V3, Api::V2] {
        let store = connect(&as_user(&server, api, "web", "s3cret")).await.unwrap();
        write(&store, &format!("/web/{api:?}")).await.unwrap();
    }
}

#[tokio::test]
async fn only_a_client_certificate_gives_access() {
    let files = Certificates::new();
    let flags = files.server_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = EtcdServer::with(&flags).await;
    for api in [Api::V3, Api::V2] {
        let with = |tls: TlsFiles| Connection { tls, ..to(server.url(), api) };
        let store = connect(&with(files.client())).await.unwrap();
        let at = write(&store, &format!("/web/{api:?}")).await.unwrap();
        let before = Revision(at.0 - 1);
        sees(&mut store.watch(&[tree("/web")], before, soon()).await.unwrap(), at).await;

        let silent = |tls: TlsFiles| {
            let connection = with(tls);
            async move { connect(&connection).await.map(|_| ()).unwrap_err() }
        };
        let anonymous = silent(TlsFiles { cert: None, key: None, ..files.client() }).await;
        assert!(matches!(anonymous, StoreError::Unreachable(_)), "{anonymous}");
        let stranger = silent(TlsFiles { ca: Some(files.other_ca()), ..files.client() }).await;
        let text = stranger.to_string().to_lowercase();
        assert!(text.contains("certificate"), "{text}");
    }
}

/// As `openssl req -x509` makes it: a CA's, and the server's own.
#[tokio::test]
async fn one_self_signed_certificate_for_everything_is_enough() {
    let files = Certificates::new();
    let flags = files.alone_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = EtcdServer::with(&flags).await;
    for api in [Api::V3, Api::V2] {
        let with = |ca: PathBuf| {
            let tls = TlsFiles { ca: Some(ca), ..TlsFiles::default() };
            Connection { tls, ..to(server.url(), api) }
        };
        let store = connect(&with(files.alone())).await.unwrap();
        write(&store, &format!("/web/{api:?}")).await.unwrap();
        let error = connect(&with(files.other_ca())).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn unusable_files_are_named() {
    let files = Certificates::new();
    let base = || Connection { ..to("https://127.0.0.1:1".into(), Api::V3) };
    for (tls, part) in [
        (TlsFiles { ca: Some("/nowhere/ca.pem".into()), ..TlsFiles::default() }, "/nowhere/ca.pem"),
        (TlsFiles { ca: files.client().key, ..TlsFiles::default() }, "no PEM certificate"),
        (TlsFiles { key: None, ..files.client() }, "needs its key"),
        (TlsFiles { key: files.client().cert, ..files.client() }, "its PEM key"),
    ] {
        let error = connect(&Connection { tls, ..base() }).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Setup(_)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let absent = Password::File("/nowhere/password".into());
    let credentials = Some(Credentials { user: "web".into(), password: absent });
    let error = connect(&Connection { credentials, ..base() }).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/password"), "{error}");
}
