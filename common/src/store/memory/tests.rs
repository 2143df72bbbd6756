use tokio::time::timeout;

use super::*;
use crate::model::Change;
use crate::store::default_deadline as soon;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn tree(text: &str) -> Tree {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hung_store_ends_calls_by_its_deadline_and_watches_by_their_callers() {
    let store = Memory::new();
    let mut watch = store.watch(&[tree("/a")], store.revision(), soon()).await.unwrap();
    store.hang();
    store.set(&key("/a/1"), "x");
    assert!(timeout(Duration::from_secs(3600), watch.next()).await.is_err());
    assert!(store.read(&[tree("/a")], soon()).await.unwrap_err().is_transient());
    store.heal();
    assert!(matches!(watch.next().await, Ok(WatchEvent::Changes(changes)) if changes.len() == 1));
}

#[tokio::test]
async fn a_cut_ends_watches_for_good() {
    let store = Memory::new();
    let mut watch = store.watch(&[tree("/a")], store.revision(), soon()).await.unwrap();
    store.cut();
    assert!(store.grant(Ttl::DEFAULT, soon()).await.is_err());
    store.heal();
    assert!(watch.next().await.is_err());
    assert!(store.grant(Ttl::DEFAULT, soon()).await.is_ok());
}

#[tokio::test]
async fn time_passes_only_on_demand() {
    let store = Memory::new();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    store.put(&key("/a/1"), b"x", lease, &Guard::Absent, soon()).await.unwrap();
    let mut watch = store.watch(&[tree("/a")], store.revision(), soon()).await.unwrap();
    store.advance(Duration::from_secs(29));
    assert!(matches!(
        store.refresh(lease, &[], soon()).await,
        Ok(RefreshOutcome::Refreshed { .. })
    ));
    store.advance(Duration::from_secs(29));
    assert_eq!(store.value(&key("/a/1")), Some(b"x".to_vec()));
    store.advance(Duration::from_secs(1));
    let at = store.revision();
    let gone = Change::Deleted { key: "/a/1".into(), at };
    assert_eq!(watch.next().await, Ok(WatchEvent::Changes(vec![gone])));
    assert_eq!(store.refresh(lease, &[], soon()).await, Ok(RefreshOutcome::LeaseLost));
    assert_eq!(store.writes(), 2);
}

#[tokio::test]
async fn a_restore_goes_backwards_and_a_wipe_has_another_id() {
    let store = Memory::new();
    store.set(&key("/a/1"), "x");
    let backup = store.save();
    let later = store.set(&key("/a/2"), "y");
    store.restore(&backup);
    let before = store.read(&[tree("/")], soon()).await.unwrap();
    assert_eq!(before.entries.len(), 1);
    let error = store.watch(&[tree("/a")], later, soon()).await.unwrap_err();
    assert_eq!(error, StoreError::Regressed { seen: later, now: before.revision });
    store.wipe();
    let after = store.read(&[tree("/")], soon()).await.unwrap();
    assert!(after.entries.is_empty() && after.cluster != before.cluster);
}

#[tokio::test]
async fn progress_reaches_idle_watches() {
    let store = Memory::new();
    let mut watch = store.watch(&[tree("/a")], store.revision(), soon()).await.unwrap();
    let elsewhere = store.set(&key("/b"), "x");
    store.announce();
    assert_eq!(watch.next().await, Ok(WatchEvent::Progress(elsewhere)));
}
