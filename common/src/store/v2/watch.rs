//! The watch of etcd v2: one long poll after the other.
//!
//! The server keeps the last 1000 events of the whole store, refreshes included,
//! so a poll is issued again at once after each event. `stream=true` would save
//! the round trip, but delivers only the first event of the past.
//!
//! A poll for an index of the future simply waits, also for one that a wiped store will reach
//! in a year; and one whose connection is dead waits for ever. Therefore the index that comes
//! with the headers is compared, silence is checked by a quorum read, and no poll lasts longer
//! than [`MAX_POLL`].

use std::time::Duration;

use reqwest::{Method, Response};
use tokio::time::{Instant, timeout_at};

use super::V2;
use super::http::{grow, head, key_url, transport_error};
use super::wire::{CLEARED, HttpReply, KeyReply};
use crate::model::{Revision, Tree};
use crate::store::endpoints::EndpointChoice;
use crate::store::{StoreError, Watch, WatchEvent, default_deadline};

/// How long one poll is relied on. A quiet one is sent again for the same index: only that
/// loses nothing when an answer was under way.
const MAX_POLL: Duration = Duration::from_secs(50);

/// Silence after which the server is asked for its index.
const QUIET: Duration = Duration::from_secs(10);

/// A poll that ends without an event after this long was ended by a proxy's time-out or a
/// restart, which is no error by itself; before, something is wrong.
const BRIEF: Duration = Duration::from_secs(1);

/// A running watch of one tree.
pub struct V2Watch {
    store: V2,
    tree: Tree,
    /// Everything up to here has been delivered.
    seen: Revision,
    poll: Option<LongPoll>,
}

/// A request whose headers have arrived and whose event has not. Kept in the watch, so that
/// `next` may be dropped and called again.
struct LongPoll {
    endpoint: EndpointChoice,
    response: Response,
    reply: HttpReply,
    since: Instant,
    until: Instant,
    check_at: Instant,
}

impl V2Watch {
    pub(super) async fn open(
        store: V2,
        tree: Tree,
        after: Revision,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let mut watch = Self { store, tree, seen: after, poll: None };
        watch.poll = Some(watch.issue(deadline).await?);
        Ok(watch)
    }

    async fn issue(&self, deadline: Instant) -> Result<LongPoll, StoreError> {
        let endpoints = &self.store.shared.endpoints;
        let endpoint = endpoints.choose().await?;
        let next = (self.seen.0.saturating_add(1)).to_string();
        let params = [("wait", "true"), ("recursive", "true"), ("waitIndex", next.as_str())];
        let url = key_url(&endpoint.url, self.tree.path());
        let request = self.store.request(Method::GET, url)?.query(&params);
        // The headers come at once; only the body waits for the event.
        let opened = async { request.send().await.map_err(transport_error) };
        let response = endpoints.bounded(&endpoint, deadline, opened).await?;
        let reply = head(&response);
        if reply.status == 200 && reply.index()? < self.seen {
            // Perhaps only this member lags behind; a quorum read shows it.
            self.check().await?;
        }
        let now = Instant::now();
        Ok(LongPoll {
            endpoint,
            response,
            reply,
            since: now,
            until: now + MAX_POLL,
            check_at: now + QUIET,
        })
    }

    async fn check(&self) -> Result<(), StoreError> {
        let now = self.store.index(&self.tree, default_deadline()).await?;
        if now < self.seen {
            return Err(StoreError::Regressed { seen: self.seen, now });
        }
        Ok(())
    }

    fn take(&mut self, reply: &HttpReply) -> Result<WatchEvent, StoreError> {
        let event = match reply.read()? {
            KeyReply::Done(event) => event,
            KeyReply::Failed(error) if error.error_code == CLEARED => {
                return Err(StoreError::Compacted(self.seen));
            }
            KeyReply::Failed(error) => return Err(error.into()),
        };
        self.seen = self.seen.max(Revision(event.node.modified_index));
        Ok(match event.change(&self.tree) {
            Some(change) => WatchEvent::Changes(vec![change]),
            None => WatchEvent::Progress(self.seen),
        })
    }
}

impl LongPoll {
    /// Receives the body. May be dropped and called again.
    async fn receive(&mut self) -> Result<(), StoreError> {
        while let Some(part) = self.response.chunk().await.map_err(transport_error)? {
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
                self.poll = Some(self.issue(default_deadline()).await?);
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
                // Not sent again for the same index: a store restored from a backup may have got
                // there by other changes, and nothing would show it.
                Ok(Err(StoreError::Unreachable(_))) if poll.since.elapsed() >= BRIEF => {
                    return Err(StoreError::Interrupted);
                }
                Ok(Err(error)) => {
                    return Err(self.store.shared.endpoints.failed(&poll.endpoint, error));
                }
                Ok(Ok(())) => {
                    let ended = self.poll.take().map(|poll| poll.reply).unwrap_or_default();
                    return self.take(&ended);
                }
            }
        }
    }
}
