//! The watch of etcd v3: one stream, with a watcher for each tree.
//!
//! A stream does not survive a restart of its member, and is silent when the member hangs, is cut
//! off, or was wiped and waits for a revision that is years away. So silence is checked: every
//! [`QUIET`] the member is asked for its revision by quorum, and the stream for its progress.
//!
//! What several watchers deliver is put together by [`merge`].

mod merge;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use etcd_client::{Event, WatchResponse, WatchStream};
use tokio::time::{Instant, timeout_at};

use self::merge::{Late, Merge};
pub(super) use self::stream::first_key;
use self::stream::{begin, cancelled, change, header_revision};
use super::V3;
use super::answer::revision;
use super::error::Failure;
use super::link::Link;
use crate::model::{Revision, Tree};
use crate::store::{StoreError, Watch, WatchEvent, default_deadline};

/// Silence after which the server is asked for its revision.
const QUIET: Duration = Duration::from_secs(10);

/// Silence after which the stream is replaced. Servers before 3.4 never answer a
/// progress request, so this is no error.
const REPLACE_AFTER: Duration = Duration::from_secs(35);

/// How long changes wait for the answer that shows them to be complete: longer than any round
/// trip. A server does not answer while a watcher lags behind.
const ANSWER: Duration = Duration::from_secs(2);

/// The watch id of an answer that belongs to the stream and to no watcher.
const STREAM: i64 = -1;

/// A running watch of one tree or several.
pub struct V3Watch {
    store: V3,
    link: Link,
    /// One for each tree; none of these is in another.
    watchers: Vec<Watcher>,
    stream: WatchStream,
    /// Messages that came before all watchers had begun.
    early: VecDeque<WatchResponse>,
    /// For several trees.
    merge: Option<Merge>,
    /// Until when the stream's answer is waited for.
    answer_by: Option<Instant>,
    /// When the stream last delivered anything.
    last_message: Instant,
    /// When to check the silence.
    check_at: Instant,
}

/// One tree of a stream.
#[derive(Clone)]
struct Watcher {
    tree: Tree,
    /// By which the server's messages name it.
    id: i64,
    /// Everything up to here has been delivered by it.
    seen: Revision,
}

impl V3Watch {
    pub(super) async fn open(
        store: V3,
        trees: &[Tree],
        after: Revision,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let watcher = |tree| Watcher { tree, id: STREAM, seen: after };
        let watchers: Vec<_> = outermost(trees).into_iter().map(watcher).collect();
        let merge = (watchers.len() > 1).then(|| Merge::new(after));
        Self::start(store, watchers, merge, deadline).await
    }

    async fn start(
        store: V3,
        mut watchers: Vec<Watcher>,
        merge: Option<Merge>,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let link = store.link(deadline).await?;
        let begun = match begin(&store, &link, &mut watchers, deadline).await {
            // An expired token shows here as a cancelled watch, not as an error.
            Err(StoreError::Denied(_)) => {
                store.call(&link.endpoint, deadline, link.client.refresh_token()).await?;
                begin(&store, &link, &mut watchers, deadline).await?
            }
            other => other?,
        };
        let now = Instant::now();
        let watch = Self {
            store,
            link,
            watchers,
            stream: begun.stream,
            early: begun.early,
            merge,
            answer_by: None,
            last_message: now,
            check_at: now + QUIET,
        };
        if begun.at < watch.seen() {
            // Perhaps only this member lags behind; a quorum read shows it.
            watch.compare(deadline).await?;
        }
        Ok(watch)
    }

    /// The newest revision that was delivered.
    fn seen(&self) -> Revision {
        self.watchers.iter().map(|watcher| watcher.seen).max().unwrap_or_default()
    }

    /// Compares the revision of the store with what was seen.
    async fn compare(&self, deadline: Instant) -> Result<(), StoreError> {
        let Some(watcher) = self.watchers.first() else { return Ok(()) };
        let now = self.store.revision(&self.link, &watcher.tree, deadline).await?;
        let seen = self.seen();
        if now < seen {
            return Err(StoreError::Regressed { seen, now });
        }
        Ok(())
    }

    fn take(&mut self, message: &WatchResponse) -> Result<Option<WatchEvent>, StoreError> {
        if message.created() {
            return Ok(None);
        }
        if message.watch_id() == STREAM && !message.canceled() {
            // For one tree it proves nothing that its own messages do not.
            let merge = self.merge.as_mut();
            return Ok(merge.and_then(|merge| merge.answered(header_revision(message))));
        }
        let Some(watcher) = self.watchers.iter_mut().find(|w| w.id == message.watch_id()) else {
            return Ok(None);
        };
        if message.canceled() {
            let error = cancelled(message, watcher);
            return Err(self.store.shared.endpoints.failed(&self.link.endpoint, error));
        }
        let newest = message.events().iter().filter_map(Event::kv).map(|kv| kv.mod_revision());
        // One message never ends in the middle of a revision.
        let complete = newest.max().map_or_else(|| header_revision(message), revision);
        watcher.seen = watcher.seen.max(complete);
        let changes: Vec<_> = message.events().iter().filter_map(change).collect();
        let ours = changes.into_iter().filter(|change| watcher.tree.covers(change.key()));
        let ours: Vec<_> = ours.collect();
        match &mut self.merge {
            Some(_) if ours.is_empty() => Ok(None),
            Some(merge) => merge.take(ours).map_err(|Late| StoreError::Interrupted),
            None if ours.is_empty() => Ok(Some(WatchEvent::Progress(watcher.seen))),
            None => Ok(Some(WatchEvent::Changes(ours))),
        }
    }

    /// Asks the stream for its progress, if changes of several watchers wait for the answer.
    async fn ask(&mut self) -> Result<(), StoreError> {
        let Some(merge) = self.merge.as_mut().filter(|merge| merge.wants_to_ask()) else {
            return Ok(());
        };
        request_progress(&mut self.stream).await?;
        merge.asked();
        self.answer_by = Some(Instant::now() + ANSWER);
        Ok(())
    }

    /// Checks that the silence means that nothing changed.
    async fn check(&mut self) -> Result<(), StoreError> {
        self.compare(default_deadline()).await?;
        if self.last_message.elapsed() >= REPLACE_AFTER {
            let merge = self.merge.as_ref().map(Merge::begin_again);
            let (store, watchers) = (self.store.clone(), self.watchers.clone());
            *self = Self::start(store, watchers, merge, default_deadline()).await?;
        } else {
            request_progress(&mut self.stream).await?;
        }
        self.check_at = Instant::now() + QUIET;
        Ok(())
    }

    async fn message(&mut self) -> Result<WatchResponse, StoreError> {
        if let Some(message) = self.early.pop_front() {
            return Ok(message);
        }
        match self.stream.message().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => {
                let ended = StoreError::Unreachable("the server ended the watch".to_owned());
                Err(self.store.shared.endpoints.failed(&self.link.endpoint, ended))
            }
            Err(error) => Err(self.broken(Failure::from(error))),
        }
    }

    fn broken(&self, failure: Failure) -> StoreError {
        match failure {
            // More happened than fits into one message: a new read is smaller.
            Failure::TooLarge => StoreError::Compacted(self.seen()),
            other => self.store.shared.endpoints.failed(&self.link.endpoint, other.into()),
        }
    }
}

impl Watch for V3Watch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            self.ask().await?;
            let overdue = self.merge.as_ref().filter(|merge| merge.is_waiting());
            let answer_by = overdue.and(self.answer_by);
            let until = answer_by.map_or(self.check_at, |answer_by| answer_by.min(self.check_at));
            let Ok(message) = timeout_at(until, self.message()).await else {
                if answer_by == Some(until) {
                    if let Some(event) = self.merge.as_mut().and_then(Merge::partial) {
                        return Ok(event);
                    }
                } else {
                    self.check().await?;
                }
                continue;
            };
            let message = message?;
            self.last_message = Instant::now();
            self.check_at = self.last_message + QUIET;
            if let Some(event) = self.take(&message)? {
                return Ok(event);
            }
        }
    }
}

async fn request_progress(stream: &mut WatchStream) -> Result<(), StoreError> {
    let asked = stream.request_progress().await;
    asked.map_err(|error| StoreError::Unreachable(error.to_string()))
}

/// The trees that are in no other.
fn outermost(trees: &[Tree]) -> BTreeSet<Tree> {
    let is_outermost = |tree: &&Tree| !trees.iter().any(|other| other.contains(tree));
    trees.iter().filter(is_outermost).cloned().collect()
}
