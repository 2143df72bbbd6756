//! Certificates, passwords and authentication that change while a connection is in use: it is
//! healed without a restart.

use std::time::Duration;

use common::store::{Api, Connection, Credentials, Etcd, Password, StoreError, connect};
use tokio::time::timeout;

use super::certificates::Certificates;
use super::{denied, with_users, write};
use crate::etcd_server::EtcdServer;
use crate::to;

/// Writes a new key, in as many attempts as it takes; a daemon does the same.
async fn writes(store: &Etcd, name: &str) {
    let attempts = async {
        let mut last = None;
        for attempt in 0_u32.. {
            match write(store, &format!("{name}-{attempt}")).await {
                Ok(_) => return,
                Err(error) if last.as_ref() == Some(&error) => tokio::task::yield_now().await,
                Err(error) => {
                    eprintln!("{name}: {error}");
                    last = Some(error);
                }
            }
        }
    };
    timeout(Duration::from_secs(20), attempts).await.expect("it is not healed");
}

#[tokio::test]
async fn new_certificates_are_read_at_the_next_connection() {
    let files = Certificates::new();
    let flags = files.server_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut server = EtcdServer::with(&flags).await;
    let mut stores = Vec::new();
    for api in [Api::V3, Api::V2] {
        let connection = Connection { tls: files.client(), ..to(server.url(), api) };
        stores.push(connect(&connection).await.unwrap());
    }
    for (step, change) in [
        ("/web/first", (|_| {}) as fn(&Certificates)),
        // Half written: the last good pair stays in use.
        ("/web/torn", |files| files.write("client.pem", "-----BEGIN CERTIFICATE-----")),
        ("/web/renewed", Certificates::renew),
    ] {
        server.kill();
        change(&files);
        server.revive().await;
        for store in &stores {
            writes(store, &format!("{step}-{}", store.api())).await;
        }
    }
}

#[tokio::test]
async fn authentication_may_be_switched_off_and_on_and_the_password_changed() {
    let server = with_users("3").await;
    let root = |line: &str| {
        let words: Vec<&str> = ["--user", "root:root"].into_iter().chain(line.split(' ')).collect();
        server.ctl("3", &words)
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let credentials = Credentials { user: "web".into(), password: Password::File(file.clone()) };
    let connection = Connection { credentials: Some(credentials), ..to(server.url(), Api::V3) };
    let store = connect(&connection).await.unwrap();
    writes(&store, "/web/on").await;
    root("auth disable");
    writes(&store, "/web/off").await;
    server.ctl("3", &["auth", "enable"]);
    writes(&store, "/web/on-again").await;

    root("user delete web");
    let refused = write(&store, "/web/deleted").await;
    assert!(matches!(refused, Err(StoreError::Denied(_))), "{refused:?}");
    root("user add web:other");
    root("user grant-role web web");
    denied(write(&store, "/web/old-password").await);
    std::fs::write(&file, "other\n").unwrap();
    writes(&store, "/web/new-password").await;
    // As a new process would.
    writes(&connect(&connection).await.unwrap(), "/web/again").await;
}
