//! etcd v3 over gRPC.
//!
//! One client per endpoint, asked until it fails; see [`Rotation`]. Nothing is
//! tried twice in here: a call ends by an answer or by an error, and the next call
//! goes to the next endpoint. Reads are linearizable.

mod answer;
mod error;
mod read;
mod secured;
mod watch;

pub use watch::V3Watch;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, KvClient, PutOptions, TlsOptions, Txn,
    TxnOp, TxnResponse,
};

use rustls::ClientConfig;

use self::answer::{first_entry, revision, revision_of, seconds, state, written};
use self::error::Failure;
use super::rotation::{Rotation, Seat};
use super::{Guard, Lease, Ownership, Renewed, Store, StoreError, WriteOutcome};
use crate::model::{Entry, Key, Revision, Snapshot, Tree, Ttl};

/// etcd's default for `--max-txn-ops`.
const MAX_OPS: usize = 128;

/// An answer larger than this is not taken. tonic's own bound of 4 MiB is less
/// than one page of large values, or one batch of events, can be.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// HTTP/2 pings notice a member that hangs or a cut line. Not more often than each
/// 5 s, or the server hangs up (`--grpc-keepalive-min-time`).
const PING: Duration = Duration::from_secs(10);
const PING_ANSWER: Duration = Duration::from_secs(5);

/// How servers are verified.
#[derive(Clone)]
pub(super) enum Tls {
    /// By the machine's roots.
    Native(TlsOptions),
    /// By the operator's CA.
    Own(ClientConfig),
}

/// What a client of any endpoint is made of.
pub(super) struct Settings {
    pub(super) user: Option<(String, String)>,
    pub(super) tls: Option<Tls>,
    /// The deadline of one request.
    pub(super) request: Duration,
    /// The deadline of one connection's making.
    pub(super) connect: Duration,
}

/// etcd v3. Clones share one connection.
#[derive(Clone)]
pub struct V3 {
    shared: Arc<Shared>,
}

struct Shared {
    rotation: Rotation,
    settings: Settings,
    client: Mutex<Option<Link>>,
}

/// A client and the endpoint it belongs to. Shared, because a client is large.
#[derive(Clone)]
struct Link {
    seat: Seat,
    client: Arc<Client>,
}

impl Link {
    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_ANSWER)
    }
}

impl V3 {
    pub(super) fn new(rotation: Rotation, settings: Settings) -> Self {
        Self { shared: Arc::new(Shared { rotation, settings, client: Mutex::default() }) }
    }

    /// Whether the server speaks v3 and lets us in.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let link = self.link().await?;
        // The one call that needs no permission and no leader.
        let mut client = link.client.maintenance_client();
        self.ask(&link.seat, async move { Ok(client.status().await?) }).await.map(|_| ())
    }

    /// The client of the endpoint whose turn it is, made if there is none yet.
    async fn link(&self) -> Result<Link, StoreError> {
        let seat = self.shared.rotation.seat().await?;
        let cache = || self.shared.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = cache().as_ref().filter(|link| link.seat.turn == seat.turn) {
            return Ok(link.clone());
        }
        let client = self.ask(&seat, Box::pin(self.connect(&seat))).await?;
        let link = Link { seat, client: Arc::new(client) };
        *cache() = Some(link.clone());
        Ok(link)
    }

    async fn connect(&self, seat: &Seat) -> Result<Client, Failure> {
        let Settings { user, tls, request, connect } = &self.shared.settings;
        let mut options = ConnectOptions::new()
            .with_connect_timeout((*connect).min(*request))
            .with_keep_alive(PING, PING_ANSWER)
            // The server takes pings without a request under way for an attack.
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        let secure = seat.url.scheme() == "https";
        let own = match tls.as_ref().filter(|_| secure) {
            Some(Tls::Native(native)) => {
                options = options.with_tls(native.clone());
                None
            }
            Some(Tls::Own(config)) => Some(config),
            None => None,
        };
        let open = |options| self.open(seat, own, options);
        let Some((name, password)) = user else { return open(options).await };
        let with_user = options.clone().with_user(name, password);
        match open(with_user).await {
            Err(Failure::AuthOff) => {
                tracing::warn!(
                    user = name,
                    "etcd has authentication switched off; going on without"
                );
                open(options).await
            }
            other => other,
        }
    }

    async fn open(
        &self,
        seat: &Seat,
        own: Option<&ClientConfig>,
        options: ConnectOptions,
    ) -> Result<Client, Failure> {
        let Some(config) = own else {
            return Ok(Client::connect([seat.url.as_str()], Some(options)).await?);
        };
        let Settings { request, connect, .. } = &self.shared.settings;
        let channel = secured::channel(&seat.url, config.clone(), (*connect).min(*request)).await?;
        Ok(Client::from_channel(channel, Some(options)).await?)
    }

    /// Awaits one request, within its deadline.
    async fn ask<T>(
        &self,
        seat: &Seat,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, StoreError> {
        // tonic's futures are several kilobytes each, and callers nest them.
        let request = Box::pin(async { request.await.map_err(StoreError::from) });
        let limit = self.shared.settings.request;
        let answer = self.shared.rotation.bounded(seat, limit, request).await;
        if let Err(StoreError::Denied(_)) = answer {
            // A new client brings a new token; the users may have changed.
            self.shared.rotation.leave(seat.turn);
        }
        answer
    }

    /// As [`V3::ask`], for a request that names a lease: `None` if the server does
    /// not know it.
    async fn ask_of_lease<T>(
        &self,
        seat: &Seat,
        request: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<Option<T>, StoreError> {
        let known = async {
            match request.await.map_err(Failure::from) {
                Ok(answer) => Ok(Some(answer)),
                Err(Failure::LeaseUnknown) => Ok(None),
                Err(failure) => Err(failure),
            }
        };
        self.ask(seat, known).await
    }
}

impl Store for V3 {
    type Watch = V3Watch;

    async fn read(&self, trees: &[Tree]) -> Result<Snapshot, StoreError> {
        read::read(self, trees).await
    }

    async fn watch(&self, tree: &Tree, after: Revision) -> Result<V3Watch, StoreError> {
        V3Watch::open(self.clone(), tree.clone(), after).await
    }

    async fn grant(&self, ttl: Ttl) -> Result<Lease, StoreError> {
        let link = self.link().await?;
        let secs = i64::try_from(ttl.secs()).unwrap_or(i64::MAX);
        let mut client = link.client.lease_client();
        let granted = async { Ok(client.grant(secs, None).await?) };
        let granted = self.ask(&link.seat, granted).await?;
        Ok(Lease { id: granted.id(), ttl: seconds(granted.ttl()) })
    }

    async fn renew(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
    ) -> Result<Option<Renewed>, StoreError> {
        let link = self.link().await?;
        // A stream for each refresh: it costs what a unary call costs, and leaves
        // no late answer behind that could be taken for a later one's. The first
        // answer is awaited in there; it repeats the TTL that was granted.
        let mut client = link.client.lease_client();
        let alive = client.keep_alive(lease.id);
        if self.ask_of_lease(&link.seat, alive).await?.is_none() {
            return Ok(None);
        }
        let mut states = Vec::with_capacity(keys.len());
        let mut revision = None;
        for some in keys.chunks(MAX_OPS) {
            let gets: Vec<_> = some.iter().map(|(key, _)| TxnOp::get(key.as_str(), None)).collect();
            let answer = self.txn(&link, Txn::new().and_then(gets)).await?;
            // The lowest is what all of them are true for.
            revision.get_or_insert(revision_of(&answer));
            let found = answer.op_responses().into_iter().map(first_entry);
            states.extend(found.map(|entry| state(entry, lease.id)));
        }
        let revision = match revision {
            Some(revision) => revision,
            None => revision_of(&self.txn(&link, Txn::new()).await?),
        };
        if states.len() != keys.len() {
            return Err(StoreError::Unreachable("an answer with keys left out".to_owned()));
        }
        Ok(Some(Renewed { ttl: lease.ttl, revision, keys: states }))
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
    ) -> Result<Option<WriteOutcome>, StoreError> {
        let link = self.link().await?;
        let options = PutOptions::new().with_lease(lease.id);
        let txn = Txn::new()
            .when(compares(key, guard))
            .and_then([TxnOp::put(key.as_str(), value, Some(options))])
            .or_else([TxnOp::get(key.as_str(), None)]);
        let mut kv = link.kv();
        let answer = self.ask_of_lease(&link.seat, kv.txn(txn)).await?;
        Ok(answer.map(|answer| written(&answer, lease.id)))
    }

    async fn delete(&self, key: &Key, guard: &Guard) -> Result<WriteOutcome, StoreError> {
        let link = self.link().await?;
        let mut compares = compares(key, guard);
        // Without it, deleting what is absent would be "done".
        compares.push(Compare::create_revision(key.as_str(), CompareOp::Greater, 0));
        let txn = Txn::new()
            .when(compares)
            .and_then([TxnOp::delete(key.as_str(), None)])
            .or_else([TxnOp::get(key.as_str(), None)]);
        Ok(written(&self.txn(&link, txn).await?, 0))
    }

    async fn revoke(&self, lease: Lease) -> Result<(), StoreError> {
        let link = self.link().await?;
        // Unknown is as good as ended.
        let mut client = link.client.lease_client();
        self.ask_of_lease(&link.seat, client.revoke(lease.id)).await.map(|_| ())
    }

    async fn time_left(&self, entry: &Entry) -> Result<Option<Duration>, StoreError> {
        if entry.lease == 0 {
            return Ok(None);
        }
        let link = self.link().await?;
        let mut client = link.client.lease_client();
        let asked = client.time_to_live(entry.lease, None);
        let answer = self.ask_of_lease(&link.seat, asked).await?;
        // -1 says that the lease is gone.
        Ok(Some(answer.map_or(Duration::ZERO, |answer| seconds(answer.ttl()))))
    }
}

impl V3 {
    async fn txn(&self, link: &Link, txn: Txn) -> Result<TxnResponse, StoreError> {
        let mut kv = link.kv();
        self.ask(&link.seat, async move { Ok(kv.txn(txn).await?) }).await
    }

    /// The store's revision, from a quorum. Asks for no more permission than a
    /// reader of the tree has.
    async fn revision(&self, link: &Link, tree: &Tree) -> Result<Revision, StoreError> {
        let mut kv = link.kv();
        let count = GetOptions::new().with_count_only();
        let answer = async move { Ok(kv.get(tree.path(), Some(count)).await?) };
        let answer = self.ask(&link.seat, answer).await?;
        Ok(answer.header().map_or_else(Revision::default, |h| revision(h.revision())))
    }
}

fn compares(key: &Key, guard: &Guard) -> Vec<Compare> {
    let key = key.as_str();
    match guard {
        Guard::Absent => vec![Compare::create_revision(key, CompareOp::Equal, 0)],
        Guard::Value(value) => vec![Compare::value(key, CompareOp::Equal, value.as_slice())],
        // A missing key has lease 0, so that alone would not do.
        Guard::Ours(mark) => vec![
            Compare::lease(key, CompareOp::Equal, mark.lease),
            Compare::create_revision(key, CompareOp::Greater, 0),
        ],
    }
}
