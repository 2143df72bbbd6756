//! What only v2 has: folders that end as one, and keys in the place of folders.

use std::time::Duration;

use common::model::{Change, Key, Tree, Ttl};
use common::store::{
    Api, Etcd, EtcdWatch, Guard, Store, StoreError, Watch, WatchEvent, connect,
    default_deadline as soon,
};
use tokio::time::timeout;

use crate::etcd_server::EtcdServer;
use crate::to;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn tree(text: &str) -> Tree {
    text.parse().unwrap()
}

async fn create(store: &Etcd, name: &str) -> Result<(), StoreError> {
    let lease = store.grant(Ttl::DEFAULT, soon()).await?;
    store.put(&key(name), b"x", lease, &Guard::Absent, soon()).await.map(|_| ())
}

/// The next change; progress in between is no change.
async fn change(watch: &mut EtcdWatch) -> Change {
    let next = async {
        loop {
            if let WatchEvent::Changes(mut changes) = watch.next().await.unwrap() {
                assert_eq!(changes.len(), 1);
                return changes.remove(0);
            }
        }
    };
    timeout(Duration::from_secs(10), next).await.expect("the watch is silent")
}

#[tokio::test]
async fn a_deleted_folder_is_one_change_for_watches_above_and_below() {
    let server = EtcdServer::start().await;
    let store = connect(&to(server.url(), Api::V2)).await.unwrap();
    for name in ["/services/web/a", "/services/web/b/c", "/services/web2/d"] {
        create(&store, name).await.unwrap();
    }
    let start = store.read(&[tree("/services")], soon()).await.unwrap();
    let mut watches = Vec::new();
    for path in ["/services", "/services/web", "/services/web/b"] {
        watches.push(store.watch(&[tree(path)], start.revision, soon()).await.unwrap());
    }
    server.ctl("2", &["rm", "--recursive", "/services/web"]);
    for watch in &mut watches {
        let gone = change(watch).await;
        let Change::TreeDeleted { tree: gone_tree, at } = &gone else { panic!("{gone:?}") };
        assert_eq!(gone_tree.path(), "/services/web");
        assert!(*at > start.revision);
        let mut picture = start.clone();
        picture.apply(gone);
        assert_eq!(
            picture.entries.keys().map(|key| &**key).collect::<Vec<_>>(),
            ["/services/web2/d"]
        );
    }
    // A folder with a TTL ends by itself, as one.
    create(&store, "/services/short/a").await.unwrap();
    assert!(matches!(change(&mut watches[0]).await, Change::Put(_)));
    server.ctl("2", &["updatedir", "--ttl", "1", "/services/short"]);
    let gone = loop {
        match change(&mut watches[0]).await {
            // The folder was touched; there is no key of its name.
            Change::Deleted { key, .. } if *key == *"/services/short" => {}
            other => break other,
        }
    };
    assert!(matches!(&gone, Change::TreeDeleted { tree, .. } if tree.path() == "/services/short"));
}

#[tokio::test]
async fn folders_and_hidden_keys_are_no_entries() {
    let server = EtcdServer::start().await;
    let store = connect(&to(server.url(), Api::V2)).await.unwrap();
    server.ctl("2", &["mkdir", "/web/empty"]);
    create(&store, "/web/_hidden").await.unwrap();
    create(&store, "/web/a").await.unwrap();
    let read = store.read(&[tree("/")], soon()).await.unwrap();
    assert_eq!(read.entries.keys().map(|key| &**key).collect::<Vec<_>>(), ["/web/a"]);
    assert_eq!(store.read(&[tree("/web/empty")], soon()).await.unwrap().entries.len(), 0);
}

#[tokio::test]
async fn a_key_in_the_place_of_a_folder_is_named_and_the_other_way_round() {
    let server = EtcdServer::start().await;
    let store = connect(&to(server.url(), Api::V2)).await.unwrap();
    create(&store, "/web/a").await.unwrap();
    for (name, part) in
        [("/web/a/b", "in place of a directory"), ("/web", "is a directory in etcd")]
    {
        let error = create(&store, name).await.unwrap_err();
        assert!(matches!(error, StoreError::Rejected(_)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let ours = Guard::Value(b"x".to_vec());
    let error = store.delete(&key("/web"), &ours, soon()).await.unwrap_err();
    assert!(matches!(error, StoreError::Rejected(_)), "{error}");
    assert_eq!(store.read(&[tree("/web/a/b")], soon()).await.unwrap().entries.len(), 0);
}
