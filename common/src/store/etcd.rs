//! etcd by either API: which one is decided by [`connect`](super::connect()), once.

use std::time::Duration;

use tokio::time::Instant;

use super::v2::{V2, V2Watch};
use super::v3::{V3, V3Watch};
use super::{
    DeleteOutcome, EntrySink, Guard, Lease, Ownership, PutOutcome, RefreshOutcome, Store,
    StoreError, Watch, WatchEvent,
};
use crate::model::{Entry, Key, ReadPoint, Revision, Snapshot, Tree, Ttl};

/// etcd by either API.
#[derive(Clone)]
pub enum Etcd {
    /// gRPC, etcd 3.0 and newer.
    V3(V3),
    /// `/v2/keys`, etcd before 3.0, or up to 3.5 with `--enable-v2`.
    V2(V2),
}

/// A running watch by either API.
pub enum EtcdWatch {
    V3(Box<V3Watch>),
    V2(Box<V2Watch>),
}

/// The same call on the client of either API.
macro_rules! on_either {
    ($etcd:expr, $store:ident => $call:expr) => {
        match $etcd {
            Self::V3($store) => $call,
            Self::V2($store) => $call,
        }
    };
}

impl Etcd {
    /// The API in use, `v3` or `v2`.
    pub fn api(&self) -> &'static str {
        match self {
            Self::V3(_) => "v3",
            Self::V2(_) => "v2",
        }
    }

    /// The version that the server reported, if its API has one.
    pub fn server_version(&self) -> Option<&str> {
        match self {
            Self::V3(store) => store.version(),
            Self::V2(_) => None,
        }
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        on_either!(self, watch => watch.next().await)
    }
}

impl Store for Etcd {
    type Watch = EtcdWatch;

    fn endpoint(&self) -> String {
        on_either!(self, store => store.endpoint())
    }

    async fn read(&self, trees: &[Tree], deadline: Instant) -> Result<Snapshot, StoreError> {
        on_either!(self, store => store.read(trees, deadline).await)
    }

    async fn read_into(
        &self,
        trees: &[Tree],
        into: &mut dyn EntrySink,
        deadline: Instant,
    ) -> Result<ReadPoint, StoreError> {
        on_either!(self, store => store.read_into(trees, into, deadline).await)
    }

    async fn read_again(
        &self,
        trees: &[Tree],
        known: &Snapshot,
        deadline: Instant,
    ) -> Result<Snapshot, StoreError> {
        on_either!(self, store => store.read_again(trees, known, deadline).await)
    }

    async fn watch(
        &self,
        trees: &[Tree],
        after: Revision,
        deadline: Instant,
    ) -> Result<EtcdWatch, StoreError> {
        Ok(match self {
            Self::V3(store) => EtcdWatch::V3(Box::new(store.watch(trees, after, deadline).await?)),
            Self::V2(store) => EtcdWatch::V2(Box::new(store.watch(trees, after, deadline).await?)),
        })
    }

    async fn grant(&self, ttl: Ttl, deadline: Instant) -> Result<Lease, StoreError> {
        on_either!(self, store => store.grant(ttl, deadline).await)
    }

    async fn refresh(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
        deadline: Instant,
    ) -> Result<RefreshOutcome, StoreError> {
        on_either!(self, store => store.refresh(lease, keys, deadline).await)
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<PutOutcome, StoreError> {
        on_either!(self, store => store.put(key, value, lease, guard, deadline).await)
    }

    async fn delete(
        &self,
        key: &Key,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<DeleteOutcome, StoreError> {
        on_either!(self, store => store.delete(key, guard, deadline).await)
    }

    async fn leave(
        &self,
        key: &Key,
        guard: &Guard,
        marker: (&Key, &[u8]),
        lease: Lease,
        trees: &[Tree],
        deadline: Instant,
    ) -> Result<(DeleteOutcome, Option<Snapshot>), StoreError> {
        on_either!(self, store => store.leave(key, guard, marker, lease, trees, deadline).await)
    }

    async fn revoke(&self, lease: Lease, deadline: Instant) -> Result<(), StoreError> {
        on_either!(self, store => store.revoke(lease, deadline).await)
    }

    async fn time_left(
        &self,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<Option<Duration>, StoreError> {
        on_either!(self, store => store.time_left(entry, deadline).await)
    }
}
