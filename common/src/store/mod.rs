//! The one door to etcd: a trait with three implementations (v3, v2, memory), held
//! to one contract by one test suite.
//!
//! What must hold for each of them:
//! * a read shows one revision, linearizable;
//! * a watch from revision R+1 delivers every change after R, in order, or ends
//!   with an error that says to read again;
//! * a guarded write happens whole or not at all, and says what stood in its way;
//! * refreshing a key wakes no watcher;
//! * every call ends: by an answer or by [`StoreError`], never by silence.
//!
//! This module knows nothing of who holds a key or why; see [`crate::claim`].

mod connect;
mod discovery;
mod etcd;
pub mod memory;
mod reason;
mod rotation;
mod v2;
mod v3;

pub use connect::{
    Api, ApiError, Connection, Credentials, Timeouts, TlsFiles, check_endpoint, connect,
};
pub use etcd::{Etcd, EtcdWatch};
pub use memory::Memory;
pub use v2::{V2, V2Watch};
pub use v3::{V3, V3Watch};

use std::future::Future;
use std::time::Duration;

use crate::model::{Change, Entry, Key, Revision, Snapshot, Tree, Ttl};

/// Why the store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer, or none that can be relied on: no connection, no leader, a
    /// deadline, a cut stream. Trying again is right.
    #[error("etcd is not reachable: {0}")]
    Unreachable(String),
    /// The history asked for is no longer kept (v3 compaction, v2 error 401). Read
    /// again and watch from there.
    #[error("etcd no longer has the history after revision {0}")]
    Compacted(Revision),
    /// A watch was cut after it had worked for a while. The server may have been
    /// replaced meanwhile, also by one with another history of the same length; so what
    /// there is, is read again.
    #[error("the watch was cut")]
    Cut,
    /// The store's revision is lower than one seen before: wiped, or restored from
    /// a backup. Read again; nothing remembered is certain.
    #[error("etcd went back to revision {now} from {seen}: wiped, or restored from a backup")]
    Regressed {
        /// The highest revision seen before.
        seen: Revision,
        /// What it says now.
        now: Revision,
    },
    /// The server refuses this user, token or certificate.
    #[error("etcd refuses access: {0}")]
    Denied(String),
    /// The server does not offer this API, for example v2 on an etcd started
    /// without it.
    #[error("{0}")]
    Unsupported(String),
    /// Our own flags or files are wrong; no server was asked.
    #[error("{0}")]
    Setup(String),
    /// The server understood and said no. Trying the same again is pointless.
    #[error("etcd refuses the request: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the same request may succeed a moment later without anybody
    /// changing the configuration.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Compacted(_) | Self::Cut | Self::Regressed { .. }
        )
    }
}

/// A lifetime that keys can be bound to. With v3 a lease of the server; with v2,
/// where each key carries its own TTL, only the TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The v3 lease id; 0 with v2.
    pub id: i64,
    /// The lifetime the server granted, which may be longer than asked.
    pub ttl: Duration,
}

/// What must be true of a key for a guarded write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key is not there.
    Absent,
    /// The key has this value, whoever holds it.
    Value(Vec<u8>),
    /// The key is as we last wrote or refreshed it: with v3 bound to our lease,
    /// with v2 at the index of our last write or refresh.
    Ours(Ownership),
}

/// How a holder recognises its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The v3 lease it is bound to; 0 with v2.
    pub lease: i64,
    /// The revision of the last write (v3) or the last write or refresh (v2).
    pub modified: Revision,
}

/// The outcome of a guarded write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Done, at this revision.
    Done {
        /// The revision of the write.
        revision: Revision,
        /// How to recognise the key from now on.
        mark: Ownership,
    },
    /// Not done: the guard did not hold.
    Held {
        /// The key as it is, or that it is not there.
        by: Option<Entry>,
        /// The store's revision when it said so.
        revision: Revision,
    },
}

/// The outcome of a refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Time to live from the server's receipt of the request.
    pub ttl: Duration,
    /// The store's revision at the time.
    pub revision: Revision,
    /// For each key asked about, in the same order, what became of it.
    pub keys: Vec<KeyState>,
}

/// What a refresh found at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// Still ours, now recognised by this mark.
    Ours(Ownership),
    /// Not there any more.
    Missing,
    /// There, but written by somebody else.
    Foreign(Entry),
}

/// What a watch delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// Changes of one answer, in order.
    Changes(Vec<Change>),
    /// Nothing changed, and the watch is complete up to this revision.
    Progress(Revision),
}

/// A running watch. Dropping it ends it.
pub trait Watch: Send {
    /// Waits for the next event. May be dropped and called again; no event is lost.
    ///
    /// # Errors
    /// Every error ends the watch. [`StoreError::Compacted`] and
    /// [`StoreError::Regressed`] ask for a new read; any other, for a new watch
    /// from the last revision seen.
    fn next(&mut self) -> impl Future<Output = Result<WatchEvent, StoreError>> + Send;
}

/// etcd, as far as we need it. Clones share one connection.
pub trait Store: Clone + Send + Sync + 'static {
    /// The watch of this store.
    type Watch: Watch + 'static;

    /// Reads whole trees at one revision. With v2, several trees that are being
    /// written to may be ahead of the snapshot's revision; a watch from there still
    /// ends at the right picture.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn read(&self, trees: &[Tree]) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Watches one tree for changes after `after`.
    ///
    /// # Errors
    /// As [`StoreError`] says; a revision from the future is
    /// [`StoreError::Regressed`].
    fn watch(
        &self,
        tree: &Tree,
        after: Revision,
    ) -> impl Future<Output = Result<Self::Watch, StoreError>> + Send;

    /// Grants a lease.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn grant(&self, ttl: Ttl) -> impl Future<Output = Result<Lease, StoreError>> + Send;

    /// Refreshes a lease and the keys bound to it, without waking a watcher, and
    /// tells of each key whether it is still there and ours. `None`: the server
    /// does not know the lease any more, and its keys are gone; never with v2.
    ///
    /// With v2 a key may be told as [`KeyState::Foreign`] with our own value, when an
    /// earlier refresh was carried out but its answer was lost.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn renew(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
    ) -> impl Future<Output = Result<Option<Renewed>, StoreError>> + Send;

    /// Writes a key bound to a lease if the guard holds. `None`: the server does
    /// not know the lease any more; nothing was written.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
    ) -> impl Future<Output = Result<Option<WriteOutcome>, StoreError>> + Send;

    /// Deletes a key if the guard holds. A missing key is `Held { by: None, .. }`.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn delete(
        &self,
        key: &Key,
        guard: &Guard,
    ) -> impl Future<Output = Result<WriteOutcome, StoreError>> + Send;

    /// Ends a lease and with it every key bound to it. With v2 there is nothing to
    /// end; keys are deleted one by one.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn revoke(&self, lease: Lease) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Time to live left of a key's lease (v3) or of the key (v2); `None` for one
    /// without.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    fn time_left(
        &self,
        entry: &Entry,
    ) -> impl Future<Output = Result<Option<Duration>, StoreError>> + Send;
}
