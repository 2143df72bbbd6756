use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::follower::is_end_of_connection;
use super::*;
use crate::model::{Key, Tree, Ttl};
use crate::store::{Guard, Lease, Memory, Store, StoreError, default_deadline as soon};

async fn put(store: &Memory, key: &str, value: &str, lease: Lease) {
    let key: Key = key.parse().unwrap();
    for guard in [Guard::Absent, Guard::Value(b"x".to_vec())] {
        store.put(&key, value.as_bytes(), lease, &guard, soon()).await.unwrap();
    }
}

async fn changes(view: &mut watch::Receiver<View>) -> bool {
    timeout(Duration::from_secs(1), view.changed()).await.is_ok()
}

fn following(store: &Memory, trees: &[&str]) -> watch::Receiver<View> {
    let trees: Vec<Tree> = trees.iter().map(|tree| tree.parse().unwrap()).collect();
    follow(store.clone(), trees, Options::default(), CancellationToken::new())
}

/// A process that takes a key over may wait until that is applied; no other unchanged write
/// matters to a reader.
#[tokio::test(start_paused = true)]
async fn an_unchanged_value_wakes_no_reader_unless_its_lease_holder_changed() {
    for trees in [&["/a"][..], &["/a", "/b"]] {
        let store = Memory::new();
        let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
        put(&store, "/a/1", "x", lease).await;
        let mut view = following(&store, trees);
        view.wait_for(|view| view.stale.is_none()).await.unwrap();
        while changes(&mut view).await {}
        put(&store, "/a/1", "x", lease).await;
        assert!(!changes(&mut view).await, "{trees:?}");
        let other = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
        put(&store, "/a/1", "x", other).await;
        assert!(changes(&mut view).await, "{trees:?}");
        put(&store, "/a/1", "y", other).await;
        assert!(changes(&mut view).await, "{trees:?}");
        let now = view.borrow_and_update().snapshot.clone().unwrap();
        assert_eq!(now.entries["/a/1"].text(), Some("y"));
    }
}

#[tokio::test]
async fn ignored_keys_are_in_no_view_and_wake_no_reader() {
    let store = Memory::default();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let put = async |key: &str| {
        let key: Key = key.parse().unwrap();
        store.put(&key, b"x", lease, &Guard::Absent, soon()).await.unwrap();
    };
    put("/confsync/acks/web/lb-1").await;
    put("/elsewhere/ours/1").await;
    let entry = |key: &str, value: &[u8]| key.starts_with("/elsewhere/ours/") && value == b"x";
    let may_be = |key: &str| key.starts_with("/elsewhere/ours/");
    let ignored = Some(Ignored { tree: "/confsync".parse().unwrap(), entry, may_be });
    let options = Options { ignored, ..Options::default() };
    let shutdown = CancellationToken::new();
    let mut view = follow(store.clone(), vec!["/".parse().unwrap()], options, shutdown);
    view.changed().await.unwrap();
    assert!(view.borrow_and_update().snapshot.clone().unwrap().entries.is_empty());

    put("/confsync/acks/web/lb-2").await;
    put("/settings/title").await;
    view.changed().await.unwrap();
    let seen = view.borrow_and_update().snapshot.clone().unwrap();
    assert!(seen.entries.keys().map(|key| &**key).eq(["/settings/title"]));
    put("/confsync/acks/web/lb-3").await;
    put("/elsewhere/ours/2").await;
    for key in ["/elsewhere/ours/1", "/elsewhere/ours/2"] {
        store.delete(&key.parse().unwrap(), &Guard::Value(b"x".to_vec()), soon()).await.unwrap();
    }
    put("/settings/end").await;
    let all = |view: &View| view.snapshot.as_ref().is_some_and(|s| s.entries.len() == 2);
    let mut woken = 0;
    while !all(&view.borrow_and_update()) {
        view.changed().await.unwrap();
        woken += 1;
    }
    assert!(woken <= 1, "woken {woken} times by one change");
}

/// One outage is one line in the log: the one of the attempt that fails after it.
#[test]
fn a_connection_that_ends_is_no_news_by_itself_and_one_that_never_works_is() {
    let ended = StoreError::Unreachable("broken pipe".to_owned());
    let long = Duration::from_secs(60);
    assert!(is_end_of_connection(&ended, long));
    assert!(!is_end_of_connection(&ended, Duration::from_secs(1)));
    assert!(!is_end_of_connection(&StoreError::Denied("no right".to_owned()), long));
}
