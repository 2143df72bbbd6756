//! etcd v3 over gRPC.
//!
//! One client for the current endpoint, used until it fails; see [`Endpoints`]. No request is
//! repeated in here: a call ends by an answer or by an error, and the next call goes to the next
//! endpoint. Reads are linearizable.

mod answer;
mod channel;
mod error;
mod link;
mod read;
mod read_again;
mod watch;

pub use watch::V3Watch;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnResponse};

use rustls::ClientConfig;
use tokio::time::Instant;

use self::answer::{deleted, first_entry, key_state, revision, revision_of, seconds, written};
use self::error::{Failure, of_write};
use self::link::Link;
use super::endpoints::Endpoints;
use super::user::User;
use super::{
    DeleteOutcome, EntrySink, Guard, Lease, Ownership, PutOutcome, RefreshOutcome, Store,
    StoreError,
};
use crate::model::{Entry, Key, ReadPoint, Revision, Snapshot, Tree, Ttl};

/// etcd's default for `--max-txn-ops`.
const MAX_OPS: usize = 128;

/// HTTP/2 pings notice a member that hangs, or a dead connection. Not more often than every 5 s,
/// or the server closes the connection (`--grpc-keepalive-min-time`).
const PING: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);

/// What a client of any endpoint is made of.
pub(super) struct V3Settings {
    pub(super) user: Option<Arc<User>>,
    pub(super) tls: ClientConfig,
    /// How long making a connection may take.
    pub(super) connect: Duration,
}

/// etcd v3. Clones share one connection.
#[derive(Clone)]
pub struct V3 {
    shared: Arc<V3Shared>,
}

struct V3Shared {
    endpoints: Endpoints,
    settings: V3Settings,
    client: Mutex<Option<Link>>,
    /// What the first server that answered reported.
    version: OnceLock<String>,
}

impl V3 {
    pub(super) fn new(endpoints: Endpoints, settings: V3Settings) -> Self {
        Self {
            shared: Arc::new(V3Shared {
                endpoints,
                settings,
                client: Mutex::default(),
                version: OnceLock::new(),
            }),
        }
    }

    /// What the server that answered first reported.
    pub(super) fn version(&self) -> Option<&str> {
        self.shared.version.get().map(String::as_str)
    }

    /// Whether the server has v3 and knows this user.
    pub(super) async fn probe(&self, deadline: Instant) -> Result<(), StoreError> {
        let link = self.link(deadline).await?;
        // The one call that needs no leader, and before 3.5.30 no permission. Whether a user may do
        // what is asked of it shows when it is asked.
        let mut client = link.client.maintenance_client();
        match self.call(&link.endpoint, deadline, client.status()).await.map_err(StoreError::from) {
            Ok(status) => drop(self.shared.version.set(status.version().to_owned())),
            Err(StoreError::Denied(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// How many keys there are by the name of a tree without its leading slash.
    pub(super) async fn count_without_slash(
        &self,
        tree: &Tree,
        deadline: Instant,
    ) -> Result<i64, StoreError> {
        let mut sum = 0;
        for (from, options) in read::without_slash(tree) {
            let link = self.link(deadline).await?;
            let mut kv = link.kv();
            let answer = self.call(&link.endpoint, deadline, kv.get(from, Some(options))).await?;
            sum += answer.count();
        }
        Ok(sum)
    }

    async fn txn(&self, link: &Link, txn: Txn, deadline: Instant) -> Result<TxnResponse, Failure> {
        let mut kv = link.kv();
        self.call(&link.endpoint, deadline, kv.txn(txn)).await
    }

    /// Deletes a key if the guard holds, and does `also` in the same transaction, after it.
    async fn delete_with(
        &self,
        key: &Key,
        guard: &Guard,
        also: Vec<TxnOp>,
        deadline: Instant,
    ) -> Result<TxnResponse, Failure> {
        let link = self.link(deadline).await.map_err(Failure::Store)?;
        let mut compares = compares(key, guard);
        // Without it, deleting a missing key would succeed.
        compares.push(Compare::create_revision(key.as_str(), CompareOp::Greater, 0));
        let mut operations = vec![TxnOp::delete(key.as_str(), None)];
        operations.extend(also);
        let txn = Txn::new()
            .when(compares)
            .and_then(operations)
            .or_else([TxnOp::get(key.as_str(), None)]);
        self.txn(&link, txn, deadline).await
    }

    /// The store's revision, from a quorum. Asks for no more permission than a reader of the
    /// tree has.
    async fn revision(
        &self,
        link: &Link,
        tree: &Tree,
        deadline: Instant,
    ) -> Result<Revision, StoreError> {
        let mut kv = link.kv();
        let count = GetOptions::new().with_count_only();
        let answer = kv.get(watch::first_key(tree), Some(count));
        let answer = self.call(&link.endpoint, deadline, answer).await?;
        Ok(answer.header().map_or_else(Revision::default, |h| revision(h.revision())))
    }
}

impl Store for V3 {
    type Watch = V3Watch;

    fn endpoint(&self) -> String {
        self.shared.endpoints.current()
    }

    async fn read(&self, trees: &[Tree], deadline: Instant) -> Result<Snapshot, StoreError> {
        read::read(self, trees, deadline).await
    }

    async fn read_into(
        &self,
        trees: &[Tree],
        into: &mut dyn EntrySink,
        deadline: Instant,
    ) -> Result<ReadPoint, StoreError> {
        read::read_into(self, trees, into, deadline).await
    }

    async fn read_again(
        &self,
        trees: &[Tree],
        known: &Snapshot,
        deadline: Instant,
    ) -> Result<Snapshot, StoreError> {
        read_again::read_again(self, trees, known, deadline).await
    }

    async fn watch(
        &self,
        trees: &[Tree],
        after: Revision,
        deadline: Instant,
    ) -> Result<V3Watch, StoreError> {
        V3Watch::open(self.clone(), trees, after, deadline).await
    }

    async fn grant(&self, ttl: Ttl, deadline: Instant) -> Result<Lease, StoreError> {
        let link = self.link(deadline).await?;
        let secs = i64::try_from(ttl.secs()).unwrap_or(i64::MAX);
        let mut client = link.client.lease_client();
        let granted = self.call(&link.endpoint, deadline, client.grant(secs, None)).await?;
        Ok(Lease { id: granted.id(), ttl: seconds(granted.ttl()) })
    }

    async fn refresh(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
        deadline: Instant,
    ) -> Result<RefreshOutcome, StoreError> {
        let link = self.link(deadline).await?;
        // A stream for each refresh: it costs what a unary call costs, and leaves no late
        // answer behind that could be taken for a later one's. The first answer is awaited in
        // there.
        let mut client = link.client.lease_client();
        match self.call(&link.endpoint, deadline, client.keep_alive(lease.id)).await {
            Ok(_) => {}
            Err(Failure::LeaseUnknown) => return Ok(RefreshOutcome::LeaseLost),
            Err(failure) => return Err(failure.into()),
        }
        let mut states = Vec::with_capacity(keys.len());
        let mut revision = None;
        for some in keys.chunks(MAX_OPS) {
            let gets: Vec<_> = some.iter().map(|(key, _)| TxnOp::get(key.as_str(), None)).collect();
            let answer = self.txn(&link, Txn::new().and_then(gets), deadline).await?;
            // The lowest is true for all of them.
            revision.get_or_insert(revision_of(&answer));
            let found = answer.op_responses().into_iter().map(first_entry);
            states.extend(found.map(|entry| key_state(entry, lease.id)));
        }
        let revision = match revision {
            Some(revision) => revision,
            None => revision_of(&self.txn(&link, Txn::new(), deadline).await?),
        };
        if states.len() != keys.len() {
            return Err(StoreError::Unreachable("keys are missing in the answer".to_owned()));
        }
        Ok(RefreshOutcome::Refreshed { revision, keys: states })
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<PutOutcome, StoreError> {
        let link = self.link(deadline).await?;
        let options = PutOptions::new().with_lease(lease.id);
        let txn = Txn::new()
            .when(compares(key, guard))
            .and_then([TxnOp::put(key.as_str(), value, Some(options))])
            .or_else([TxnOp::get(key.as_str(), None)]);
        match self.txn(&link, txn, deadline).await {
            Ok(answer) => Ok(written(&answer, lease.id)),
            Err(Failure::LeaseUnknown) => Ok(PutOutcome::LeaseLost),
            Err(failure) => Err(of_write(key, failure)),
        }
    }

    async fn delete(
        &self,
        key: &Key,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<DeleteOutcome, StoreError> {
        match self.delete_with(key, guard, Vec::new(), deadline).await {
            Ok(answer) => Ok(deleted(&answer)),
            Err(failure) => Err(of_write(key, failure)),
        }
    }

    async fn leave(
        &self,
        key: &Key,
        guard: &Guard,
        (marker, value): (&Key, &[u8]),
        lease: Lease,
        trees: &[Tree],
        deadline: Instant,
    ) -> Result<(DeleteOutcome, Option<Snapshot>), StoreError> {
        let options = PutOptions::new().with_lease(lease.id);
        let marker = TxnOp::put(marker.as_str(), value, Some(options));
        let also = [marker].into_iter().chain(read::whole(trees)).collect();
        match self.delete_with(key, guard, also, deadline).await {
            // With the lease went all that was bound to it; another's key may be there.
            Err(Failure::LeaseUnknown) => Ok((self.delete(key, guard, deadline).await?, None)),
            answer => {
                let answer = answer?;
                Ok((deleted(&answer), read::of_answer(&answer, trees)))
            }
        }
    }

    async fn revoke(&self, lease: Lease, deadline: Instant) -> Result<(), StoreError> {
        let link = self.link(deadline).await?;
        let mut client = link.client.lease_client();
        match self.call(&link.endpoint, deadline, client.revoke(lease.id)).await {
            Ok(_) | Err(Failure::LeaseUnknown) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn time_left(
        &self,
        entry: &Entry,
        deadline: Instant,
    ) -> Result<Option<Duration>, StoreError> {
        if entry.lease == 0 {
            return Ok(None);
        }
        let link = self.link(deadline).await?;
        let mut client = link.client.lease_client();
        match self.call(&link.endpoint, deadline, client.time_to_live(entry.lease, None)).await {
            // -1 for a lease that has ended.
            Ok(answer) => Ok(Some(seconds(answer.ttl()))),
            Err(Failure::LeaseUnknown) => Ok(Some(Duration::ZERO)),
            Err(failure) => Err(failure.into()),
        }
    }
}

fn compares(key: &Key, guard: &Guard) -> Vec<Compare> {
    let key = key.as_str();
    match guard {
        Guard::Absent => vec![Compare::create_revision(key, CompareOp::Equal, 0)],
        Guard::Value(value) => vec![Compare::value(key, CompareOp::Equal, value.as_slice())],
        // A missing key has lease 0, so that alone would not do.
        Guard::Ours(ours) => vec![
            Compare::lease(key, CompareOp::Equal, ours.lease),
            Compare::create_revision(key, CompareOp::Greater, 0),
        ],
    }
}
