//! Following several trees of a real etcd.

use common::model::{Key, Revision, Tree, Ttl};
use common::store::{Api, Guard, Ownership, Store, connect, default_deadline as soon};
use common::watch::{Options, follow};
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::etcd_server::EtcdServer;
use crate::to;

/// More than a hundred bytes each, were all of them sent for each event.
const KEYS: u64 = 2000;
const ROUNDS: u64 = 20;

#[tokio::test]
async fn several_trees_are_followed_by_what_has_changed() {
    let server = EtcdServer::start().await;
    let store = connect(&to(server.url(), Api::V3)).await.unwrap();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let key = |name: String| name.parse::<Key>().unwrap();
    let put = |name: String| {
        let store = store.clone();
        async move { store.put(&key(name), b"10.0.0.1:80", lease, &Guard::Absent, soon()).await }
    };
    let written = stream::iter(0..KEYS).map(|n| put(format!("/a/{n}"))).buffer_unordered(32);
    assert!(written.all(|put| async move { put.is_ok() }).await);

    let trees: Vec<Tree> = vec!["/a".parse().unwrap(), "/b".parse().unwrap()];
    let end = CancellationToken::new();
    let mut view = follow(store.clone(), trees.clone(), Options::default(), end.clone());
    let count = async |view: &mut tokio::sync::watch::Receiver<common::watch::View>,
                       wanted: u64| {
        let there = |view: &common::watch::View| {
            view.snapshot.as_ref().is_some_and(|s| s.entries.len() as u64 == wanted)
        };
        view.wait_for(there).await.unwrap();
    };
    count(&mut view, KEYS).await;
    let before = server.metric("etcd_network_client_grpc_sent_bytes_total").await;
    let ours = Guard::Ours(Ownership { lease: lease.id, modified: Revision(0) });
    for round in 0..ROUNDS {
        put(format!("/b/{round}")).await.unwrap();
        count(&mut view, KEYS + 1).await;
        store.delete(&key(format!("/a/{round}")), &ours, soon()).await.unwrap();
        count(&mut view, KEYS).await;
    }
    let sent = server.metric("etcd_network_client_grpc_sent_bytes_total").await - before;
    assert!(sent < 2.0 * 60.0 * KEYS as f64, "{sent} bytes for {ROUNDS} rounds");
    let all = store.read(&trees, soon()).await.unwrap();
    assert_eq!(view.borrow().snapshot.as_ref().unwrap().entries, all.entries);
    end.cancel();
}
