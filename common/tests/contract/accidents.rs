//! The server is wiped, hangs, is started again.

use common::model::{Change, Revision, Ttl};
use common::store::{Guard, KeyState, PutOutcome, Store, StoreError, default_deadline as soon};
use tokio::time::timeout;

use super::{Bench, PATIENCE, create, event, key, key_states, patiently, tree, ttl};

pub(crate) async fn a_wiped_store_is_noticed<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(Ttl::DEFAULT, soon()).await.unwrap();
    let mut seen = Revision(0);
    for name in ["/web/a", "/web/b", "/web/c", "/web/d", "/web/e", "/web/f", "/web/g"] {
        seen = create(bench.store(), name, "x", lease).await.0;
    }
    let mut running = bench.store().watch(&[tree("/web")], seen, soon()).await.unwrap();
    bench.wipe().await;
    let store = bench.store();
    // A running watch ends, whatever it calls it; a new one says why.
    assert!(event(&mut running).await.unwrap_err().is_transient());
    let now = patiently(async || store.read(&[], soon()).await).await;
    assert!(now.revision < seen, "{} is not before {seen}", now.revision);
    let error = loop {
        match store.watch(&[tree("/web")], seen, soon()).await {
            Ok(mut watch) => break event(&mut watch).await.unwrap_err(),
            Err(StoreError::Unreachable(_)) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Regressed { seen: s, .. } if s == seen), "{error}");
    if bench.has_leases() {
        let none = Guard::Absent;
        let put = store.put(&key("/web/a"), b"x", lease, &none, soon()).await;
        assert_eq!(put, Ok(PutOutcome::LeaseLost));
    }
}

pub(crate) async fn a_hung_server_ends_no_call_by_silence<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(ttl(60), soon()).await.unwrap();
    let (at, mark) = create(bench.store(), "/web/a", "x", lease).await;
    let mut watch = bench.store().watch(&[tree("/web")], at, soon()).await.unwrap();
    bench.hang(true);
    let store = bench.store();
    let keys = [(key("/web/a"), mark)];
    let all = async {
        tokio::join!(
            async { store.read(&[tree("/web")], soon()).await.map(|_| ()) },
            async { store.refresh(lease, &keys, soon()).await.map(|_| ()) },
            async { store.delete(&key("/web/a"), &Guard::Ours(mark), soon()).await.map(|_| ()) },
            async { store.watch(&[tree("/web")], at, soon()).await.map(|_| ()) },
        )
    };
    let (read, renew, delete, watched) =
        timeout(PATIENCE, all).await.expect("a call is never answered");
    for answer in [read, renew, delete, watched] {
        assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
    }
    bench.hang(false);
    let store = bench.store();
    patiently(async || store.read(&[tree("/web")], soon()).await).await;
    patiently(async || store.put(&key("/web/b"), b"y", lease, &Guard::Absent, soon()).await).await;
    // The watch from before goes on, or ends and is made again; nothing is lost.
    let mut seen = Vec::new();
    while !seen.contains(&"/web/b".to_owned()) {
        match event(&mut watch).await {
            Ok(changes) => seen.extend(changes.into_iter().map(|change| match change {
                Change::Put(entry) => entry.key.to_string(),
                other => format!("{other:?}"),
            })),
            Err(_) => {
                watch = patiently(async || store.watch(&[tree("/web")], at, soon()).await).await
            }
        }
    }
}

pub(crate) async fn a_restart_loses_nothing<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(ttl(60), soon()).await.unwrap();
    let (mut seen, mark) = create(bench.store(), "/web/a", "x", lease).await;
    let mut watch = bench.store().watch(&[tree("/web")], seen, soon()).await.unwrap();
    let (before, _) = create(bench.store(), "/web/b", "x", lease).await;
    seen = seen.max(event(&mut watch).await.unwrap()[0].revision());
    assert_eq!(seen, before);
    bench.restart().await;
    let store = bench.store();
    let keys = [(key("/web/a"), mark)];
    let renewed = patiently(async || store.refresh(lease, &keys, soon()).await).await;
    let (_, states) = key_states(renewed);
    assert!(matches!(states[..], [KeyState::Ours(_)]), "{states:?}");
    let (at, _) = create(store, "/web/c", "x", lease).await;
    let changes = loop {
        match event(&mut watch).await {
            Ok(changes) => break changes,
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                watch = patiently(async || store.watch(&[tree("/web")], seen, soon()).await).await;
            }
        }
    };
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].revision(), at);
}
