//! What is read is what was written: trees, many keys, large and odd ones.

use std::collections::BTreeMap;

use common::model::{Change, Ttl};
use common::store::{Guard, PutOutcome, Store, default_deadline as soon};
use futures_util::{StreamExt, stream};

use super::{Bench, create, event, key, not_deleted, plain, put, tree, ttl};

pub(crate) async fn a_tree_ends_at_a_slash<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let start = store.read(&[tree("/web")], soon()).await.unwrap().revision;
    let mut watch = store.watch(&[tree("/web/x")], start, soon()).await.unwrap();
    for name in ["/web-2/x/1", "/web/x-2/1", "/web2/x", "/web0", "/web/y/1", "/web/x/1"] {
        create(store, name, name, lease).await;
    }
    let read = store.read(&[tree("/web")], soon()).await.unwrap();
    assert_eq!(
        plain(&read).into_keys().collect::<Vec<_>>(),
        ["/web/x-2/1", "/web/x/1", "/web/y/1"]
    );
    let changes = event(&mut watch).await.unwrap();
    assert!(
        matches!(&changes[..], [Change::Put(entry)] if *entry.key == *"/web/x/1"),
        "{changes:?}"
    );
    // A tree may be one key, several trees may overlap, and `/` is everything.
    let one = store.read(&[tree("/web/x/1"), tree("/web2"), tree("/none")], soon()).await.unwrap();
    assert_eq!(plain(&one).into_keys().collect::<Vec<_>>(), ["/web/x/1", "/web2/x"]);
    let overlap = store.read(&[tree("/web"), tree("/web/x"), tree("/")], soon()).await.unwrap();
    assert_eq!(overlap.entries.len(), 6);
}

pub(crate) async fn ten_thousand_keys_are_read_whole<B: Bench>(bench: &mut B) {
    const KEYS: usize = 10_000;
    let store = bench.store();
    let lease = store.grant(ttl(600), soon()).await.unwrap();
    let write = |n: usize| async move {
        create(store, &format!("/web/{n:05}"), &format!("10.0.{}.{}:80", n / 250, n % 250), lease)
            .await;
    };
    stream::iter(0..KEYS).for_each_concurrent(64, write).await;
    let read = store.read(&[tree("/web"), tree("/none")], soon()).await.unwrap();
    assert_eq!(read.entries.len(), KEYS);
    assert_eq!(read.entries["/web/09999"].text(), Some("10.0.39.249:80"));
}

pub(crate) async fn several_trees_are_read_at_one_revision<B: Bench>(bench: &mut B) {
    const PAIRS: usize = 300;
    if !bench.has_leases() {
        // v2 has no such read: its snapshot says so.
        return;
    }
    let store = bench.store();
    let lease = store.grant(ttl(600), soon()).await.unwrap();
    let writing = async {
        for n in 0..PAIRS {
            create(store, &format!("/a/{n:03}"), "a", lease).await;
            create(store, &format!("/b/{n:03}"), "b", lease).await;
        }
    };
    let reading = async {
        loop {
            for trees in [[tree("/a"), tree("/b")], [tree("/b"), tree("/a")]] {
                let read = store.read(&trees, soon()).await.unwrap();
                let below = |top| read.entries.keys().filter(|key| key.starts_with(top)).count();
                let (a, b) = (below("/a/"), below("/b/"));
                assert!(a == b || a == b + 1, "{a} and {b} at {:?}", read.revision);
                if b == PAIRS {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(writing, reading);
}

pub(crate) async fn large_values_arrive<B: Bench>(bench: &mut B) {
    // More than fits into one message by gRPC's own bound, in a read and in the
    // first answer of a watch of the past.
    const KEYS: usize = 24;
    let large = "x".repeat(500_000);
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let start = store.read(&[tree("/web")], soon()).await.unwrap().revision;
    for n in 0..KEYS {
        create(store, &format!("/web/{n}"), &large, lease).await;
    }
    let read = store.read(&[tree("/web")], soon()).await.unwrap();
    assert!(read.entries.len() == KEYS && read.entries.values().all(|e| e.value.len() == 500_000));
    let mut watch = store.watch(&[tree("/web")], start, soon()).await.unwrap();
    let mut seen = 0;
    while seen < KEYS {
        seen += event(&mut watch).await.unwrap().len();
    }
}

pub(crate) async fn odd_keys_and_values_survive<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let start = store.read(&[tree("/web")], soon()).await.unwrap().revision;
    let mut watch = store.watch(&[tree("/web")], start, soon()).await.unwrap();
    for (name, value) in [
        ("/web/empty", ""),
        ("/web/ü ñ/☃", "snow ☃ & <b> \"quoted\" \\ \n\t"),
        ("/web/100%/a?b=c#d&e;f+g", "=&+%20"),
        ("/web/[::1]:80", "[::1]:80"),
        ("/web/{host}'\"|*\\", "{}"),
    ] {
        let (at, _) = create(store, name, value, lease).await;
        let read = store.read(&[tree(name)], soon()).await.unwrap();
        assert_eq!(plain(&read), BTreeMap::from([(name, value)]));
        let changes = event(&mut watch).await.unwrap();
        let [Change::Put(entry)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&*entry.key, entry.text(), entry.modified), (name, Some(value), at));
    }
    let empty = Guard::Value(Vec::new());
    let done = put(store, "/web/empty", "no more", lease, &empty).await;
    assert!(matches!(done, PutOutcome::Written(_)), "{done:?}");
    not_deleted(store.delete(&key("/web/empty"), &empty, soon()).await.unwrap());
}
