//! What every store must do, whatever is behind it. One suite; the bench below it
//! provides a store and the accidents.

use std::collections::BTreeMap;
use std::time::Duration;

use common::model::{Change, Entry, Key, Revision, Snapshot, Tree, Ttl};
use common::store::{Guard, KeyState, Lease, Mark, Store, StoreError, Watch, WatchEvent, Written};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

/// A store and what may happen to it.
pub(crate) trait Bench {
    /// The kind of store.
    type Store: Store;
    /// The store.
    fn store(&self) -> &Self::Store;
    /// Whether the server knows leases (v2 does not).
    fn has_leases(&self) -> bool;
    /// Lets the history up to now be forgotten.
    async fn forget(&mut self);
    /// Everything is lost.
    async fn wipe(&mut self);
    /// The server goes away and comes back with what it had.
    async fn restart(&mut self);
    /// Time passes.
    async fn pass(&mut self, time: Duration);
    /// The server stops answering, or answers again.
    fn hang(&mut self, hung: bool);
}

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn tree(text: &str) -> Tree {
    text.parse().unwrap()
}

fn ttl(secs: u64) -> Ttl {
    Ttl::new(Duration::from_secs(secs)).unwrap()
}

/// The same call until etcd is back.
async fn patiently<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let again = async {
        loop {
            match call().await {
                Ok(value) => return value,
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the store does not come back")
}

async fn event<W: Watch>(watch: &mut W) -> Result<Vec<Change>, StoreError> {
    let changes = async {
        loop {
            if let WatchEvent::Changes(changes) = watch.next().await? {
                return Ok(changes);
            }
        }
    };
    timeout(PATIENCE, changes).await.expect("the watch is silent")
}

async fn put<S: Store>(store: &S, name: &str, value: &str, lease: Lease, guard: &Guard) -> Written {
    store.put(&key(name), value.as_bytes(), lease, guard).await.unwrap().unwrap()
}

async fn create<S: Store>(store: &S, name: &str, value: &str, lease: Lease) -> (Revision, Mark) {
    match put(store, name, value, lease, &Guard::Absent).await {
        Written::Done { revision, mark } => (revision, mark),
        held => panic!("{name}: {held:?}"),
    }
}

fn holder(written: Written) -> Entry {
    match written {
        Written::Held { by: Some(entry), .. } => entry,
        other => panic!("nobody holds it: {other:?}"),
    }
}

/// Keys and values of a picture.
fn plain(snapshot: &Snapshot) -> BTreeMap<&str, &str> {
    snapshot.entries.values().map(|e| (&*e.key, e.text().unwrap())).collect()
}

pub(crate) async fn guards_decide_and_say_what_stands_in_the_way<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let mine = store.grant(Ttl::DEFAULT).await.unwrap();
    let (at, mark) = create(store, "/web/a", "1", mine).await;
    assert_eq!(mark.modified, at);

    let by = holder(put(store, "/web/a", "2", mine, &Guard::Absent).await);
    assert_eq!((by.text(), by.modified, by.lease), (Some("1"), at, mine.id));
    holder(put(store, "/web/a", "2", mine, &Guard::Value(b"other".to_vec())).await);

    let Written::Done { mark: taken, .. } =
        put(store, "/web/a", "2", mine, &Guard::Value(b"1".to_vec())).await
    else {
        panic!("the value was right")
    };
    let Written::Done { revision, mark } =
        put(store, "/web/a", "3", mine, &Guard::Ours(taken)).await
    else {
        panic!("it is ours")
    };
    assert!(revision > at && mark.modified == revision);

    // A key of somebody else is not ours, and a missing one is nobody's.
    let theirs = store.grant(Ttl::DEFAULT).await.unwrap();
    let (_, foreign) = create(store, "/web/b", "x", theirs).await;
    let wrong = Mark { lease: mine.id, modified: Revision(foreign.modified.0 - 1) };
    holder(put(store, "/web/b", "4", mine, &Guard::Ours(wrong)).await);
    for guard in [Guard::Value(b"".to_vec()), Guard::Value(b"x".to_vec()), Guard::Ours(mark)] {
        let written = put(store, "/web/none", "5", mine, &guard).await;
        assert!(matches!(written, Written::Held { by: None, .. }), "{guard:?}: {written:?}");
    }
    let picture = store.read(&[tree("/web")]).await.unwrap();
    assert_eq!(plain(&picture), BTreeMap::from([("/web/a", "3"), ("/web/b", "x")]));
    assert!(picture.revision >= revision);
    assert_eq!(picture.entries["/web/a"].modified, revision);
}

pub(crate) async fn a_late_leaver_does_not_delete_a_successors_key<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let (old, new) =
        (store.grant(Ttl::DEFAULT).await.unwrap(), store.grant(Ttl::DEFAULT).await.unwrap());
    let (_, mark) = create(store, "/web/a", "same", old).await;
    let successor = put(store, "/web/a", "same", new, &Guard::Value(b"same".to_vec())).await;
    let Written::Done { mark: successor, .. } = successor else { panic!("{successor:?}") };
    let late = store.delete(&key("/web/a"), &Guard::Ours(mark)).await.unwrap();
    assert_eq!(holder(late).text(), Some("same"));
    assert!(
        store
            .delete(&key("/web/a"), &Guard::Absent)
            .await
            .is_ok_and(|w| holder(w).text().is_some())
    );
    let wrong = store.delete(&key("/web/a"), &Guard::Value(b"other".to_vec())).await.unwrap();
    holder(wrong);
    let done = store.delete(&key("/web/a"), &Guard::Ours(successor)).await.unwrap();
    let Written::Done { revision, .. } = done else { panic!("{done:?}") };
    assert!(revision > successor.modified);
    for guard in [Guard::Ours(successor), Guard::Absent, Guard::Value(b"same".to_vec())] {
        let gone = store.delete(&key("/web/a"), &guard).await.unwrap();
        assert!(matches!(gone, Written::Held { by: None, .. }), "{guard:?}: {gone:?}");
    }
}

pub(crate) async fn a_refresh_keeps_keys_and_wakes_no_watcher<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let (mine, theirs) = (store.grant(ttl(5)).await.unwrap(), store.grant(ttl(5)).await.unwrap());
    let mut marks = Vec::new();
    for name in ["/web/a", "/web/b", "/web/gone"] {
        marks.push((key(name), create(store, name, "x", mine).await.1));
    }
    let gone = marks[2].clone();
    store.delete(&gone.0, &Guard::Ours(gone.1)).await.unwrap();
    let taken = put(store, "/web/b", "y", theirs, &Guard::Value(b"x".to_vec())).await;
    assert!(matches!(taken, Written::Done { .. }));
    let start = store.read(&[tree("/web")]).await.unwrap().revision;
    let mut watch = store.watch(&tree("/web"), start).await.unwrap();
    for _ in 0..3 {
        let renewed = store.renew(mine, &marks).await.unwrap().unwrap();
        assert_eq!(renewed.ttl, mine.ttl);
        assert!(renewed.revision >= start);
        let [KeyState::Ours(mark), KeyState::Foreign(by), KeyState::Missing] = &renewed.keys[..]
        else {
            panic!("{:?}", renewed.keys)
        };
        assert_eq!(by.text(), Some("y"));
        marks[0].1 = *mark;
    }
    let left = store.read(&[tree("/web/a")]).await.unwrap().entries["/web/a"].clone();
    assert!(store.time_left(&left).await.unwrap().unwrap() > Duration::ZERO);
    let (at, _) = create(store, "/web/later", "z", mine).await;
    let changes = event(&mut watch).await.unwrap();
    assert_eq!(changes[0].revision(), at, "a refresh woke the watcher: {changes:?}");
    // The mark of the last refresh is good for a guarded delete.
    let done = store.delete(&marks[0].0, &Guard::Ours(marks[0].1)).await.unwrap();
    assert!(matches!(done, Written::Done { .. }), "{done:?}");
}

pub(crate) async fn list_and_watch_lose_nothing<B: Bench>(bench: &mut B) {
    const WRITERS: usize = 4;
    const WRITES: usize = 40;
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT).await.unwrap();
    let writer = |writer: usize| async move {
        for round in 0..WRITES {
            let name = format!("/web/{writer}/{}", round % 7);
            let value = format!("{round}");
            let there = store.read(&[tree(&name)]).await.unwrap().entries.remove(name.as_str());
            let Some(there) = there else {
                create(store, &name, &value, lease).await;
                continue;
            };
            let guard = Guard::Value(there.value.to_vec());
            let done = if round % 5 == 4 {
                store.delete(&key(&name), &guard).await.unwrap()
            } else {
                put(store, &name, &value, lease, &guard).await
            };
            assert!(matches!(done, Written::Done { .. }), "{done:?}");
        }
    };
    let follower = async {
        let mut picture = store.read(&[tree("/web")]).await.unwrap();
        let mut watch = store.watch(&tree("/web"), picture.revision).await.unwrap();
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
    let read = store.read(&[tree("/web")]).await.unwrap();
    assert_eq!(plain(&followed), plain(&read));
    assert_eq!(followed.revision, read.revision);
}

pub(crate) async fn a_forgotten_history_asks_for_a_new_read<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(Ttl::DEFAULT).await.unwrap();
    let (old, _) = create(bench.store(), "/web/a", "1", lease).await;
    create(bench.store(), "/web/b", "2", lease).await;
    create(bench.store(), "/web/c", "3", lease).await;
    bench.forget().await;
    let store = bench.store();
    let error = match store.watch(&tree("/web"), old).await {
        Ok(mut watch) => event(&mut watch).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error, StoreError::Compacted(old));
    let read = store.read(&[tree("/web")]).await.unwrap();
    assert_eq!(read.entries.len(), 3);
    let mut watch = store.watch(&tree("/web"), read.revision).await.unwrap();
    let (at, _) = create(store, "/web/d", "4", lease).await;
    assert_eq!(event(&mut watch).await.unwrap()[0].revision(), at);
}

pub(crate) async fn a_wiped_store_is_noticed<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(Ttl::DEFAULT).await.unwrap();
    let mut seen = Revision(0);
    for name in ["/web/a", "/web/b", "/web/c", "/web/d", "/web/e", "/web/f", "/web/g"] {
        seen = create(bench.store(), name, "x", lease).await.0;
    }
    let mut running = bench.store().watch(&tree("/web"), seen).await.unwrap();
    bench.wipe().await;
    let store = bench.store();
    // A running watch ends, whatever it calls it; a new one says why.
    assert!(event(&mut running).await.unwrap_err().is_transient());
    let now = patiently(async || store.read(&[]).await).await;
    assert!(now.revision < seen, "{} is not before {seen}", now.revision);
    let error = loop {
        match store.watch(&tree("/web"), seen).await {
            Ok(mut watch) => break event(&mut watch).await.unwrap_err(),
            Err(StoreError::Unreachable(_)) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Regressed { seen: s, .. } if s == seen), "{error}");
    if bench.has_leases() {
        let none = Guard::Absent;
        assert_eq!(store.put(&key("/web/a"), b"x", lease, &none).await, Ok(None));
    }
}

pub(crate) async fn a_tree_ends_at_a_slash<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT).await.unwrap();
    let start = store.read(&[tree("/web")]).await.unwrap().revision;
    let mut watch = store.watch(&tree("/web/x"), start).await.unwrap();
    for name in ["/web-2/x/1", "/web/x-2/1", "/web2/x", "/web0", "/web/y/1", "/web/x/1"] {
        create(store, name, name, lease).await;
    }
    let read = store.read(&[tree("/web")]).await.unwrap();
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
    let one = store.read(&[tree("/web/x/1"), tree("/web2"), tree("/none")]).await.unwrap();
    assert_eq!(plain(&one).into_keys().collect::<Vec<_>>(), ["/web/x/1", "/web2/x"]);
    let overlap = store.read(&[tree("/web"), tree("/web/x"), tree("/")]).await.unwrap();
    assert_eq!(overlap.entries.len(), 6);
}

pub(crate) async fn a_lease_that_runs_out_is_seen<B: Bench>(bench: &mut B) {
    let short = bench.store().grant(ttl(2)).await.unwrap();
    let long = bench.store().grant(Ttl::DEFAULT).await.unwrap();
    let (_, mark) = create(bench.store(), "/web/short", "x", short).await;
    let (at, _) = create(bench.store(), "/web/long", "x", long).await;
    let mut watch = bench.store().watch(&tree("/web"), at).await.unwrap();
    bench.pass(short.ttl).await;
    let changes = event(&mut watch).await.unwrap();
    assert!(
        matches!(&changes[..], [Change::Gone { key, .. }] if **key == *"/web/short"),
        "{changes:?}"
    );
    let store = bench.store();
    let renewed = store.renew(short, &[(key("/web/short"), mark)]).await.unwrap();
    if bench.has_leases() {
        assert_eq!(renewed, None);
        assert_eq!(store.put(&key("/web/new"), b"x", short, &Guard::Absent).await, Ok(None));
        store.revoke(short).await.unwrap();
        store.revoke(long).await.unwrap();
        let changes = event(&mut watch).await.unwrap();
        assert!(matches!(&changes[..], [Change::Gone { key, .. }] if **key == *"/web/long"));
    } else {
        assert_eq!(renewed.unwrap().keys, [KeyState::Missing]);
    }
}

pub(crate) async fn ten_thousand_keys_are_read_whole<B: Bench>(bench: &mut B) {
    const KEYS: usize = 10_000;
    let store = bench.store();
    let lease = store.grant(ttl(600)).await.unwrap();
    let write = |n: usize| async move {
        create(store, &format!("/web/{n:05}"), &format!("10.0.{}.{}:80", n / 250, n % 250), lease)
            .await;
    };
    stream::iter(0..KEYS).for_each_concurrent(64, write).await;
    let read = store.read(&[tree("/web"), tree("/none")]).await.unwrap();
    assert_eq!(read.entries.len(), KEYS);
    assert_eq!(read.entries["/web/09999"].text(), Some("10.0.39.249:80"));
}

pub(crate) async fn large_values_arrive<B: Bench>(bench: &mut B) {
    // More than fits into one message by gRPC's own bound, in a read and in the
    // first answer of a watch of the past.
    const KEYS: usize = 24;
    let large = "x".repeat(500_000);
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT).await.unwrap();
    let start = store.read(&[tree("/web")]).await.unwrap().revision;
    for n in 0..KEYS {
        create(store, &format!("/web/{n}"), &large, lease).await;
    }
    let read = store.read(&[tree("/web")]).await.unwrap();
    assert!(read.entries.len() == KEYS && read.entries.values().all(|e| e.value.len() == 500_000));
    let mut watch = store.watch(&tree("/web"), start).await.unwrap();
    let mut seen = 0;
    while seen < KEYS {
        seen += event(&mut watch).await.unwrap().len();
    }
}

pub(crate) async fn odd_keys_and_values_survive<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT).await.unwrap();
    let start = store.read(&[tree("/web")]).await.unwrap().revision;
    let mut watch = store.watch(&tree("/web"), start).await.unwrap();
    for (name, value) in [
        ("/web/empty", ""),
        ("/web/ü ñ/☃", "snow ☃ & <b> \"quoted\" \\ \n\t"),
        ("/web/100%/a?b=c#d&e;f+g", "=&+%20"),
        ("/web/[::1]:80", "[::1]:80"),
        ("/web/{host}'\"|*\\", "{}"),
    ] {
        let (at, _) = create(store, name, value, lease).await;
        let read = store.read(&[tree(name)]).await.unwrap();
        assert_eq!(plain(&read), BTreeMap::from([(name, value)]));
        let changes = event(&mut watch).await.unwrap();
        let [Change::Put(entry)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!((&*entry.key, entry.text(), entry.modified), (name, Some(value), at));
    }
    let empty = Guard::Value(Vec::new());
    let done = put(store, "/web/empty", "no more", lease, &empty).await;
    assert!(matches!(done, Written::Done { .. }), "{done:?}");
    holder(store.delete(&key("/web/empty"), &empty).await.unwrap());
}

pub(crate) async fn a_hung_server_ends_no_call_by_silence<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(ttl(60)).await.unwrap();
    let (at, mark) = create(bench.store(), "/web/a", "x", lease).await;
    let mut watch = bench.store().watch(&tree("/web"), at).await.unwrap();
    bench.hang(true);
    let store = bench.store();
    let keys = [(key("/web/a"), mark)];
    let all = async {
        tokio::join!(
            async { store.read(&[tree("/web")]).await.map(|_| ()) },
            async { store.renew(lease, &keys).await.map(|_| ()) },
            async { store.delete(&key("/web/a"), &Guard::Ours(mark)).await.map(|_| ()) },
            async { store.watch(&tree("/web"), at).await.map(|_| ()) },
        )
    };
    let (read, renew, delete, watched) =
        timeout(PATIENCE, all).await.expect("a call is silent for ever");
    for answer in [read, renew, delete, watched] {
        assert!(matches!(answer, Err(StoreError::Unreachable(_))), "{answer:?}");
    }
    bench.hang(false);
    let store = bench.store();
    patiently(async || store.read(&[tree("/web")]).await).await;
    patiently(async || store.put(&key("/web/b"), b"y", lease, &Guard::Absent).await).await;
    // The watch from before goes on, or ends and is made again; nothing is lost.
    let mut seen = Vec::new();
    while !seen.contains(&"/web/b".to_owned()) {
        match event(&mut watch).await {
            Ok(changes) => seen.extend(changes.into_iter().map(|change| match change {
                Change::Put(entry) => entry.key.to_string(),
                other => format!("{other:?}"),
            })),
            Err(_) => watch = patiently(async || store.watch(&tree("/web"), at).await).await,
        }
    }
}

pub(crate) async fn a_restart_loses_nothing<B: Bench>(bench: &mut B) {
    let lease = bench.store().grant(ttl(60)).await.unwrap();
    let (mut seen, mark) = create(bench.store(), "/web/a", "x", lease).await;
    let mut watch = bench.store().watch(&tree("/web"), seen).await.unwrap();
    let (before, _) = create(bench.store(), "/web/b", "x", lease).await;
    seen = seen.max(event(&mut watch).await.unwrap()[0].revision());
    assert_eq!(seen, before);
    bench.restart().await;
    let store = bench.store();
    let keys = [(key("/web/a"), mark)];
    let renewed =
        patiently(async || store.renew(lease, &keys).await).await.expect("the lease survives");
    assert!(matches!(renewed.keys[..], [KeyState::Ours(_)]), "{:?}", renewed.keys);
    let (at, _) = create(store, "/web/c", "x", lease).await;
    let changes = loop {
        match event(&mut watch).await {
            Ok(changes) => break changes,
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                watch = patiently(async || store.watch(&tree("/web"), seen).await).await;
            }
        }
    };
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].revision(), at);
}

pub(crate) async fn a_watch_may_be_left_and_taken_up_again<B: Bench>(bench: &mut B) {
    let store = bench.store();
    let lease = store.grant(Ttl::DEFAULT).await.unwrap();
    let start = store.read(&[tree("/web")]).await.unwrap().revision;
    let mut watch = store.watch(&tree("/web"), start).await.unwrap();
    for n in 0..20 {
        let pending = timeout(Duration::from_millis(1), watch.next()).await;
        assert!(!matches!(pending, Ok(Ok(WatchEvent::Changes(_)))), "{pending:?}");
        let (at, _) = create(store, &format!("/web/{n}"), "x", lease).await;
        assert_eq!(event(&mut watch).await.unwrap()[0].revision(), at);
    }
}
