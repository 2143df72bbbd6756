//! The watch of etcd v2: one long poll after the other.
//!
//! The server keeps the last 1000 events of the whole store, refreshes included,
//! so a poll is issued again at once after each event. `stream=true` would save
//! the round trip, but delivers only the first event of the past.
//!
//! A poll for an index of the future simply waits, also for one that a wiped store
//! will reach in a year; and one whose line was cut waits for ever. Therefore the
//! index that comes with the headers is compared, silence is looked into by a
//! quorum read, and no poll lasts longer than [`POLL`].

use std::time::Duration;

use reqwest::{Method, Response};
use tokio::time::{Instant, timeout_at};

use super::V2;
use super::http::{cut, grow, head, key_url};
use super::wire::{CLEARED, Reply, Said};
use crate::model::{Revision, Tree};
use crate::store::rotation::Seat;
use crate::store::{StoreError, Watch, WatchEvent};

/// The longest that one poll is relied on. A quiet one is issued again for the same
/// index: only that loses nothing when its answer was under way.
const POLL: Duration = Duration::from_secs(50);

/// Silence after which the server is asked whether all is well.
const QUIET: Duration = Duration::from_secs(10);

/// A poll that was ended without an event after this long was ended by a proxy's
/// time-out or a restart, and is no trouble by itself; before, something is wrong.
const BRIEF: Duration = Duration::from_secs(1);

/// A running watch of one tree.
pub struct V2Watch {
    store: V2,
    tree: Tree,
    /// Everything up to here has been delivered.
    seen: Revision,
    poll: Option<Poll>,
}

/// A request whose headers are here and whose event is not. Kept in the watch, so
/// that `next` may be dropped and called again.
struct Poll {
    seat: Seat,
    response: Response,
    reply: Reply,
    since: Instant,
    until: Instant,
    check_at: Instant,
}

impl V2Watch {
    pub(super) async fn open(store: V2, tree: Tree, after: Revision) -> Result<Self, StoreError> {
        let mut watch = Self { store, tree, seen: after, poll: None };
        watch.poll = Some(watch.issue().await?);
        Ok(watch)
    }

    async fn issue(&self) -> Result<Poll, StoreError> {
        let rotation = &self.store.shared.rotation;
        let seat = rotation.seat().await?;
        let next = (self.seen.0.saturating_add(1)).to_string();
        let params = [("wait", "true"), ("recursive", "true"), ("waitIndex", next.as_str())];
        let url = key_url(&seat.url, self.tree.path());
        let request = self.store.request(Method::GET, url).query(&params);
        // The headers come at once; only the body waits for the event.
        let opened = async { request.send().await.map_err(cut) };
        let response = rotation.bounded(&seat, self.store.limit(), opened).await?;
        let reply = head(&response);
        if reply.status == 200 && reply.index()? < self.seen {
            // Perhaps only a member that lags behind; a quorum knows.
            self.check().await?;
        }
        let now = Instant::now();
        Ok(Poll { seat, response, reply, since: now, until: now + POLL, check_at: now + QUIET })
    }

    async fn check(&self) -> Result<(), StoreError> {
        let now = self.store.index(&self.tree).await?;
        if now < self.seen {
            return Err(StoreError::Regressed { seen: self.seen, now });
        }
        Ok(())
    }

    fn take(&mut self, reply: &Reply) -> Result<WatchEvent, StoreError> {
        let answer = match reply.read()? {
            Said::Done(answer) => answer,
            Said::No(refusal) if refusal.error_code == CLEARED => {
                return Err(StoreError::Compacted(self.seen));
            }
            Said::No(refusal) => return Err(refusal.into()),
        };
        self.seen = self.seen.max(Revision(answer.node.modified_index));
        Ok(match answer.change(&self.tree) {
            Some(change) => WatchEvent::Changes(vec![change]),
            None => WatchEvent::Progress(self.seen),
        })
    }
}

impl Poll {
    /// Receives the body. May be dropped and called again.
    async fn receive(&mut self) -> Result<(), StoreError> {
        while let Some(part) = self.response.chunk().await.map_err(cut)? {
            grow(&mut self.reply.body, &part)?;
        }
        if self.reply.status == 200 && self.reply.body.is_empty() {
            return Err(StoreError::Unreachable("the server ended the watch".to_owned()));
        }
        Ok(())
    }
}

impl Watch for V2Watch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            let Some(poll) = &mut self.poll else {
                self.poll = Some(self.issue().await?);
                continue;
            };
            match timeout_at(poll.check_at, poll.receive()).await {
                Err(_) if poll.until <= Instant::now() => self.poll = None,
                Err(_) => {
                    self.check().await?;
                    if let Some(poll) = &mut self.poll {
                        poll.check_at = Instant::now() + QUIET;
                    }
                }
                // Not issued again for the same index: a store restored from a backup may
                // have got there by other changes, and nothing would tell.
                Ok(Err(StoreError::Unreachable(_))) if poll.since.elapsed() >= BRIEF => {
                    return Err(StoreError::Cut);
                }
                Ok(Err(error)) => {
                    return Err(self.store.shared.rotation.failed(&poll.seat, error));
                }
                Ok(Ok(())) => {
                    let ended = self.poll.take().map(|poll| poll.reply).unwrap_or_default();
                    return self.take(&ended);
                }
            }
        }
    }
}
