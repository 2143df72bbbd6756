//! Either etcd: which one is decided at [`connect`](super::connect), and nobody
//! above asks again.

use std::time::Duration;

use super::v2::{V2, V2Watch};
use super::v3::{V3, V3Watch};
use super::{Guard, Lease, Ownership, Renewed, Store, StoreError, Watch, WatchEvent, WriteOutcome};
use crate::model::{Entry, Key, Revision, Snapshot, Tree, Ttl};

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
    /// Of v3.
    V3(Box<V3Watch>),
    /// Of v2.
    V2(Box<V2Watch>),
}

impl Etcd {
    /// The API in use, `v3` or `v2`.
    #[must_use]
    pub fn api(&self) -> &'static str {
        match self {
            Self::V3(_) => "v3",
            Self::V2(_) => "v2",
        }
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        match self {
            Self::V3(watch) => watch.next().await,
            Self::V2(watch) => watch.next().await,
        }
    }
}

impl Store for Etcd {
    type Watch = EtcdWatch;

    async fn read(&self, trees: &[Tree]) -> Result<Snapshot, StoreError> {
        match self {
            Self::V3(store) => store.read(trees).await,
            Self::V2(store) => store.read(trees).await,
        }
    }

    async fn watch(&self, tree: &Tree, after: Revision) -> Result<EtcdWatch, StoreError> {
        Ok(match self {
            Self::V3(store) => EtcdWatch::V3(Box::new(store.watch(tree, after).await?)),
            Self::V2(store) => EtcdWatch::V2(Box::new(store.watch(tree, after).await?)),
        })
    }

    async fn grant(&self, ttl: Ttl) -> Result<Lease, StoreError> {
        match self {
            Self::V3(store) => store.grant(ttl).await,
            Self::V2(store) => store.grant(ttl).await,
        }
    }

    async fn renew(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
    ) -> Result<Option<Renewed>, StoreError> {
        match self {
            Self::V3(store) => store.renew(lease, keys).await,
            Self::V2(store) => store.renew(lease, keys).await,
        }
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
    ) -> Result<Option<WriteOutcome>, StoreError> {
        match self {
            Self::V3(store) => store.put(key, value, lease, guard).await,
            Self::V2(store) => store.put(key, value, lease, guard).await,
        }
    }

    async fn delete(&self, key: &Key, guard: &Guard) -> Result<WriteOutcome, StoreError> {
        match self {
            Self::V3(store) => store.delete(key, guard).await,
            Self::V2(store) => store.delete(key, guard).await,
        }
    }

    async fn revoke(&self, lease: Lease) -> Result<(), StoreError> {
        match self {
            Self::V3(store) => store.revoke(lease).await,
            Self::V2(store) => store.revoke(lease).await,
        }
    }

    async fn time_left(&self, entry: &Entry) -> Result<Option<Duration>, StoreError> {
        match self {
            Self::V3(store) => store.time_left(entry).await,
            Self::V2(store) => store.time_left(entry).await,
        }
    }
}
