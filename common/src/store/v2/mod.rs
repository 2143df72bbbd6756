//! etcd v2 over HTTP (`/v2/keys`), as CoreOS had it in 2014 and etcd 3.0 to 3.5 offers it with
//! `--enable-v2`.
//!
//! There are no leases: each key carries its own TTL, and a [`Lease`] is only that TTL. A lease
//! holder recognises its key by the index of its last write or refresh, because each refresh
//! moves `modifiedIndex`. Directories are no entries; hidden keys (`_x`) are left out by the
//! server. Reads are quorum reads; with etcd 0.4, whose quorum reads lack the store's index, reads
//! from the leader.

mod http;
mod member;
mod refresh;
mod watch;
mod wire;

pub use watch::V2Watch;
pub(crate) use wire::v2_answer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method, RequestBuilder};
use tokio::time::{Instant, timeout};
use url::Url;

use self::http::{key_url, receive};
use self::member::PresentMember;
use self::wire::{HttpReply, KeyReply, NOT_A_DIRECTORY};
use super::connect::User;
use super::endpoints::{EndpointChoice, Endpoints};
use super::version::ServerVersion;
use super::{
    DeleteOutcome, Guard, Lease, Ownership, PutOutcome, REQUEST_TIMEOUT, RefreshOutcome, Store,
    StoreError,
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

/// The headers of an answer that are about the store.
struct StoreHeaders {
    index: Revision,
    cluster: u64,
}

/// What a guarded write found in place of what its guard asks for.
struct Obstacle {
    entry: Option<Entry>,
    revision: Revision,
}

type Params<'p> = Vec<(&'static str, &'p str)>;

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

    /// `host:port` of the endpoint that is asked now.
    pub(super) fn endpoint(&self) -> String {
        self.shared.endpoints.current()
    }

    /// Whether the server offers v2. Asks for something that needs no permission.
    pub(super) async fn probe(&self, deadline: Instant) -> Result<(), StoreError> {
        let endpoint = self.shared.endpoints.choose().await?;
        let mut url = endpoint.url.clone();
        url.set_path("/v2/machines");
        let request = receive(self.request(Method::GET, url)?);
        let reply = self.shared.endpoints.bounded(&endpoint, deadline, request).await?;
        match reply.status {
            // `http://127.0.0.1:4001, http://…`: many a server answers 200 to anything.
            200 if reply.body.starts_with(b"http") || reply.body.is_empty() => Ok(()),
            200 => Err(StoreError::Unreachable(format!(
                "{}: the server there does not answer as etcd does; is the port right?",
                endpoint.name()
            ))),
            _ => reply.read().map(|_| ()),
        }
    }

    fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, StoreError> {
        let request = self.shared.settings.client.request(method, url);
        Ok(match &self.shared.settings.user {
            Some(user) => request.basic_auth(&user.name, Some(user.password()?)),
            None => request,
        })
    }

    /// What makes a read linearizable.
    async fn linearizable(
        &self,
        endpoint: &EndpointChoice,
        deadline: Instant,
    ) -> (&'static str, &'static str) {
        let member = &self.shared.member;
        let old = match member.old_reads(endpoint) {
            Some(old) => old,
            None => {
                let limit = deadline.saturating_duration_since(Instant::now()) / 2;
                let client = &self.shared.settings.client;
                let version = ServerVersion::ask(client, &endpoint.url, limit).await;
                // Without an answer, the read itself reports what is wrong.
                let old = version.as_ref().is_ok_and(|version| version.major == Some(0));
                if version.is_ok() {
                    member.record_old_reads(endpoint, old);
                }
                old
            }
        };
        // To the leader, or by quorum.
        if old { ("consistent", "true") } else { ("quorum", "true") }
    }

    /// One request to the current endpoint; a GET reads linearizably.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        params: &Params<'_>,
        deadline: Instant,
    ) -> Result<(KeyReply, StoreHeaders), StoreError> {
        let endpoint = self.shared.endpoints.choose().await?;
        let url = key_url(&endpoint.url, path);
        let linearizable = match method {
            Method::GET => Some(self.linearizable(&endpoint, deadline).await),
            _ => None,
        };
        let form = method == Method::PUT;
        let request = self.request(method, url)?.query(linearizable.as_slice());
        let request = if form { request.form(params) } else { request.query(params) };
        let answer = async {
            let reply = receive(request).await?;
            let read = reply.read()?;
            Ok((read, StoreHeaders { index: reply.index()?, cluster: reply.cluster }))
        };
        let answer = self.shared.endpoints.bounded(&endpoint, deadline, answer).await?;
        self.shared.last_index.store(answer.1.index.0, Ordering::Relaxed);
        self.learn_members(&endpoint);
        Ok(answer)
    }

    /// Asks for the members once in a while, where that is wanted. Nobody waits for it.
    fn learn_members(&self, endpoint: &EndpointChoice) {
        let endpoints = self.shared.endpoints.clone();
        if !endpoints.is_due_to_learn() {
            return;
        }
        let mut url = endpoint.url.clone();
        // All ages of v2 have it: `http://10.0.0.1:4001, http://10.0.0.2:4001`.
        url.set_path("/v2/machines");
        let Ok(request) = self.request(Method::GET, url) else { return };
        tokio::spawn(async move {
            let reply = timeout(REQUEST_TIMEOUT, receive(request)).await;
            let Ok(Ok(HttpReply { status: 200, body, .. })) = reply else { return };
            let text = String::from_utf8_lossy(&body);
            endpoints.learn(&text.split(',').map(|url| url.trim().to_owned()).collect::<Vec<_>>());
        });
    }

    async fn get(
        &self,
        path: &str,
        deadline: Instant,
    ) -> Result<(KeyReply, StoreHeaders), StoreError> {
        self.ask(Method::GET, path, &Vec::new(), deadline).await
    }

    /// The entry at a key, if there is one, and the store's index.
    async fn entry(
        &self,
        path: &str,
        deadline: Instant,
    ) -> Result<(Option<Entry>, Revision), StoreError> {
        let (reply, headers) = self.get(path, deadline).await?;
        let entry = match reply {
            KeyReply::Done(event) => event.node.entry(),
            KeyReply::Failed(_) => None,
        };
        Ok((entry, headers.index))
    }

    /// What stands in a write's way.
    async fn obstacle(&self, key: &Key, deadline: Instant) -> Result<Obstacle, StoreError> {
        let (reply, headers) = self.get(key.as_str(), deadline).await?;
        match reply {
            // No entry, and no write ever gets past it.
            KeyReply::Done(event) if event.node.is_directory() => Err(StoreError::Rejected(
                format!("{key} is a directory in etcd, so no key can have this name; remove it"),
            )),
            KeyReply::Done(event) => {
                Ok(Obstacle { entry: event.node.entry(), revision: headers.index })
            }
            KeyReply::Failed(_) => Ok(Obstacle { entry: None, revision: headers.index }),
        }
    }

    /// The store's index by quorum, from a key that nobody has. Asks for no more permission
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

    /// A write that a guard may stop; the index of the write, or what stopped it.
    async fn guarded(
        &self,
        method: Method,
        key: &Key,
        params: Params<'_>,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<Result<Revision, Obstacle>, StoreError> {
        let mut params = params;
        let index;
        match guard {
            Guard::Absent if method == Method::PUT => params.push(("prevExist", "false")),
            Guard::Value(value) if !value.is_empty() => params.push(("prevValue", text(value)?)),
            // The server ignores a `prevIndex` of 0 and rejects an empty `prevValue`.
            Guard::Ours(Ownership { modified, .. }) if modified.0 > 0 => {
                index = modified.to_string();
                params.push(("prevIndex", &index));
            }
            Guard::Value(_) => {
                let found = self.obstacle(key, deadline).await?;
                let Some(empty) = found.entry.as_ref().filter(|entry| entry.value.is_empty())
                else {
                    return Ok(Err(found));
                };
                index = empty.modified.to_string();
                params.push(("prevIndex", &index));
            }
            Guard::Absent | Guard::Ours(_) => return self.obstacle(key, deadline).await.map(Err),
        }
        match self.ask(method, key.as_str(), &params, deadline).await?.0 {
            KeyReply::Done(event) => {
                let sent = params.iter().find(|(name, _)| *name == "value");
                if sent.is_some_and(|(_, value)| *value != event.node.value()) {
                    return Err(StoreError::Unreachable(format!(
                        "{key}: etcd has stored another value than was sent"
                    )));
                }
                Ok(Ok(Revision(event.node.modified_index)))
            }
            KeyReply::Failed(error) if error.error_code == NOT_A_DIRECTORY => Err(error.into()),
            KeyReply::Failed(_) => self.obstacle(key, deadline).await.map(Err),
        }
    }
}

impl Store for V2 {
    type Watch = V2Watch;

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
        tree: &Tree,
        after: Revision,
        deadline: Instant,
    ) -> Result<V2Watch, StoreError> {
        V2Watch::open(self.clone(), tree.clone(), after, deadline).await
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
            Ok(modified) => {
                self.written().insert(key.clone(), value.to_vec());
                PutOutcome::Written(Ownership { lease: 0, modified })
            }
            Err(Obstacle { entry: Some(by), revision }) => PutOutcome::Taken { by, revision },
            Err(Obstacle { entry: None, revision }) => PutOutcome::Missing { revision },
        })
    }

    async fn delete(
        &self,
        key: &Key,
        guard: &Guard,
        deadline: Instant,
    ) -> Result<DeleteOutcome, StoreError> {
        Ok(match self.guarded(Method::DELETE, key, Vec::new(), guard, deadline).await? {
            Ok(revision) => {
                self.written().remove(key);
                DeleteOutcome::Deleted(revision)
            }
            Err(Obstacle { entry: Some(by), revision }) => DeleteOutcome::Taken { by, revision },
            Err(Obstacle { entry: None, revision }) => DeleteOutcome::Missing(revision),
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

/// v2 keeps values in JSON.
fn text(value: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(value).map_err(|_| {
        StoreError::Rejected("the v2 API keeps text only, and this value is not UTF-8".to_owned())
    })
}
