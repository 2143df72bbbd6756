use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::{Key, Tree, Ttl};
use crate::store::{Guard, Lease, Memory, Store, default_deadline as soon};

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

/// Who takes a key over may wait until that is applied; all others wake nobody.
#[tokio::test(start_paused = true)]
async fn a_value_that_is_put_again_wakes_nobody_unless_it_has_another_holder() {
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
