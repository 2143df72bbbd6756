//! etcd v2 over HTTP (`/v2/keys`), as CoreOS had it in 2014 and etcd 3.0 to 3.5
//! offers it with `--enable-v2`.
//!
//! There are no leases: each key carries its own TTL, and a [`Lease`] is only that
//! TTL. A holder knows its key by the index of its last write or refresh, because
//! each refresh moves `modifiedIndex`. Folders are no entries; hidden keys (`_x`)
//! are left out by the server. Reads are quorum reads.

mod http;
mod watch;
mod wire;

pub use watch::V2Watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method, RequestBuilder};
use url::Url;

use self::http::{key_url, receive};
use self::wire::{Answer, COMPARE, MISSING, NOT_A_FOLDER, Said};
use super::rotation::{Rotation, place};
use super::{Guard, KeyState, Lease, Ownership, Renewed, Store, StoreError, WriteOutcome};
use crate::model::{Entry, Key, Revision, Snapshot, Tree, Ttl};

/// Requests under way at the same time in one refresh of many keys.
const AT_ONCE: usize = 16;

/// How often several trees are read again in the hope of one index for all.
const TRIES: usize = 3;

/// What every request is made with.
pub(super) struct Settings {
    pub(super) client: Client,
    pub(super) user: Option<(String, String)>,
    /// The deadline of one request.
    pub(super) request: Duration,
}

/// etcd v2. Clones share one pool of connections.
#[derive(Clone)]
pub struct V2 {
    shared: Arc<Shared>,
}

struct Shared {
    rotation: Rotation,
    settings: Settings,
    /// The index of the last answer.
    last: AtomicU64,
}

/// What the headers of an answer say of the store.
struct Head {
    index: Revision,
    cluster: u64,
}

type Params<'p> = Vec<(&'static str, &'p str)>;

impl V2 {
    pub(super) fn new(rotation: Rotation, settings: Settings) -> Self {
        Self { shared: Arc::new(Shared { rotation, settings, last: AtomicU64::default() }) }
    }

    /// Whether the server offers v2. Asks for something that needs no permission.
    ///
    /// # Errors
    /// As [`StoreError`] says.
    pub(super) async fn probe(&self) -> Result<(), StoreError> {
        let seat = self.shared.rotation.seat().await?;
        let mut url = seat.url.clone();
        url.set_path("/v2/machines");
        let request = self.request(Method::GET, url);
        let reply = self.shared.rotation.bounded(&seat, self.limit(), receive(request)).await?;
        match reply.status {
            // `http://127.0.0.1:4001, http://…`: many a server answers 200 to anything.
            200 if reply.body.starts_with(b"http") || reply.body.is_empty() => Ok(()),
            200 => Err(StoreError::Unreachable(format!(
                "{}: a server answers there, but not as an etcd does; is it the right port?",
                place(&seat.url)
            ))),
            _ => reply.read().map(|_| ()),
        }
    }

    fn limit(&self) -> Duration {
        self.shared.settings.request
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.shared.settings.client.request(method, url);
        match &self.shared.settings.user {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        }
    }

    /// One request to the endpoint whose turn it is, within its deadline.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        params: &Params<'_>,
    ) -> Result<(Said, Head), StoreError> {
        let seat = self.shared.rotation.seat().await?;
        let url = key_url(&seat.url, path);
        let form = method == Method::PUT;
        let request = self.request(method, url);
        let request = if form { request.form(params) } else { request.query(params) };
        let answer = async {
            let reply = receive(request).await?;
            let said = reply.read()?;
            Ok((said, Head { index: reply.index()?, cluster: reply.cluster }))
        };
        let answer = self.shared.rotation.bounded(&seat, self.limit(), answer).await?;
        self.shared.last.store(answer.1.index.0, Ordering::Relaxed);
        Ok(answer)
    }

    /// A key by quorum: the entry, or that there is none, and the index.
    async fn get(&self, path: &str) -> Result<(Option<Entry>, Revision), StoreError> {
        let (said, head) = self.ask(Method::GET, path, &vec![("quorum", "true")]).await?;
        let entry = match said {
            Said::Done(answer) => answer.node.entry(),
            Said::No(_) => None,
        };
        Ok((entry, head.index))
    }

    /// What stands in a write's way. A folder does so for ever, and is no entry.
    async fn obstacle(&self, key: &Key) -> Result<(Option<Entry>, Revision), StoreError> {
        let (said, head) = self.ask(Method::GET, key.as_str(), &vec![("quorum", "true")]).await?;
        match said {
            Said::Done(answer) if answer.node.is_folder() => Err(StoreError::Refused(format!(
                "{key}: there is a folder where a key is meant; remove it, or give the instance \
                 another --id"
            ))),
            Said::Done(answer) => Ok((answer.node.entry(), head.index)),
            Said::No(_) => Ok((None, head.index)),
        }
    }

    /// The store's index by quorum, from a key that nobody has. Asks for no more
    /// permission than a reader of the tree has, and its answer is small.
    async fn index(&self, tree: &Tree) -> Result<Revision, StoreError> {
        let path = format!("{}/_", tree.path().trim_end_matches('/'));
        self.get(&path).await.map(|(_, index)| index)
    }

    async fn read_tree(&self, tree: &Tree, into: &mut Snapshot) -> Result<Revision, StoreError> {
        let params = vec![("quorum", "true"), ("recursive", "true")];
        let (said, head) = self.ask(Method::GET, tree.path(), &params).await?;
        if let Said::Done(answer) = said {
            answer.node.collect(into);
        }
        into.cluster = head.cluster;
        Ok(head.index)
    }

    /// A write that a guard may stop.
    async fn guarded(
        &self,
        method: Method,
        key: &Key,
        params: Params<'_>,
        guard: &Guard,
    ) -> Result<WriteOutcome, StoreError> {
        let mut params = params;
        let index;
        match guard {
            Guard::Absent if method == Method::PUT => params.push(("prevExist", "false")),
            Guard::Value(value) if !value.is_empty() => params.push(("prevValue", text(value)?)),
            // The server ignores a `prevIndex` of 0 and refuses an empty `prevValue`.
            Guard::Ours(Ownership { modified, .. }) if modified.0 > 0 => {
                index = modified.to_string();
                params.push(("prevIndex", &index));
            }
            Guard::Value(_) => {
                let (found, revision) = self.obstacle(key).await?;
                let Some(empty) = found.as_ref().filter(|entry| entry.value.is_empty()) else {
                    return Ok(WriteOutcome::Held { by: found, revision });
                };
                index = empty.modified.to_string();
                params.push(("prevIndex", &index));
            }
            Guard::Absent | Guard::Ours(_) => {
                let (by, revision) = self.obstacle(key).await?;
                return Ok(WriteOutcome::Held { by, revision });
            }
        }
        match self.ask(method, key.as_str(), &params).await?.0 {
            Said::Done(Answer { node, .. }) => {
                let revision = Revision(node.modified_index);
                Ok(WriteOutcome::Done {
                    revision,
                    mark: Ownership { lease: 0, modified: revision },
                })
            }
            Said::No(refusal) if refusal.error_code == NOT_A_FOLDER => Err(refusal.into()),
            Said::No(_) => {
                let (by, revision) = self.obstacle(key).await?;
                Ok(WriteOutcome::Held { by, revision })
            }
        }
    }

    async fn refresh(
        &self,
        key: &Key,
        mark: Ownership,
        ttl: Duration,
    ) -> Result<(KeyState, Revision), StoreError> {
        let (ttl, index) = (ttl.as_secs().to_string(), mark.modified.to_string());
        let params = vec![
            ("ttl", ttl.as_str()),
            ("refresh", "true"),
            ("prevExist", "true"),
            ("prevIndex", index.as_str()),
        ];
        let (said, head) = self.ask(Method::PUT, key.as_str(), &params).await?;
        match said {
            Said::Done(answer) => {
                let modified = Revision(answer.node.modified_index);
                Ok((KeyState::Ours(Ownership { lease: 0, modified }), head.index))
            }
            Said::No(refusal) if refusal.error_code == COMPARE => {
                let (entry, index) = self.get(key.as_str()).await?;
                Ok((entry.map_or(KeyState::Missing, KeyState::Foreign), index))
            }
            Said::No(refusal) if [MISSING, NOT_A_FOLDER].contains(&refusal.error_code) => {
                Ok((KeyState::Missing, head.index))
            }
            Said::No(refusal) => Err(refusal.into()),
        }
    }
}

impl Store for V2 {
    type Watch = V2Watch;

    /// Several trees are several requests. They are repeated until no index moved
    /// between them; failing that, the lowest index is the snapshot's revision. A
    /// watch from there delivers again what some trees already show, in order, so
    /// it ends at the right picture; nothing is left out.
    async fn read(&self, trees: &[Tree]) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::default();
        for _ in 0..TRIES {
            snapshot = Snapshot::default();
            let (mut low, mut high) = (Revision(u64::MAX), Revision(0));
            for tree in trees {
                let index = self.read_tree(tree, &mut snapshot).await?;
                (low, high) = (low.min(index), high.max(index));
            }
            snapshot.revision = low.min(high);
            if low >= high {
                break;
            }
        }
        Ok(snapshot)
    }

    async fn watch(&self, tree: &Tree, after: Revision) -> Result<V2Watch, StoreError> {
        V2Watch::open(self.clone(), tree.clone(), after).await
    }

    async fn grant(&self, ttl: Ttl) -> Result<Lease, StoreError> {
        Ok(Lease { id: 0, ttl: ttl.span() })
    }

    async fn renew(
        &self,
        lease: Lease,
        keys: &[(Key, Ownership)],
    ) -> Result<Option<Renewed>, StoreError> {
        let each: Vec<_> =
            keys.iter().map(|(key, mark)| self.refresh(key, *mark, lease.ttl)).collect();
        let done: Vec<_> = stream::iter(each).buffered(AT_ONCE).try_collect().await?;
        let lowest = done.iter().map(|(_, index)| *index).min();
        // Nothing to refresh is nothing to ask, and there may be no key to ask for
        // without a permission.
        let last = || Revision(self.shared.last.load(Ordering::Relaxed));
        let revision = lowest.unwrap_or_else(last);
        let keys = done.into_iter().map(|(state, _)| state).collect();
        Ok(Some(Renewed { ttl: lease.ttl, revision, keys }))
    }

    async fn put(
        &self,
        key: &Key,
        value: &[u8],
        lease: Lease,
        guard: &Guard,
    ) -> Result<Option<WriteOutcome>, StoreError> {
        let ttl = lease.ttl.as_secs().to_string();
        let params = vec![("value", text(value)?), ("ttl", ttl.as_str())];
        self.guarded(Method::PUT, key, params, guard).await.map(Some)
    }

    async fn delete(&self, key: &Key, guard: &Guard) -> Result<WriteOutcome, StoreError> {
        self.guarded(Method::DELETE, key, Vec::new(), guard).await
    }

    async fn revoke(&self, _: Lease) -> Result<(), StoreError> {
        Ok(())
    }

    async fn time_left(&self, entry: &Entry) -> Result<Option<Duration>, StoreError> {
        Ok(match self.get(&entry.key).await?.0 {
            Some(now) => now.ttl,
            None => Some(Duration::ZERO),
        })
    }
}

/// v2 keeps values in JSON.
fn text(value: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(value).map_err(|_| {
        StoreError::Refused("the v2 API keeps text only, and this value is not UTF-8".to_owned())
    })
}
