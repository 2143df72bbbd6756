//! etcd v2 over HTTP (`/v2/keys`), as CoreOS had it in 2014 and etcd 3.0 to 3.5 offers it with
//! `--enable-v2`.
//!
//! There are no leases: each key carries its own TTL, and a [`Lease`] is only that TTL. A lease
//! holder recognises its key by the index of its last write or refresh, because each refresh
//! moves `modifiedIndex`. Directories are no entries; hidden keys (`_x`) are left out by the
//! server. Reads are quorum reads; with etcd 0.4, whose quorum reads lack the store's index, reads
//! from the leader.

mod guarded;
mod http;
mod member;
mod refresh;
mod request;
mod watch;
mod wire;

pub use watch::V2Watch;
pub(crate) use wire::v2_answer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method};
use tokio::time::Instant;

use self::guarded::{GuardedWrite, Obstacle, text};
use self::member::PresentMember;
use self::wire::KeyReply;
use super::endpoints::Endpoints;
use super::user::User;
use super::{
    DeleteOutcome, Guard, Lease, Ownership, PutOutcome, RefreshOutcome, Store, StoreError,
};
use crate::model::{Entry, Key, Revision, Snapshot, Tree, Ttl};

/// How many requests of one refresh of many keys are sent at once.
const AT_ONCE: usize = 16;

/// How often several trees are read again in the hope of one index for all.
const READ_ATTEMPTS: usize = 3;

/// What every request is made with.
pub(super) struct V2Settings {
    pub(super) client: Client,
    pub(super) user: Option<Arc<User>>,
}

/// etcd v2. Clones share one pool of connections.
#[derive(Clone)]
pub struct V2 {
    shared: Arc<V2Shared>,
}

struct V2Shared {
    endpoints: Endpoints,
    settings: V2Settings,
    /// The index of the last answer.
    last_index: AtomicU64,
    member: PresentMember,
    /// The values of our keys, as they are meant to be.
    written: Mutex<BTreeMap<Key, Vec<u8>>>,
}

impl V2 {
    pub(super) fn new(endpoints: Endpoints, settings: V2Settings) -> Self {
        let shared = V2Shared {
            endpoints,
            settings,
            last_index: AtomicU64::default(),
            member: PresentMember::default(),
            written: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<u8>>> {
        self.shared.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's index by quorum, from a key that does not exist. Asks for no more permission
    /// than a reader of the tree has, and its answer is small.
    async fn index(&self, tree: &Tree, deadline: Instant) -> Result<Revision, StoreError> {
        let path = format!("{}/_", tree.path().trim_end_matches('/'));
        self.entry(&path, deadline).await.map(|(_, index)| index)
    }

    async fn read_tree(
        &self,
        tree: &Tree,
        into: &mut Snapshot,
        deadline: Instant,
    ) -> Result<Revision, StoreError> {
        let params = vec![("recursive", "true")];
        let (reply, headers) = self.ask(Method::GET, tree.path(), &params, deadline).await?;
        if let KeyReply::Done(event) = reply {
            event.node.collect(into);
        }
        into.cluster = headers.cluster;
        Ok(headers.index)
    }
}

impl Store for V2 {
    type Watch = V2Watch;

    fn endpoint(&self) -> String {
        self.shared.endpoints.current()
    }

    /// Several trees are several requests. They are repeated until no index moved between
    /// them; failing that, the lowest index is the snapshot's revision. A watch from there
    /// delivers again what some trees already show, in order, so it ends at the right snapshot;
    /// nothing is left out.
    async fn read(&self, trees: &[Tree], deadline: Instant) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::default();
        for _ in 0..READ_ATTEMPTS {
            snapshot = Snapshot::default();
            let (mut low, mut high) = (Revision(u64::MAX), Revision(0));
            for tree in trees {
                let index = self.read_tree(tree, &mut snapshot, deadline).await?;
                (low, high) = (low.min(index), high.max(index));
            }
            snapshot.revision = low.min(high);
            if low >= high {
                break;
            }
        }
        Ok(snapshot)
    }

    async fn watch(
        &self,
        trees: &[Tree],
        after: Revision,
        deadline: Instant,
    ) -> Result<V2Watch, StoreError> {
        V2Watch::open(self, trees, after, deadline).await
    }

    async fn grant(&self, ttl: Ttl, _: Instant) -> Result<Lease, StoreError> {
        Ok(Lease { id: 0, ttl: ttl.span() })
    }

    async fn refresh(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
        deadline: Instant,
    ) -> Result<RefreshOutcome, StoreError> {
        let each: Vec<_> = keys
            .iter()
            .map(|(key, ownership)| self.refresh_key(key, *ownership, lease.ttl, deadline))
            .collect();
        let done: Vec<_> = stream::iter(each).buffered(AT_ONCE).try_collect().await?;
        let lowest = done.iter().map(|(_, index)| *index).min();
        // Without keys there is nothing to ask, and perhaps no key that may be read.
        let last = || Revision(self.shared.last_index.load(Ordering::Relaxed));
        let revision = lowest.unwrap_or_else(last);
        let keys = done.into_iter().map(|(state, _)| state).collect();
        Ok(RefreshOutcome::Refreshed { revision, keys })
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<PutOutcome, StoreError> {
        let ttl = lease.ttl.as_secs().to_string();
        let params = vec![("value", text(value)?), ("ttl", ttl.as_str())];
        Ok(match self.guarded(Method::PUT, key, params, guard, deadline).await? {
            GuardedWrite::Done(modified) => {
                self.written().insert(key.clone(), value.to_vec());
                PutOutcome::Written(Ownership { lease: 0, modified })
            }
            GuardedWrite::Stopped(Obstacle { entry: Some(by), revision }) => {
                PutOutcome::Taken { by, revision }
            }
            GuardedWrite::Stopped(Obstacle { entry: None, revision }) => {
                PutOutcome::Missing { revision }
            }
        })
    }

    async fn delete(
        &self,
        key: &Key,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<DeleteOutcome, StoreError> {
        Ok(match self.guarded(Method::DELETE, key, Vec::new(), guard, deadline).await? {
            GuardedWrite::Done(revision) => {
                self.written().remove(key);
                DeleteOutcome::Deleted(revision)
            }
            GuardedWrite::Stopped(Obstacle { entry: Some(by), revision }) => {
                DeleteOutcome::Taken { by, revision }
            }
            GuardedWrite::Stopped(Obstacle { entry: None, revision }) => {
                DeleteOutcome::Missing(revision)
            }
        })
    }

    async fn revoke(&self, _: Lease, _: Instant) -> Result<(), StoreError> {
        Ok(())
    }

    async fn time_left(
        &self,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<Option<Duration>, StoreError> {
        Ok(match self.entry(&entry.key, deadline).await?.0 {
            Some(now) => now.ttl,
            None => Some(Duration::ZERO),
        })
    }
}
