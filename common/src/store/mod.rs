//! etcd behind one trait, with three implementations (v3, v2, memory) that one contract
//! suite tests.
//!
//! What must hold for each of them:
//! * a read shows one revision, linearizable;
//! * a watch from revision R+1 delivers every change after R, in order, or ends with an
//!   error that says to read again;
//! * a guarded write happens whole or not at all, and its outcome says what was found
//!   instead;
//! * refreshing a key wakes no watcher;
//! * every call ends by its deadline, by an answer or by a [`StoreError`].
//!
//! It knows nothing of who writes a key or why (see [`crate::claim`]). Its errors name flags only
//! of [`crate::settings::etcd`], which both daemons have.

mod connect;
mod discovery;
mod elsewhere;
mod endpoints;
mod etcd;
#[cfg(any(test, feature = "memory"))]
pub mod memory;
mod reason;
mod user;
mod v2;
mod v3;
mod version;

pub use connect::{Api, Connection, Timeouts, check_endpoint, connect};
pub use elsewhere::{Elsewhere, look_elsewhere};
pub use etcd::{Etcd, EtcdWatch};
#[cfg(any(test, feature = "memory"))]
pub use memory::{Memory, Rights};
pub use user::{Credentials, Password};
pub(crate) use v2::v2_answer;
pub use v2::{V2, V2Watch};
pub use v3::{V3, V3Watch};

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Change, Entry, Key, ReadPoint, Revision, Snapshot, Tree, Ttl};

/// How long a request may take where its caller has no reason for another bound.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a read of whole trees may take: it may be many requests, each bounded by itself.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes the entries of a read while it goes on.
pub trait EntrySink: Send {
    /// A read begins, or begins again: what was taken before counts for nothing.
    fn begin(&mut self);

    fn take(&mut self, entry: Entry);
}

/// The deadline of a read that begins now, with [`READ_TIMEOUT`].
pub fn read_deadline() -> Instant {
    Instant::now() + READ_TIMEOUT
}

/// The deadline of a request that begins now, with [`REQUEST_TIMEOUT`].
pub fn default_deadline() -> Instant {
    Instant::now() + REQUEST_TIMEOUT
}

/// Why a request to etcd failed. The variants are what callers decide by; the texts are for
/// operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No answer, or none that can be relied on: no connection, a deadline, a stream that was
    /// cut. The same request may succeed a moment later.
    #[error("etcd is not reachable: {0}")]
    Unreachable(String),
    /// The cluster has lost the majority of its members: nothing is answered, no write is
    /// possible, and no lease ends. v2 does not distinguish this from a slow member.
    #[error("etcd is not reachable: {0}")]
    NoQuorum(String),
    /// The history asked for is no longer kept (v3 compaction, v2 error 401). Read again and
    /// watch from there.
    #[error("etcd no longer has the history after revision {0}")]
    Compacted(Revision),
    /// A watch was cut after it had worked for a while. The server may have been replaced
    /// meanwhile, also by one with another history of the same length; so everything is read
    /// again, at once.
    #[error("the watch was interrupted")]
    Interrupted,
    /// The store's revision is lower than one seen before. Read again; nothing remembered is
    /// certain.
    #[error("etcd's revision fell from {seen} to {now}: it was wiped, or restored from a backup")]
    Regressed {
        /// The highest revision seen before.
        seen: Revision,
        /// The revision of this answer.
        now: Revision,
    },
    /// The server refuses this user, token or certificate, or the user lacks a permission.
    #[error("etcd refuses access: {0}")]
    Denied(String),
    /// The server does not offer this API, for example v2 on an etcd started without it.
    #[error("{0}")]
    Unsupported(String),
    /// A file of ours (a CA, a certificate, a password) cannot be used; no server was asked.
    #[error("{0}")]
    Setup(String),
    /// The server has no space for a write. It goes on to answer reads, to refresh leases and to
    /// delete.
    #[error("etcd has no space left: {0}")]
    NoSpace(String),
    /// The server understood the request and rejected it.
    #[error("etcd rejects the request: {0}")]
    Rejected(String),
}

impl StoreError {
    /// Whether there was no answer: whatever was asked may have been done.
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::NoQuorum(_))
    }

    /// Whether the same request may succeed a moment later without any change to a user, a
    /// permission, a file or the server.
    pub fn is_transient(&self) -> bool {
        self.is_unanswered()
            || matches!(self, Self::Compacted(_) | Self::Interrupted | Self::Regressed { .. })
    }
}

/// A lifetime that keys can be bound to. With v3 a lease of the server; with v2, where each
/// key has a TTL of its own, only that TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The v3 lease id; 0 with v2.
    pub id: i64,
    /// The lifetime that the server granted, which may be longer than asked.
    pub ttl: Duration,
}

/// What must be true of a key for a guarded write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist.
    Absent,
    /// The key has this value, whatever lease it is bound to.
    Value(Vec<u8>),
    /// The key is as we last wrote or refreshed it: with v3 bound to our lease, with v2 at
    /// the index of our last write or refresh.
    Ours(Ownership),
}

/// How a lease holder recognises its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The v3 lease that the key is bound to; 0 with v2.
    pub lease: i64,
    /// The revision of the last write (v3), or of the last write or refresh (v2).
    pub modified: Revision,
}

/// The outcome of a guarded put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// Written; the revision is `modified`.
    Written(Ownership),
    /// Not written: the guard did not hold, because the key is this entry.
    Taken {
        /// The key as it is.
        by: Entry,
        /// The store's revision at the time.
        revision: Revision,
    },
    /// Not written: the guard did not hold, because there is no such key.
    Missing {
        /// The store's revision at the time.
        revision: Revision,
    },
    /// Not written: the server does not know the lease any more, and its keys are gone.
    /// Never with v2.
    LeaseLost,
}

/// The outcome of a guarded delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// Deleted at this revision.
    Deleted(Revision),
    /// There was no such key at this revision.
    Missing(Revision),
    /// Not deleted: the guard did not hold, because the key is this entry.
    Taken {
        /// The key as it is.
        by: Entry,
        /// The store's revision at the time.
        revision: Revision,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The lease lives on.
    Refreshed {
        /// The store's revision at the time.
        revision: Revision,
        /// For each key asked about, in the same order, what became of it.
        keys: Vec<KeyState>,
    },
    /// The server does not know the lease any more, and its keys are gone. Never with v2.
    LeaseLost,
}

/// What a refresh found at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// Still ours, and from now on recognised by this.
    Ours(Ownership),
    /// It does not exist any more.
    Missing,
    /// It was written by another process. With v2 this may be our own value, when an earlier
    /// refresh was carried out but its answer was lost.
    Foreign(Entry),
}

/// What a watch delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// All changes up to the revision of the last one, in order.
    Changes(Vec<Change>),
    /// Changes in order, and perhaps not all of them: the trees are to be read again. Never of a
    /// single tree.
    Partial(Vec<Change>),
    /// Nothing changed, and the watch is complete up to this revision.
    Progress(Revision),
}

/// A running watch. Dropping it ends it.
pub trait Watch: Send {
    /// Waits for the next event, however long that takes. May be dropped and called again;
    /// no event is lost.
    ///
    /// # Errors
    /// Every error ends the watch. [`StoreError::Compacted`], [`StoreError::Interrupted`] and
    /// [`StoreError::Regressed`] ask for a new read; any other, for a new watch from the last
    /// revision seen.
    fn next(&mut self) -> impl Future<Output = Result<WatchEvent, StoreError>> + Send;
}

/// etcd, as far as it is needed here. Clones share one connection.
///
/// Each call ends at `deadline` at the latest, by [`StoreError::Unreachable`]; then, and at
/// any other failure to answer, the next call goes to the next endpoint. No single request
/// waits longer than [`Timeouts::request`] for one endpoint, however far away the deadline is.
pub trait Store: Clone + Send + Sync + 'static {
    /// The watch of this store.
    type Watch: Watch + 'static;

    /// `host:port` of the endpoint that is asked now; nothing for a store that is not asked over
    /// the network.
    fn endpoint(&self) -> String {
        String::new()
    }

    /// Reads whole trees at one revision. With v2, several trees that are being written to
    /// may be ahead of the snapshot's revision; a watch from there still ends at the right
    /// snapshot.
    fn read(
        &self,
        trees: &[Tree],
        deadline: Instant,
    ) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// Reads whole trees as [`read`](Self::read) does, and hands over each entry as it arrives: what
    /// is made of the first ones is made while the others are waited for. An entry of trees that
    /// overlap comes once for each.
    fn read_into(
        &self,
        trees: &[Tree],
        into: &mut dyn EntrySink,
        deadline: Instant,
    ) -> impl Future<Output = Result<ReadPoint, StoreError>> + Send {
        async move {
            let snapshot = self.read(trees, deadline).await?;
            into.begin();
            let Snapshot { revision, cluster, entries } = snapshot;
            entries.into_iter().for_each(|(_, entry)| into.take(entry));
            Ok(ReadPoint { revision, cluster })
        }
    }

    /// Reads trees that were read before: `known` is what they were, but for keys that are known
    /// to be gone since. The answer is that of [`read`](Self::read); if the store can list what has
    /// changed, only that is read.
    fn read_again(
        &self,
        trees: &[Tree],
        known: &Snapshot,
        deadline: Instant,
    ) -> impl Future<Output = Result<Snapshot, StoreError>> + Send {
        let _ = known;
        self.read(trees, deadline)
    }

    /// Watches trees for changes after `after`. The deadline is for the start of the watch. A
    /// revision of the future is [`StoreError::Regressed`].
    fn watch(
        &self,
        trees: &[Tree],
        after: Revision,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Watch, StoreError>> + Send;

    /// Grants a lease.
    fn grant(
        &self,
        ttl: Ttl,
        deadline: Instant,
    ) -> impl Future<Output = Result<Lease, StoreError>> + Send;

    /// Refreshes a lease and the keys bound to it, without waking a watcher, and says of each
    /// key whether it is still there and ours.
    fn refresh(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
        deadline: Instant,
    ) -> impl Future<Output = Result<RefreshOutcome, StoreError>> + Send;

    /// Writes a key bound to a lease if the guard holds.
    fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
        deadline: Instant,
    ) -> impl Future<Output = Result<PutOutcome, StoreError>> + Send;

    /// Deletes a key if the guard holds.
    fn delete(
        &self,
        key: &Key,
        guard: &Guard,
        deadline: Instant,
    ) -> impl Future<Output = Result<DeleteOutcome, StoreError>> + Send;

    /// Deletes a key if the guard holds, and with it writes `marker`, bound to a lease: in one
    /// transaction, so that no reader sees one without the other. Without transactions (v2)
    /// the marker comes first, whether the guard holds or not.
    ///
    /// What `trees` hold at the revision of the deletion is read in the same transaction, if
    /// there are transactions and the key was deleted.
    fn leave(
        &self,
        key: &Key,
        guard: &Guard,
        marker: (&Key, &[u8]),
        lease: Lease,
        trees: &[Tree],
        deadline: Instant,
    ) -> impl Future<Output = Result<(DeleteOutcome, Option<Snapshot>), StoreError>> + Send {
        let _ = trees;
        async move {
            self.put(marker.0, marker.1, lease, &Guard::Absent, deadline).await?;
            Ok((self.delete(key, guard, deadline).await?, None))
        }
    }

    /// Ends a lease and with it every key bound to it. With v2 there is nothing to end; keys
    /// are deleted one by one.
    fn revoke(
        &self,
        lease: Lease,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is left of the lifetime of a key's lease (v3) or of the key (v2); `None` for a
    /// key without one. etcd 3.0 cannot say it: [`StoreError::Unsupported`].
    fn time_left(
        &self,
        entry: &Entry,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Duration>, StoreError>> + Send;
}
