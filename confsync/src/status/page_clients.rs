//! The clients that have the page open. While there is one, the other load balancers are followed
//! in etcd; otherwise that costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::handshake::Bookkeeping;
use common::store::Store;
use common::watch::{self, Options, WatchLog};
use tokio::sync::{Notify, watch as channel};
use tokio_util::sync::CancellationToken;

use crate::status::load_balancers::Followed;

/// The most clients at a time; a further one gets an error.
const MOST: usize = 24;
/// A client that reloads the page is back within this time.
const LINGER: Duration = Duration::from_secs(5);

/// Shared by all clients. Clones refer to the same state.
#[derive(Debug, Clone)]
pub struct PageClients {
    inner: Arc<ClientState>,
}

#[derive(Debug)]
struct ClientState {
    count: AtomicUsize,
    changed: Notify,
    fleet: channel::Sender<Option<Followed>>,
}

/// One client, until this is dropped.
#[derive(Debug)]
pub(super) struct PageClient {
    inner: Arc<ClientState>,
    /// The load balancers; `None` until they were read from etcd.
    pub(super) fleet: channel::Receiver<Option<Followed>>,
}

impl Default for PageClients {
    fn default() -> Self {
        let (fleet, _) = channel::channel(None);
        let inner = ClientState { count: AtomicUsize::new(0), changed: Notify::new(), fleet };
        Self { inner: Arc::new(inner) }
    }
}

impl PageClients {
    /// Adds a client, unless there are too many.
    pub(super) fn join(&self) -> Option<PageClient> {
        let more = |count: usize| (count < MOST).then_some(count + 1);
        self.inner.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        self.inner.changed.notify_one();
        Some(PageClient { inner: Arc::clone(&self.inner), fleet: self.inner.fleet.subscribe() })
    }

    /// The load balancers, for rendering.
    pub(super) fn fleet(&self) -> channel::Receiver<Option<Followed>> {
        self.inner.fleet.subscribe()
    }

    /// The number of clients.
    pub(super) fn count(&self) -> usize {
        self.inner.count.load(Ordering::SeqCst)
    }

    /// Follows the load balancers whenever there is a client, until `shutdown`.
    pub fn follow<S: Store>(
        &self,
        store: S,
        bookkeeping: Bookkeeping,
        shutdown: CancellationToken,
    ) {
        let this = self.clone();
        tokio::spawn(async move {
            let work = async {
                loop {
                    while this.count() == 0 {
                        this.inner.changed.notified().await;
                    }
                    this.watch(store.clone(), &bookkeeping).await;
                }
            };
            shutdown.run_until_cancelled(work).await;
        });
    }

    /// Publishes the load balancers in etcd, until the last client has disconnected.
    async fn watch<S: Store>(&self, store: S, bookkeeping: &Bookkeeping) {
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let trees = vec![bookkeeping.members(), bookkeeping.acks(), bookkeeping.leave_markers()];
        let mut view = watch::follow(
            store,
            trees,
            Options { log: WatchLog::Nothing, ..Options::default() },
            stop,
        );
        loop {
            let found = view.borrow_and_update().snapshot.clone();
            // An outdated state of the others is worth less than none.
            let followed = found.map(|found| Followed::read(&found, bookkeeping));
            self.inner.fleet.send_replace(followed);
            tokio::select! {
                changed = view.changed() => if changed.is_err() { break },
                () = self.until_unwatched() => break,
            }
        }
        self.inner.fleet.send_replace(None);
    }

    async fn until_unwatched(&self) {
        loop {
            while self.count() > 0 {
                self.inner.changed.notified().await;
            }
            tokio::time::sleep(LINGER).await;
            if self.count() == 0 {
                return;
            }
        }
    }
}

impl Drop for PageClient {
    fn drop(&mut self) {
        self.inner.count.fetch_sub(1, Ordering::SeqCst);
        self.inner.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let page_clients = PageClients::default();
        let mut all: Vec<_> = (0..MOST).map(|_| page_clients.join().unwrap()).collect();
        assert!(page_clients.join().is_none());
        all.pop();
        assert_eq!(page_clients.count(), MOST - 1);
        assert!(page_clients.join().is_some());
    }
}
