//! The task that reads, watches and publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::published::PublishedView;
use super::view::{Ignored, Options, StaleReason, Start, View};
use crate::backoff::Backoff;
use crate::model::{Change, Entry, Revision, Snapshot, Tree};
use crate::store::{Store, StoreError, Watch, WatchEvent, default_deadline, read_deadline};

/// Follows `trees` until `shutdown`, and publishes every new view. A slow reader gets only the
/// newest.
pub fn follow<S: Store>(
    store: S,
    trees: Vec<Tree>,
    options: Options,
    shutdown: CancellationToken,
) -> watch::Receiver<View> {
    let (published, receiver) = PublishedView::new(options.log);
    let follower = Follower {
        store,
        trees,
        known: options.known,
        ignored: options.ignored,
        resync: options.resync,
        backoff: options.backoff,
        rereads: Backoff::new(REREAD_PAUSE, MAX_REREAD_PAUSE),
        published,
        read: Snapshot::default(),
        seen: Revision::default(),
    };
    tokio::spawn(async move {
        shutdown.run_until_cancelled(follower.run(options.start)).await;
    });
    receiver
}

struct Follower<S> {
    store: S,
    trees: Vec<Tree>,
    known: Option<Arc<Snapshot>>,
    ignored: Option<Ignored>,
    resync: Duration,
    backoff: Backoff,
    /// The schedule of reads after a watch ended for want of history.
    rereads: Backoff,
    published: PublishedView,
    /// What was last read, without what was deleted since. What was written since is not in it, so
    /// that a resync compares it. Shares with the view what is the same.
    read: Snapshot,
    /// The snapshot has every change up to here.
    seen: Revision,
}

/// Why a watch ended.
enum WatchEnd {
    ResyncDue,
    Error(StoreError),
}

/// What led to the next read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadAfter {
    /// A periodic resync after an unbroken watch: most probably nothing has changed.
    Resync,
    /// A watch that was lost, or the start.
    Loss,
}

/// How long the gate may be closed before the view says so: usually it opens within this.
const START_GRACE: Duration = Duration::from_secs(3);

/// After a watch ended for want of history, the keys are read at once; the pause before the
/// next such read grows from the first to the second: a server, or a proxy in front of it, may
/// answer every watch like that.
const REREAD_PAUSE: Duration = Duration::from_millis(200);
const MAX_REREAD_PAUSE: Duration = Duration::from_secs(30);

/// A watch that ends sooner than this failed by itself, and not with its connection.
const BRIEF: Duration = Duration::from_secs(5);

/// A watch that lived for this long shows that the server does have history.
const STABLE: Duration = Duration::from_secs(60);

/// Whether a watch ended with its connection, after it had worked. That is no news by itself: the
/// next attempt succeeds at once, or knows why not.
pub(super) fn is_end_of_connection(error: &StoreError, lived: Duration) -> bool {
    error.is_unanswered() && lived >= BRIEF
}

impl<S: Store> Follower<S> {
    async fn run(mut self, start: Option<Start>) {
        if let Some(start) = start {
            self.wait_to_start(start).await;
        }
        let mut after = ReadAfter::Loss;
        loop {
            let began = Instant::now();
            let end = match self.read(after).await {
                Ok(()) => self.watch().await,
                Err(error) => WatchEnd::Error(error),
            };
            if began.elapsed() >= STABLE {
                self.rereads.reset();
            }
            after = match end {
                WatchEnd::ResyncDue => {
                    tracing::debug!("periodic resync");
                    ReadAfter::Resync
                }
                WatchEnd::Error(error) => {
                    self.recover(error, began.elapsed()).await;
                    ReadAfter::Loss
                }
            };
        }
    }

    async fn wait_to_start(&mut self, start: Start) {
        if tokio::time::timeout(START_GRACE, start.gate.opened()).await.is_err() {
            self.published.mark_stale(StaleReason::NotStarted(start.reason));
            start.gate.opened().await;
        }
    }

    async fn read(&mut self, after: ReadAfter) -> Result<(), StoreError> {
        let snapshot = match self.known.take() {
            Some(known) => Arc::unwrap_or_clone(known),
            None if after == ReadAfter::Resync => {
                self.store.read_again(&self.trees, &self.read, read_deadline()).await?
            }
            None => self.store.read(&self.trees, read_deadline()).await?,
        };
        self.take(snapshot, after);
        Ok(())
    }

    fn take(&mut self, mut snapshot: Snapshot, after: ReadAfter) {
        self.read = snapshot.clone();
        if let Some(ignored) = &self.ignored {
            ignored.remove_from(&mut snapshot);
        }
        self.backoff.reset();
        self.published.end_outage();
        self.seen = snapshot.revision;
        // A revision that only other keys moved wakes no reader.
        if !(after == ReadAfter::Resync && self.published.has(&snapshot)) {
            self.published.publish(snapshot);
        }
    }

    /// Follows the published snapshot; however it ends, the caller reads again.
    async fn watch(&mut self) -> WatchEnd {
        let mut watch = match self.store.watch(&self.trees, self.seen, default_deadline()).await {
            Ok(watch) => watch,
            Err(error) => return WatchEnd::Error(error),
        };
        let due = Instant::now() + self.resync.mul_f64(0.9 + fastrand::f64() / 5.0);
        loop {
            let event = match tokio::time::timeout_at(due, watch.next()).await {
                Err(_) => return WatchEnd::ResyncDue,
                Ok(event) => event,
            };
            let done = match event {
                Ok(WatchEvent::Progress(_)) => Ok(()),
                Ok(WatchEvent::Changes(changes)) => {
                    self.apply(changes);
                    Ok(())
                }
                Ok(WatchEvent::Partial(changes)) => self.read_again(changes).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                return WatchEnd::Error(error);
            }
        }
    }

    /// All changes up to the newest of them.
    fn apply(&mut self, mut changes: Vec<Change>) {
        let newest = self.retain_news(&mut changes);
        self.seen = newest.max(self.seen);
        if !changes.is_empty() {
            self.published.apply(changes);
        }
    }

    /// Some changes, of which others may be a part.
    async fn read_again(&mut self, mut changes: Vec<Change>) -> Result<(), StoreError> {
        let newest = self.retain_news(&mut changes);
        if changes.is_empty() || newest <= self.seen {
            return Ok(());
        }
        let snapshot = self.store.read_again(&self.trees, &self.read, read_deadline()).await?;
        self.take(snapshot, ReadAfter::Loss);
        Ok(())
    }

    /// Leaves the changes that are to be published. Returns the newest revision of all of them.
    fn retain_news(&mut self, changes: &mut Vec<Change>) -> Revision {
        self.forget_deleted(changes);
        if let Some(ignored) = &self.ignored {
            ignored.retain(changes, self.published.view().snapshot.as_deref());
        }
        let newest = changes.iter().map(Change::revision).max().unwrap_or_default();
        changes.retain(|change| !self.published.has_already(change));
        newest
    }

    fn forget_deleted(&mut self, changes: &[Change]) {
        for change in changes {
            let older = |entry: &Entry| entry.modified < change.revision();
            match change {
                Change::Deleted { key, .. } if self.read.entries.get(key).is_some_and(older) => {
                    self.read.entries.remove(key);
                }
                Change::TreeDeleted { tree, .. } => self.read.remove_tree(tree),
                Change::Put(_) | Change::Deleted { .. } => {}
            }
        }
    }

    /// Prepares the next read after an error: at once where only the history is missing, and
    /// after a pause where etcd does not answer, or where the same happens again and again.
    /// `lived`: how long the keys were followed until then.
    async fn recover(&mut self, error: StoreError, lived: Duration) {
        let pause = match &error {
            StoreError::Interrupted => {
                tracing::debug!(%error, "reading the keys again");
                self.reread_pause()
            }
            StoreError::Compacted(_) | StoreError::Regressed { .. } => {
                self.published.remind(&format!("reading the keys again: {error}"));
                self.reread_pause()
            }
            _ => {
                let was_followed = self.published.view().stale.is_none();
                if !(was_followed && is_end_of_connection(&error, lived)) {
                    self.published.remind(&format!("watch failed, retrying: {error}"));
                }
                self.published.mark_stale(StaleReason::Failed(error));
                self.backoff.after_failure(fastrand::f64())
            }
        };
        tokio::time::sleep(pause).await;
    }

    fn reread_pause(&mut self) -> Duration {
        let first = self.rereads.failures() == 0;
        let pause = self.rereads.after_failure(fastrand::f64());
        if first { Duration::ZERO } else { pause }
    }
}
