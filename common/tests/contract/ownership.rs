//! Who owns a key: guards, ownership, leases.

use std::collections::BTreeMap;
use std::time::Duration;

use common::model::{Change, Revision, Ttl};
use common::store::{
    DeleteOutcome, Guard, KeyState, Ownership, PutOutcome, RefreshOutcome, Store,
    default_deadline as soon,
};

use super::{Bench, create, event, key, key_states, not_deleted, plain, put, taken_by, tree, ttl};

pub(crate) async fn guards_decide_and_outcomes_say_what_was_found<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let mine = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let (at, mark) = create(store, "/web/a", "1", mine).await;
    assert_eq!(mark.modified, at);

    let by = taken_by(put(store, "/web/a", "2", mine, &Guard::Absent).await);
    assert_eq!((by.text(), by.modified, by.lease), (Some("1"), at, mine.id));
    taken_by(put(store, "/web/a", "2", mine, &Guard::Value(b"other".to_vec())).await);

    let PutOutcome::Written(taken) =
        put(store, "/web/a", "2", mine, &Guard::Value(b"1".to_vec())).await
    else {
        panic!("the value was right")
    };
    let PutOutcome::Written(mark) = put(store, "/web/a", "3", mine, &Guard::Ours(taken)).await
    else {
        panic!("it is ours")
    };
    let revision = mark.modified;
    assert!(revision > at);

    // A key of somebody else is not ours, and a missing one is nobody's.
    let theirs = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let (_, foreign) = create(store, "/web/b", "x", theirs).await;
    let wrong = Ownership { lease: mine.id, modified: Revision(foreign.modified.0 - 1) };
    taken_by(put(store, "/web/b", "4", mine, &Guard::Ours(wrong)).await);
    for guard in [Guard::Value(b"".to_vec()), Guard::Value(b"x".to_vec()), Guard::Ours(mark)] {
        let written = put(store, "/web/none", "5", mine, &guard).await;
        assert!(matches!(written, PutOutcome::Missing { .. }), "{guard:?}: {written:?}");
    }
    let picture = store.read(&[tree("/web")], soon()).await.unwrap();
    assert_eq!(plain(&picture), BTreeMap::from([("/web/a", "3"), ("/web/b", "x")]));
    assert!(picture.revision >= revision);
    assert_eq!(picture.entries["/web/a"].modified, revision);
}

pub(crate) async fn a_key_goes_with_its_marker_or_stays<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT, soon()).await.unwrap();
    let (_, mark) = create(store, "/web/a", "1", lease).await;
    let marker = key("/leaving/web/a");
    let leave = async |guard: &Guard| {
        let trees = [tree("/web"), tree("/leaving")];
        store.leave(&key("/web/a"), guard, (&marker, b"m"), lease, &trees, soon()).await.unwrap()
    };
    let other = Guard::Value(b"2".to_vec());
    assert!(matches!(leave(&other).await, (DeleteOutcome::Taken { .. }, None)));
    let (outcome, read) = leave(&Guard::Ours(mark)).await;
    let DeleteOutcome::Deleted(at) = outcome else { panic!("it is ours") };
    let found = store.read(&[tree("/web"), tree("/leaving")], soon()).await.unwrap();
    // Where it is read in the same transaction, it is as it was then.
    if let Some(read) = read {
        assert_eq!((read.revision, plain(&read)), (at, plain(&found)));
        assert_eq!(read.cluster, found.cluster);
    }
    assert_eq!(plain(&found), BTreeMap::from([("/leaving/web/a", "m")]));
    assert!(found.entries["/leaving/web/a"].modified <= at);
    assert!(matches!(leave(&Guard::Ours(mark)).await, (DeleteOutcome::Missing(_), None)));
}

pub(crate) async fn a_late_leaver_does_not_delete_a_successors_key<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let (old, new) = (
        store.grant(Ttl::DEFAULT, soon()).await.unwrap(),
        store.grant(Ttl::DEFAULT, soon()).await.unwrap(),
    );
    let (_, mark) = create(store, "/web/a", "same", old).await;
    let successor = put(store, "/web/a", "same", new, &Guard::Value(b"same".to_vec())).await;
    let PutOutcome::Written(successor) = successor else { panic!("{successor:?}") };
    let late = store.delete(&key("/web/a"), &Guard::Ours(mark), soon()).await.unwrap();
    assert_eq!(not_deleted(late).text(), Some("same"));
    assert!(
        store
            .delete(&key("/web/a"), &Guard::Absent, soon())
            .await
            .is_ok_and(|w| not_deleted(w).text().is_some())
    );
    let wrong =
        store.delete(&key("/web/a"), &Guard::Value(b"other".to_vec()), soon()).await.unwrap();
    not_deleted(wrong);
    let done = store.delete(&key("/web/a"), &Guard::Ours(successor), soon()).await.unwrap();
    let DeleteOutcome::Deleted(revision) = done else { panic!("{done:?}") };
    assert!(revision > successor.modified);
    for guard in [Guard::Ours(successor), Guard::Absent, Guard::Value(b"same".to_vec())] {
        let gone = store.delete(&key("/web/a"), &guard, soon()).await.unwrap();
        assert!(matches!(gone, DeleteOutcome::Missing(_)), "{guard:?}: {gone:?}");
    }
}

pub(crate) async fn a_refresh_keeps_keys_and_wakes_no_watcher<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let (mine, theirs) =
        (store.grant(ttl(5), soon()).await.unwrap(), store.grant(ttl(5), soon()).await.unwrap());
    let mut marks = Vec::new();
    for name in ["/web/a", "/web/b", "/web/gone"] {
        marks.push((key(name), create(store, name, "x", mine).await.1));
    }
    let gone = marks[2].clone();
    store.delete(&gone.0, &Guard::Ours(gone.1), soon()).await.unwrap();
    let taken = put(store, "/web/b", "y", theirs, &Guard::Value(b"x".to_vec())).await;
    assert!(matches!(taken, PutOutcome::Written(_)));
    let start = store.read(&[tree("/web")], soon()).await.unwrap().revision;
    let mut watch = store.watch(&[tree("/web")], start, soon()).await.unwrap();
    for _ in 0..3 {
        let renewed = store.refresh(mine, &marks, soon()).await.unwrap();
        let (revision, states) = key_states(renewed);
        assert!(revision >= start);
        let [KeyState::Ours(mark), KeyState::Foreign(by), KeyState::Missing] = &states[..] else {
            panic!("{states:?}")
        };
        assert_eq!(by.text(), Some("y"));
        marks[0].1 = *mark;
    }
    let left = store.read(&[tree("/web/a")], soon()).await.unwrap().entries["/web/a"].clone();
    assert!(store.time_left(&left, soon()).await.unwrap().unwrap() > Duration::ZERO);
    let (at, _) = create(store, "/web/later", "z", mine).await;
    let changes = event(&mut watch).await.unwrap();
    assert_eq!(changes[0].revision(), at, "a refresh woke the watcher: {changes:?}");
    // The mark of the last refresh is good for a guarded delete.
    let done = store.delete(&marks[0].0, &Guard::Ours(marks[0].1), soon()).await.unwrap();
    assert!(matches!(done, DeleteOutcome::Deleted(_)), "{done:?}");
}

pub(crate) async fn the_end_of_a_lease_is_seen<B: Bench>(bench: &mut B) {
    let short = bench.store().grant(ttl(2), soon()).await.unwrap();
    let long = bench.store().grant(Ttl::DEFAULT, soon()).await.unwrap();
    let (_, mark) = create(bench.store(), "/web/short", "x", short).await;
    let (at, _) = create(bench.store(), "/web/long", "x", long).await;
    let mut watch = bench.store().watch(&[tree("/web")], at, soon()).await.unwrap();
    bench.pass(short.ttl).await;
    let changes = event(&mut watch).await.unwrap();
    assert!(
        matches!(&changes[..], [Change::Deleted { key, .. }] if **key == *"/web/short"),
        "{changes:?}"
    );
    let store = bench.store();
    let renewed = store.refresh(short, &[(key("/web/short"), mark)], soon()).await.unwrap();
    if bench.has_leases() {
        assert_eq!(renewed, RefreshOutcome::LeaseLost);
        let put = store.put(&key("/web/new"), b"x", short, &Guard::Absent, soon()).await;
        assert_eq!(put, Ok(PutOutcome::LeaseLost));
        store.revoke(short, soon()).await.unwrap();
        store.revoke(long, soon()).await.unwrap();
        let changes = event(&mut watch).await.unwrap();
        assert!(matches!(&changes[..], [Change::Deleted { key, .. }] if **key == *"/web/long"));
    } else {
        assert_eq!(key_states(renewed).1, [KeyState::Missing]);
    }
}
