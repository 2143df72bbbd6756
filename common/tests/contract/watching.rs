//! A read and the watch after it make one whole history.

use std::time::Duration;

use common::model::{Change, Ttl};
use common::store::{
    DeleteOutcome, Guard, PutOutcome, Store, StoreError, Watch, WatchEvent,
    default_deadline as soon,
};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use super::{Bench, PATIENCE, create, event, key, plain, put, tree};

pub(crate) async fn list_and_watch_lose_nothing<B: Bench>(bench: &mut B) {
    const WRITERS: usize = 4;
    const WRITES: usize = 40;
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let writer = |writer: usize| async move {
        for round in 0..WRITES {
            let name = format!("/web/{writer}/{}", round % 7);
            let value = format!("{round}");
            let there =
                store.read(&[tree(&name)], soon()).await.unwrap().entries.remove(name.as_str());
            let Some(there) = there else {
                create(store, &name, &value, lease).await;
                continue;
            };
            let guard = Guard::Value(there.value.to_vec());
            if round % 5 == 4 {
                let deleted = store.delete(&key(&name), &guard, soon()).await.unwrap();
                assert!(matches!(deleted, DeleteOutcome::Deleted(_)), "{deleted:?}");
            } else {
                let written = put(store, &name, &value, lease, &guard).await;
                assert!(matches!(written, PutOutcome::Written(_)), "{written:?}");
            }
        }
    };
    let follower = async {
        let mut picture = store.read(&[tree("/web")], soon()).await.unwrap();
        let mut watch = store.watch(&[tree("/web")], picture.revision, soon()).await.unwrap();
        let mut last = picture.revision;
        loop {
            for change in event(&mut watch).await.unwrap() {
                assert!(change.revision() >= last, "out of order: {change:?} after {last}");
                last = change.revision();
                let end = matches!(&change, Change::Put(entry) if *entry.key == *"/web/end");
                picture.apply(change);
                if end {
                    return picture;
                }
            }
        }
    };
    let writers = async {
        stream::iter(0..WRITERS).for_each_concurrent(WRITERS, writer).await;
        create(store, "/web/end", "", lease).await;
    };
    let (followed, ()) = tokio::join!(follower, writers);
    let read = store.read(&[tree("/web")], soon()).await.unwrap();
    assert_eq!(plain(&followed), plain(&read));
    assert_eq!(followed.revision, read.revision);
}

pub(crate) async fn a_forgotten_history_asks_for_a_new_read<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(Ttl::DEFAULT, soon()).await.unwrap();
    let (old, _) = create(bench.store(), "/web/a", "1", lease).await;
    create(bench.store(), "/web/b", "2", lease).await;
    create(bench.store(), "/web/c", "3", lease).await;
    bench.forget().await;
    let store = bench.store();
    let error = match store.watch(&[tree("/web")], old, soon()).await {
        Ok(mut watch) => event(&mut watch).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error, StoreError::Compacted(old));
    let read = store.read(&[tree("/web")], soon()).await.unwrap();
    assert_eq!(read.entries.len(), 3);
    let mut watch = store.watch(&[tree("/web")], read.revision, soon()).await.unwrap();
    let (at, _) = create(store, "/web/d", "4", lease).await;
    assert_eq!(event(&mut watch).await.unwrap()[0].revision(), at);
}

pub(crate) async fn a_watch_may_be_left_and_taken_up_again<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let start = store.read(&[tree("/web")], soon()).await.unwrap().revision;
    let mut watch = store.watch(&[tree("/web")], start, soon()).await.unwrap();
    for n in 0..20 {
        let pending = timeout(Duration::from_millis(1), watch.next()).await;
        assert!(!matches!(pending, Ok(Ok(WatchEvent::Changes(_)))), "{pending:?}");
        let (at, _) = create(store, &format!("/web/{n}"), "x", lease).await;
        assert_eq!(event(&mut watch).await.unwrap()[0].revision(), at);
    }
}

/// Several trees are one history: what changes two of them in one transaction is one event, and
/// nothing is handed on before what came before it.
pub(crate) async fn trees_are_followed_together<B: Bench>(bench: &mut B) {
    const ROUNDS: usize = 50;
    let store = bench.store();
    let trees = [tree("/web"), tree("/left"), tree("/web/below"), tree("/none")];
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let mut picture = store.read(&trees, soon()).await.unwrap();
    let mut watch = store.watch(&trees, picture.revision, soon()).await.unwrap();
    let writer = async {
        for round in 0..ROUNDS {
            let (name, marker) = (format!("/web/{round}"), format!("/left/{round}"));
            let (_, ours) = create(store, &name, "x", lease).await;
            let (guard, mark) = (Guard::Ours(ours), key(&marker));
            let left = store
                .leave(&key(&name), &guard, (&mark, b"left"), lease, &[], soon())
                .await
                .unwrap();
            assert!(matches!(left.0, DeleteOutcome::Deleted(_)), "{left:?}");
        }
        create(store, "/web/below/end", "", lease).await;
    };
    let has_leases = bench.has_leases();
    let follower = async {
        while !picture.entries.contains_key("/web/below/end") {
            match timeout(PATIENCE, watch.next()).await.expect("the watch is silent").unwrap() {
                WatchEvent::Progress(_) => {}
                WatchEvent::Changes(changes) => {
                    changes.into_iter().for_each(|change| picture.apply(change));
                }
                WatchEvent::Partial(_) => {
                    picture = store.read_again(&trees, &picture, soon()).await.unwrap();
                }
            }
            // With v2 there are no transactions: the marker comes first.
            let (there, gone) = picture.entries.keys().partition::<Vec<_>, _>(|key| {
                key.starts_with("/web/") && !key.starts_with("/web/below")
            });
            let name = |key: &str| key.rsplit('/').next().unwrap_or_default().to_owned();
            let both = there.iter().any(|key| gone.iter().any(|gone| name(gone) == name(key)));
            assert!(!(has_leases && both), "half of a transaction: {there:?}, {gone:?}");
        }
        picture
    };
    let (followed, ()) = tokio::join!(follower, writer);
    let read = store.read(&trees, soon()).await.unwrap();
    assert_eq!(plain(&followed), plain(&read));
    assert_eq!(read.entries.len(), ROUNDS + 1);
}
