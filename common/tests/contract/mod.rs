//! What every store must do, whatever is behind it. One suite; the bench below it
//! provides a store and the accidents.

mod accidents;
mod content;
mod ownership;
mod watching;

use std::collections::BTreeMap;
use std::time::Duration;

use common::model::{Change, Entry, Key, Revision, Snapshot, Tree, Ttl};
use common::store::{
    DeleteOutcome, Guard, KeyState, Lease, Ownership, PutOutcome, RefreshOutcome, Store,
    StoreError, Watch, WatchEvent, default_deadline as soon,
};
use tokio::time::timeout;

pub(crate) use accidents::*;
pub(crate) use content::*;
pub(crate) use ownership::*;
pub(crate) use watching::*;

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

async fn put<S: Store>(
    store: &S,
    name: &str,
    value: &str,
    lease: Lease,
    guard: &Guard,
) -> PutOutcome {
    store.put(&key(name), value.as_bytes(), lease, guard, soon()).await.unwrap()
}

async fn create<S: Store>(
    store: &S,
    name: &str,
    value: &str,
    lease: Lease,
) -> (Revision, Ownership) {
    match put(store, name, value, lease, &Guard::Absent).await {
        PutOutcome::Written(ours) => (ours.modified, ours),
        other => panic!("{name}: {other:?}"),
    }
}

fn taken_by(outcome: PutOutcome) -> Entry {
    match outcome {
        PutOutcome::Taken { by, .. } => by,
        other => panic!("it is not taken: {other:?}"),
    }
}

fn not_deleted(outcome: DeleteOutcome) -> Entry {
    match outcome {
        DeleteOutcome::Taken { by, .. } => by,
        other => panic!("it is not taken: {other:?}"),
    }
}

fn key_states(outcome: RefreshOutcome) -> (Revision, Vec<KeyState>) {
    match outcome {
        RefreshOutcome::Refreshed { revision, keys } => (revision, keys),
        RefreshOutcome::LeaseLost => panic!("the lease is lost"),
    }
}

/// Keys and values of a snapshot.
fn plain(snapshot: &Snapshot) -> BTreeMap<&str, &str> {
    snapshot.entries.values().map(|e| (&*e.key, e.text().unwrap())).collect()
}
