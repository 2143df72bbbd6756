//! Following several trees of a real etcd.

use std::time::Duration;

use common::model::{Key, Revision, Tree, Ttl};
use common::store::{Api, Guard, Ownership, Store, connect, default_deadline as soon};
use common::watch::{Options, follow};
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::etcd_server::EtcdServer;
use crate::to;

/// More than a hundred bytes each, were all of them sent for each event.
const KEYS: u64 = 2000;
const ROUNDS: u64 = 20;
/// How often the rounds are repeated on a machine that is too busy.
const ATTEMPTS: u64 = 10;
/// After this, an answer that is missing is replaced by a read.
const UNANSWERED: Duration = Duration::from_secs(2);

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
    put("/b/first".to_owned()).await.unwrap();
    count(&mut view, KEYS + 1).await;
    let sent = async || server.metric("etcd_network_client_grpc_sent_bytes_total").await;
    let ranges = async || server.metric("etcd_debugging_mvcc_range_total").await;
    let ours = Guard::Ours(Ownership { lease: lease.id, modified: Revision(0) });
    let (mut followed, mut rounds, mut is_answered) = (None, 0..ATTEMPTS * ROUNDS, false);
    while followed.is_none() {
        let (bytes, start, mut slowest) = (sent().await, ranges().await, Duration::ZERO);
        for round in (0..ROUNDS).filter_map(|_| rounds.next()).collect::<Vec<_>>() {
            let begun = Instant::now();
            put(format!("/b/{round}")).await.unwrap();
            count(&mut view, KEYS + 2).await;
            store.delete(&key(format!("/a/{round}")), &ours, soon()).await.unwrap();
            count(&mut view, KEYS + 1).await;
            slowest = slowest.max(begun.elapsed());
        }
        // An answer that is waited for too long is replaced by a read: so it must be on a machine
        // that is too busy, and until the next answer, as at the start.
        let is_fast = slowest < UNANSWERED;
        if is_answered && is_fast || rounds.is_empty() {
            followed = Some((sent().await - bytes, ranges().await - start));
        }
        is_answered = is_fast;
    }
    let (bytes, followed) = followed.unwrap();
    assert!(bytes < 2.0 * 60.0 * KEYS as f64, "{bytes} bytes for {ROUNDS} rounds");
    let all = store.read(&trees, soon()).await.unwrap();
    assert_eq!(view.borrow().snapshot.as_ref().unwrap().entries, all.entries);
    end.cancel();

    // The guards of the same writes are ranges too.
    let start = ranges().await;
    let first = ATTEMPTS * ROUNDS;
    for round in first..first + ROUNDS {
        put(format!("/b/{round}")).await.unwrap();
        store.delete(&key(format!("/a/{round}")), &ours, soon()).await.unwrap();
    }
    assert_eq!(followed, ranges().await - start, "keys were read");
}

/// A resync compares what was written since the last read, and counts the rest.
#[tokio::test]
async fn a_resync_reads_no_more_than_what_has_changed() {
    const RESYNCS: f64 = 5.0;
    let server = EtcdServer::start().await;
    let store = connect(&to(server.url(), Api::V3)).await.unwrap();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let put = async |name: String| {
        let key: Key = name.parse().unwrap();
        store.put(&key, b"10.0.0.1:80", lease, &Guard::Absent, soon()).await.unwrap();
    };
    for n in 0..KEYS / 4 {
        put(format!("/a/{n}")).await;
    }
    let end = CancellationToken::new();
    let options = Options { resync: Duration::from_millis(50), ..Options::default() };
    let mut view = follow(store.clone(), vec!["/a".parse().unwrap()], options, end.clone());
    view.wait_for(|view| view.snapshot.is_some()).await.unwrap();
    put("/a/new".to_owned()).await;
    let gone = Guard::Ours(Ownership { lease: lease.id, modified: Revision(0) });
    store.delete(&"/a/1".parse().unwrap(), &gone, soon()).await.unwrap();
    let has_both = |view: &common::watch::View| {
        let entries = view.snapshot.as_ref().map(|snapshot| &snapshot.entries);
        entries.is_some_and(|now| now.contains_key("/a/new") && !now.contains_key("/a/1"))
    };
    view.wait_for(has_both).await.unwrap();
    let sent = async || server.metric("etcd_network_client_grpc_sent_bytes_total").await;
    let ranges = async || server.metric("etcd_debugging_mvcc_range_total").await;
    let (bytes, first) = (sent().await, ranges().await);
    let resyncs = async {
        while ranges().await < first + 2.0 * RESYNCS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), resyncs).await.expect("there is no resync");
    let most = 20.0 * KEYS as f64 / 4.0;
    let bytes = sent().await - bytes;
    assert!(bytes < most, "{bytes} bytes for about {RESYNCS} resyncs");
    end.cancel();
}
