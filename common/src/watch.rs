//! Read, then watch, then publish whole: the only module that handles a store's events.
//!
//! What it publishes is a [`View`]: a complete [`Snapshot`] and whether it is fresh. A reader
//! never acts on half a list, and learns of compaction, interrupted streams or time-outs only
//! by a view that is stale for a while.
//!
//! One tree is followed by its changes. With several, a change only means that all trees are
//! read again at one revision: two watches of one server promise no order between each other.
//!
//! It knows nothing of what the keys mean.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::model::{Entry, Revision, Snapshot, Tree, format_span};
use crate::runtime::{Gate, OutageLog};
use crate::store::{Store, StoreError, Watch, WatchEvent, default_deadline, read_deadline};

/// What is known of the watched trees.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The last complete snapshot; `None` until the first read succeeded.
    pub snapshot: Option<Arc<Snapshot>>,
    /// How often the store has regressed (it was wiped or restored).
    pub regressions: u32,
    /// When the store last regressed.
    pub regressed_at: Option<Instant>,
    /// Why the snapshot may be out of date; `None` while it is followed.
    pub stale: Option<Stale>,
}

/// A view is not fresh.
#[derive(Debug, Clone)]
pub struct Stale {
    /// Since when.
    pub since: Instant,
    /// The cause.
    pub reason: StaleReason,
}

/// Why a view is not fresh; `Display` is for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaleReason {
    /// The first read has not been answered yet.
    NotReadYet,
    /// The first read waits for something else; see [`Start`].
    NotStarted(&'static str),
    /// A read or a watch failed and is repeated.
    Failed(StoreError),
}

impl fmt::Display for StaleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReadYet => f.write_str("etcd has not answered yet"),
            Self::NotStarted(reason) => f.write_str(reason),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// How a watch behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything is read again this often (with a jitter of a tenth), whatever the watch
    /// delivers: a second means against a store that loses an event.
    pub resync: Duration,
    /// The schedule of attempts after an error.
    pub backoff: Backoff,
    /// What the first read waits for; `None`: nothing.
    pub start: Option<Start>,
    /// Its keys are in no view, and their changes wake no reader: what a reader writes because
    /// of a view must not make the next view.
    pub ignored: Option<Tree>,
}

/// What the first read waits for.
#[derive(Debug, Clone)]
pub struct Start {
    /// Nothing is read before this is open.
    pub gate: Gate,
    /// Why nothing is read yet, for operators.
    pub reason: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            resync: Duration::from_secs(300),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            start: None,
            ignored: None,
        }
    }
}

/// Follows `trees` until `shutdown`, and publishes every new view. A slow reader gets only the
/// newest.
pub fn follow<S: Store>(
    store: S,
    trees: Vec<Tree>,
    options: Options,
    shutdown: CancellationToken,
) -> watch::Receiver<View> {
    let stale = Stale { since: Instant::now(), reason: StaleReason::NotReadYet };
    let (view, receiver) = watch::channel(View { stale: Some(stale), ..View::default() });
    let follower = Follower {
        store,
        trees,
        ignored: options.ignored,
        resync: options.resync,
        backoff: options.backoff,
        rereads: Backoff::new(REREAD_PAUSE, MAX_REREAD_PAUSE),
        view,
        seen: Revision::default(),
        outage: OutageLog::default(),
    };
    tokio::spawn(async move {
        shutdown.run_until_cancelled(follower.run(options.start)).await;
    });
    receiver
}

struct Follower<S> {
    store: S,
    trees: Vec<Tree>,
    ignored: Option<Tree>,
    resync: Duration,
    backoff: Backoff,
    /// The schedule of reads after a watch ended for want of history.
    rereads: Backoff,
    view: watch::Sender<View>,
    /// The snapshot has every change up to here.
    seen: Revision,
    outage: OutageLog,
}

/// Why a watch ended.
enum WatchEnd {
    ResyncDue,
    Error(StoreError),
}

/// What the next read comes after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadAfter {
    /// An unbroken watch: what is read is most probably known.
    Resync,
    /// A loss of sight, or nothing at all.
    Loss,
}

/// How long the gate may be closed before the view says so: usually it opens within this.
const START_GRACE: Duration = Duration::from_secs(3);

/// After a watch ended for want of history, the keys are read at once; the pause before the
/// next such read grows from the first to the second: a server, or a proxy in front of it, may
/// answer every watch like that.
const REREAD_PAUSE: Duration = Duration::from_millis(200);
const MAX_REREAD_PAUSE: Duration = Duration::from_secs(30);

/// A watch that lived for this long shows that the server does have history.
const STABLE: Duration = Duration::from_secs(60);

/// How many events may wait between a stream and the follower.
const EVENTS_IN_FLIGHT: usize = 64;

type Events = mpsc::Receiver<Result<WatchEvent, StoreError>>;

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
                    self.recover(error).await;
                    ReadAfter::Loss
                }
            };
        }
    }

    async fn wait_to_start(&mut self, start: Start) {
        if tokio::time::timeout(START_GRACE, start.gate.opened()).await.is_err() {
            self.view.send_modify(|view| {
                let reason = StaleReason::NotStarted(start.reason);
                view.stale = Some(Stale { since: Instant::now(), reason });
            });
            start.gate.opened().await;
        }
    }

    async fn read(&mut self, after: ReadAfter) -> Result<(), StoreError> {
        let mut snapshot = self.store.read(&self.trees, read_deadline()).await?;
        if let Some(ignored) = &self.ignored {
            snapshot.entries.retain(|key, _| !ignored.covers(key));
        }
        self.backoff.reset();
        self.outage = OutageLog::default();
        self.seen = snapshot.revision;
        // A revision that only other keys moved wakes no reader.
        if !(after == ReadAfter::Resync && self.is_known(&snapshot)) {
            self.publish(snapshot);
        }
        Ok(())
    }

    /// Whether the published snapshot has the same entries, refreshes aside.
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
                    "etcd has regressed: it was wiped, or restored from a backup"
                );
                view.regressions += 1;
                view.regressed_at = Some(Instant::now());
            }
            if let Some(stale) = view.stale.take() {
                tracing::info!(
                    after = %format_span(stale.since.elapsed()),
                    revision = %snapshot.revision, keys = snapshot.entries.len(),
                    "following the keys in etcd"
                );
            }
            view.snapshot = Some(Arc::new(snapshot));
        });
    }

    /// Follows the published snapshot; however it ends, the caller reads again.
    async fn watch(&mut self) -> WatchEnd {
        let after = self.seen;
        // Dropped on return, which ends the forwarding tasks and their streams.
        let mut streams = JoinSet::new();
        let mut events = match self.open(after, &mut streams).await {
            Ok(events) => events,
            Err(error) => return WatchEnd::Error(error),
        };
        let due = Instant::now() + self.resync.mul_f64(0.9 + fastrand::f64() / 5.0);
        loop {
            let event = match tokio::time::timeout_at(due, events.recv()).await {
                Err(_) => return WatchEnd::ResyncDue,
                Ok(None) => {
                    let ended = StoreError::Unreachable("the watch ended".into());
                    return WatchEnd::Error(ended);
                }
                Ok(Some(event)) => event,
            };
            let done = match event {
                Ok(event) => self.apply(event).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                return WatchEnd::Error(error);
            }
        }
    }

    async fn open(&self, after: Revision, streams: &mut JoinSet<()>) -> Result<Events, StoreError> {
        let (sender, events) = mpsc::channel(EVENTS_IN_FLIGHT);
        // Side by side: each takes a round trip or more.
        let opening =
            self.trees.iter().map(|tree| self.store.watch(tree, after, default_deadline()));
        for mut stream in try_join_all(opening).await? {
            let sender = sender.clone();
            // A task, so that a stream is read on while the follower reads all trees again.
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

    async fn apply(&mut self, event: WatchEvent) -> Result<(), StoreError> {
        let WatchEvent::Changes(mut changes) = event else { return Ok(()) };
        if let Some(ignored) = &self.ignored {
            changes.retain(|change| !ignored.covers(change.key()));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let newest = changes.iter().map(crate::model::Change::revision).max();
        if self.trees.len() > 1 {
            let news = newest > Some(self.seen);
            return if news { self.read(ReadAfter::Loss).await } else { Ok(()) };
        }
        self.seen = newest.unwrap_or_default().max(self.seen);
        self.view.send_modify(|view| {
            let mut next = view.snapshot.take().unwrap_or_default();
            let snapshot = Arc::make_mut(&mut next);
            changes.into_iter().for_each(|change| snapshot.apply(change));
            view.snapshot = Some(next);
        });
        Ok(())
    }

    /// Prepares the next read after an error: at once where only the history is missing, and
    /// after a pause where etcd does not answer, or where the same happens again and again.
    async fn recover(&mut self, error: StoreError) {
        let pause = match &error {
            StoreError::Interrupted => {
                tracing::debug!(%error, "reading the keys again");
                self.reread_pause()
            }
            StoreError::Compacted(_) | StoreError::Regressed { .. } => {
                self.outage.remind(&format!("reading the keys again: {error}"));
                self.reread_pause()
            }
            _ => {
                self.outage.remind(&format!("watch failed, retrying: {error}"));
                self.view.send_modify(|view| {
                    let since = view.stale.as_ref().map_or_else(Instant::now, |s| s.since);
                    let reason = StaleReason::Failed(error);
                    view.stale = Some(Stale { since, reason });
                });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Key, Ttl};
    use crate::store::{Guard, Memory};

    #[tokio::test]
    async fn ignored_keys_are_in_no_view_and_wake_nobody() {
        let store = Memory::default();
        let lease = store.grant(Ttl::DEFAULT, default_deadline()).await.unwrap();
        let put = async |key: &str| {
            let key: Key = key.parse().unwrap();
            store.put(&key, b"x", lease, &Guard::Absent, default_deadline()).await.unwrap();
        };
        put("/confsync/acks/web/lb-1").await;
        let ignored = Some("/confsync".parse().unwrap());
        let options = Options { ignored, ..Options::default() };
        let shutdown = CancellationToken::new();
        let mut view = follow(store.clone(), vec!["/".parse().unwrap()], options, shutdown);
        view.changed().await.unwrap();
        assert!(view.borrow_and_update().snapshot.clone().unwrap().entries.is_empty());

        put("/confsync/acks/web/lb-2").await;
        put("/settings/title").await;
        view.changed().await.unwrap();
        let seen = view.borrow_and_update().snapshot.clone().unwrap();
        assert!(seen.entries.keys().map(|key| &**key).eq(["/settings/title"]));
        put("/confsync/acks/web/lb-3").await;
        put("/settings/end").await;
        let all = |view: &View| view.snapshot.as_ref().is_some_and(|s| s.entries.len() == 2);
        let mut woken = 0;
        while !all(&view.borrow_and_update()) {
            view.changed().await.unwrap();
            woken += 1;
        }
        assert!(woken <= 1, "woken {woken} times by one change");
    }
}
