//! List, then watch, then swap whole: the only module that sees a store's events.
//!
//! What leaves is a [`View`]: a complete [`Snapshot`] and whether it is fresh. Who
//! reads it never acts on half a list, and never learns of compaction, cut
//! streams or time-outs other than by a view that is stale for a while.
//!
//! One tree is followed by its changes. With several, a change is only a bell and
//! all trees are read again at one revision: two watchers of one server promise no
//! order between each other.
//!
//! This module knows nothing of what the keys mean.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::model::{Entry, Revision, Snapshot, Tree};
use crate::runtime::Reminder;
use crate::store::{Store, StoreError, Watch, WatchEvent};

/// What is known of the watched trees.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The last complete picture; `None` until the first read succeeded.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Raised each time the store went backwards (wiped or restored), and when.
    pub regressions: u32,
    /// When the store last went backwards.
    pub regressed_at: Option<Instant>,
    /// Why the picture may be old, and since when; `None` while it is followed.
    pub stale: Option<Stale>,
}

/// Why a view is not fresh.
#[derive(Debug, Clone)]
pub struct Stale {
    /// Since when.
    pub since: Instant,
    /// In an operator's words.
    pub why: String,
}

/// Why a view is stale before the first answer.
pub const NOT_READ_YET: &str = "etcd has not answered yet";

/// How a watch behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything is read again this often, whatever the watch says: belt and
    /// braces against a store that lies.
    pub reconcile: Duration,
    /// The schedule of tries after an error.
    pub backoff: Backoff,
    /// Nothing is read before this is cancelled: what must be there before the first
    /// read is. `None`: read at once.
    pub after: Option<CancellationToken>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reconcile: Duration::from_secs(300),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            after: None,
        }
    }
}

/// Follows `trees` until `shutdown`, and publishes every new view. A reader that is
/// slow sees only the newest.
pub fn follow<S: Store>(
    store: S,
    trees: Vec<Tree>,
    options: Options,
    shutdown: CancellationToken,
) -> watch::Receiver<View> {
    let stale = Stale { since: Instant::now(), why: NOT_READ_YET.to_owned() };
    let (sender, receiver) = watch::channel(View { stale: Some(stale), ..View::default() });
    let seen = Revision::default();
    let follower =
        Follower { store, trees, options, view: sender, seen, steady: false, lost: None };
    tokio::spawn(async move {
        shutdown.run_until_cancelled(follower.run()).await;
    });
    receiver
}

struct Follower<S> {
    store: S,
    trees: Vec<Tree>,
    options: Options,
    view: watch::Sender<View>,
    /// Everything up to here was looked at.
    seen: Revision,
    /// The list at hand follows an unbroken watch.
    steady: bool,
    /// How long the keys have been out of sight, for the log.
    lost: Option<Reminder>,
}

/// Why a watch ended.
enum End {
    ReconcileDue,
    Error(StoreError),
}

/// How long to be silent about waiting to begin.
const BEGIN: Duration = Duration::from_secs(3);

/// A bound on what waits between a stream and the follower.
const EVENTS_IN_FLIGHT: usize = 64;

type Events = mpsc::Receiver<Result<WatchEvent, StoreError>>;

impl<S: Store> Follower<S> {
    async fn run(mut self) {
        self.wait_to_begin().await;
        loop {
            let listed = self.list().await;
            self.steady = false;
            let ended = match listed {
                Ok(()) => self.watch().await,
                Err(error) => End::Error(error),
            };
            self.steady = matches!(ended, End::ReconcileDue);
            match ended {
                End::ReconcileDue => tracing::debug!("reading the keys again, as every so often"),
                // A picture that is merely old is followed again at once.
                End::Error(StoreError::Cut) => {
                    tracing::debug!("reading the keys again: {}", StoreError::Cut)
                }
                End::Error(error @ (StoreError::Compacted(_) | StoreError::Regressed { .. })) => {
                    tracing::warn!(%error, "reading the keys again");
                }
                End::Error(error) => self.pause(error).await,
            }
        }
    }

    async fn wait_to_begin(&mut self) {
        let Some(after) = self.options.after.take() else { return };
        if tokio::time::timeout(BEGIN, after.cancelled()).await.is_err() {
            self.view.send_modify(|view| {
                let why = "nothing is read before this load balancer is registered".to_owned();
                view.stale = Some(Stale { since: Instant::now(), why });
            });
            after.cancelled().await;
        }
    }

    async fn list(&mut self) -> Result<(), StoreError> {
        let snapshot = self.store.read(&self.trees).await?;
        self.options.backoff.reset();
        self.lost = None;
        self.seen = snapshot.revision;
        // Nobody is woken by a revision that only others moved.
        if !(self.steady && self.is_known(&snapshot)) {
            self.publish(snapshot);
        }
        Ok(())
    }

    /// Whether the published picture shows the same, refreshes aside.
    fn is_known(&self, snapshot: &Snapshot) -> bool {
        let view = self.view.borrow();
        let Some(before) = &view.snapshot else { return false };
        let same = |(a, b): (&Entry, &Entry)| {
            a.key == b.key && a.value == b.value && a.created == b.created
        };
        view.stale.is_none()
            && before.cluster == snapshot.cluster
            && before.revision <= snapshot.revision
            && before.entries.len() == snapshot.entries.len()
            && before.entries.values().zip(snapshot.entries.values()).all(same)
    }

    fn publish(&mut self, snapshot: Snapshot) {
        self.view.send_modify(|view| {
            if let Some(before) = &view.snapshot
                && (snapshot.revision < before.revision
                    || snapshot.cluster != before.cluster
                    || snapshot.contradicts(before))
            {
                tracing::warn!(
                    before = %before.revision, now = %snapshot.revision,
                    "etcd went backwards: it was wiped, or restored from a backup"
                );
                view.regressions += 1;
                view.regressed_at = Some(Instant::now());
            }
            if let Some(stale) = view.stale.take() {
                tracing::info!(
                    after = %crate::model::format_span(stale.since.elapsed()),
                    revision = %snapshot.revision, keys = snapshot.entries.len(),
                    "following the keys in etcd"
                );
            }
            view.snapshot = Some(Arc::new(snapshot));
        });
    }

    /// Follows from the published picture; however it ends, the caller lists again.
    async fn watch(&mut self) -> End {
        let after = self.seen;
        // Dropped on return, which ends the forwarding tasks and their streams.
        let mut streams = JoinSet::new();
        let mut events = match self.open(after, &mut streams).await {
            Ok(events) => events,
            Err(error) => return End::Error(error),
        };
        let due = Instant::now() + self.options.reconcile;
        loop {
            let event = match tokio::time::timeout_at(due, events.recv()).await {
                Err(_) => return End::ReconcileDue,
                Ok(None) => return End::Error(StoreError::Unreachable("the watch ended".into())),
                Ok(Some(event)) => event,
            };
            let done = match event {
                Ok(event) => self.take(event).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                return End::Error(error);
            }
        }
    }

    async fn open(&self, after: Revision, streams: &mut JoinSet<()>) -> Result<Events, StoreError> {
        let (sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        for tree in &self.trees {
            let mut stream = self.store.watch(tree, after).await?;
            let sender = sender.clone();
            // `next` need not survive being dropped half-way, so it gets a task.
            streams.spawn(async move {
                loop {
                    let event = stream.next().await;
                    let last = event.is_err();
                    if sender.send(event).await.is_err() || last {
                        return;
                    }
                }
            });
        }
        Ok(events)
    }

    async fn take(&mut self, event: WatchEvent) -> Result<(), StoreError> {
        let WatchEvent::Changes(changes) = event else { return Ok(()) };
        let newest = changes.iter().map(crate::model::Change::revision).max();
        if self.trees.len() > 1 {
            return if newest > Some(self.seen) { self.list().await } else { Ok(()) };
        }
        self.seen = newest.unwrap_or_default().max(self.seen);
        self.view.send_modify(|view| {
            let mut next = view.snapshot.take().unwrap_or_default();
            let picture = Arc::make_mut(&mut next);
            changes.into_iter().for_each(|change| picture.apply(change));
            view.snapshot = Some(next);
        });
        Ok(())
    }

    async fn pause(&mut self, error: StoreError) {
        let wait = self.options.backoff.after_failure(fastrand::f64());
        // One line at once, and then one a minute.
        let reminder = self.lost.get_or_insert_with(Reminder::at_once);
        reminder.remind(&format!("lost sight of the keys in etcd, trying again: {error}"));
        self.view.send_modify(|view| {
            let since = view.stale.as_ref().map_or_else(Instant::now, |s| s.since);
            view.stale = Some(Stale { since, why: error.to_string() });
        });
        tokio::time::sleep(wait).await;
    }
}
