//! The watch of etcd v3.
//!
//! A stream does not survive a restart of its member, and is silent when the member hangs, is cut
//! off, or was wiped and waits for a revision that is years away. So silence is checked: every
//! [`QUIET`] the member is asked for its revision by quorum, and the stream for its progress.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout_at};

use super::V3;
use super::answer::{entry, revision};
use super::error::Failure;
use super::link::{Link, MAX_ANSWER};
use crate::model::{Change, Revision, Tree};
use crate::store::{StoreError, Watch, WatchEvent, default_deadline};

/// Silence after which the server is asked for its revision.
const QUIET: Duration = Duration::from_secs(10);

/// Silence after which the stream is replaced. Servers before 3.4 never answer a
/// progress request, so this is no error.
const REPLACE_AFTER: Duration = Duration::from_secs(35);

/// The watch id of an answer that belongs to the stream and to no watcher.
const STREAM: i64 = -1;

/// A running watch of one tree.
pub struct V3Watch {
    store: V3,
    link: Link,
    tree: Tree,
    stream: WatchStream,
    /// Everything up to here has been delivered.
    seen: Revision,
    /// When the stream last delivered anything.
    last_message: Instant,
    /// When to check the silence.
    check_at: Instant,
}

impl V3Watch {
    pub(super) async fn open(
        store: V3,
        tree: Tree,
        after: Revision,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let link = store.link(deadline).await?;
        let (stream, created) = match start(&store, &link, &tree, after, deadline).await {
            // An expired token shows here as a cancelled watch, not as an error.
            Err(StoreError::Denied(_)) => {
                store.call(&link.endpoint, deadline, link.client.refresh_token()).await?;
                start(&store, &link, &tree, after, deadline).await?
            }
            other => other?,
        };
        if created < after {
            // Perhaps only this member lags behind; a quorum read shows it.
            let now = store.revision(&link, &tree, deadline).await?;
            if now < after {
                return Err(StoreError::Regressed { seen: after, now });
            }
        }
        let now = Instant::now();
        let check_at = now + QUIET;
        Ok(Self { store, link, tree, stream, seen: after, last_message: now, check_at })
    }

    fn take(&mut self, message: &WatchResponse) -> Result<Option<WatchEvent>, StoreError> {
        if message.canceled() {
            let error = cancelled(message, self.seen, &self.tree);
            return Err(self.store.shared.endpoints.failed(&self.link.endpoint, error));
        }
        if message.created() || message.watch_id() == STREAM {
            // A progress answer for the stream may be ahead of its events (etcd
            // before 3.4.25), so its revision proves nothing.
            return Ok(None);
        }
        let Some(newest) =
            message.events().iter().filter_map(Event::kv).map(|kv| kv.mod_revision()).max()
        else {
            let Some(header) = message.header() else { return Ok(None) };
            self.seen = self.seen.max(revision(header.revision()));
            return Ok(Some(WatchEvent::Progress(self.seen)));
        };
        // One message never ends in the middle of a revision.
        self.seen = self.seen.max(revision(newest));
        let changes: Vec<_> = message.events().iter().filter_map(change).collect();
        let ours: Vec<_> = changes.into_iter().filter(|(key, _)| self.tree.covers(key)).collect();
        Ok(Some(if ours.is_empty() {
            WatchEvent::Progress(self.seen)
        } else {
            WatchEvent::Changes(ours.into_iter().map(|(_, change)| change).collect())
        }))
    }

    /// Checks that the silence means that nothing changed.
    async fn check(&mut self) -> Result<(), StoreError> {
        let now = self.store.revision(&self.link, &self.tree, default_deadline()).await?;
        if now < self.seen {
            return Err(StoreError::Regressed { seen: self.seen, now });
        }
        if self.last_message.elapsed() >= REPLACE_AFTER {
            *self =
                Self::open(self.store.clone(), self.tree.clone(), self.seen, default_deadline())
                    .await?;
        } else if let Err(error) = self.stream.request_progress().await {
            return Err(StoreError::Unreachable(error.to_string()));
        }
        self.check_at = Instant::now() + QUIET;
        Ok(())
    }
}

impl Watch for V3Watch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            let message = match timeout_at(self.check_at, self.stream.message()).await {
                Err(_) => {
                    self.check().await?;
                    continue;
                }
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => {
                    let ended = StoreError::Unreachable("the server ended the watch".to_owned());
                    return Err(self.store.shared.endpoints.failed(&self.link.endpoint, ended));
                }
                Ok(Err(error)) => return Err(self.broken(Failure::from(error))),
            };
            self.last_message = Instant::now();
            self.check_at = self.last_message + QUIET;
            if let Some(event) = self.take(&message)? {
                return Ok(event);
            }
        }
    }
}

impl V3Watch {
    fn broken(&self, failure: Failure) -> StoreError {
        match failure {
            // More happened than fits into one message: a new read is smaller.
            Failure::TooLarge => StoreError::Compacted(self.seen),
            other => self.store.shared.endpoints.failed(&self.link.endpoint, other.into()),
        }
    }
}

/// Opens the stream; returns it with the revision at which the server began.
async fn start(
    store: &V3,
    link: &Link,
    tree: &Tree,
    after: Revision,
    deadline: Instant,
) -> Result<(WatchStream, Revision), StoreError> {
    let from = i64::try_from(after.0.saturating_add(1)).unwrap_or(i64::MAX);
    let options = WatchOptions::new().with_start_revision(from).with_progress_notify();
    // One range from the top to the end of what is below it keeps the order; what
    // lies between (`/web-2`) is filtered out later.
    let (key, options) = if tree.path() == "/" {
        (b"/".to_vec(), options.with_range("0"))
    } else {
        (first_key(tree).into_bytes(), options.with_range(format!("{}0", tree.path())))
    };
    let mut client = link.client.watch_client().max_decoding_message_size(MAX_ANSWER);
    let opened = async move {
        let mut stream = client.watch(key, Some(options)).await?;
        let first = stream.message().await?;
        Ok((stream, first))
    };
    let (stream, first) = store.call(&link.endpoint, deadline, opened).await?;
    let Some(first) = first else {
        let ended = StoreError::Unreachable("the server ended the watch at once".to_owned());
        return Err(store.shared.endpoints.failed(&link.endpoint, ended));
    };
    if first.canceled() {
        return Err(store.shared.endpoints.failed(&link.endpoint, cancelled(&first, after, tree)));
    }
    Ok((stream, first.header().map_or_else(Revision::default, |h| revision(h.revision()))))
}

/// The first key that can be in a tree.
pub(super) fn first_key(tree: &Tree) -> String {
    let below = if tree.is_below_only() && tree.path() != "/" { "/" } else { "" };
    format!("{}{below}", tree.path())
}

fn cancelled(message: &WatchResponse, seen: Revision, tree: &Tree) -> StoreError {
    let reason = message.cancel_reason();
    if message.compact_revision() > 0 || reason.contains("compacted") {
        return StoreError::Compacted(seen);
    }
    if reason.contains("permission denied") {
        let range = match tree.path() {
            "/" => "[/, 0)".to_owned(),
            path => format!("[{}, {path}0)", first_key(tree)),
        };
        return StoreError::Denied(format!(
            "{reason}: the user's role needs read on the range {range}"
        ));
    }
    if reason.contains("auth token") || reason.contains("user name is empty") {
        return StoreError::Denied(reason.to_owned());
    }
    StoreError::Unreachable(format!("the server cancelled the watch: {reason}"))
}

fn change(event: &Event) -> Option<(Arc<str>, Change)> {
    let entry = entry(event.kv()?)?;
    let key = Arc::clone(&entry.key);
    Some(match event.event_type() {
        EventType::Put => (key, Change::Put(entry)),
        EventType::Delete => (Arc::clone(&key), Change::Deleted { key, at: entry.modified }),
    })
}
