//! The watch of etcd v2: one long poll after the other.
//!
//! The server keeps the last 1000 events of the whole store, refreshes included,
//! so a poll is issued again at once after each event. `stream=true` would save
//! the round trip, but delivers only the first event of the past.
//!
//! A poll for an index in the future simply waits, even for one that a wiped store will reach only
//! in a year; and one whose connection is dead waits forever. Therefore the index in the headers is
//! compared, silence is checked by a quorum read, and no poll lasts longer than [`MAX_POLL`].
//!
//! Several trees are several polls, and nothing says how far the silent ones have got: their
//! changes are [`WatchEvent::Partial`].

use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{select_all, try_join_all};
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
/// restart, which is no error by itself; before, something is wrong. Without headers, making the
/// connection may have taken most of it.
const BRIEF: Duration = Duration::from_secs(1);
const BRIEF_WITHOUT_HEADERS: Duration = Duration::from_secs(6);

/// How long the headers of a first poll are waited for before the index is asked for.
const HEADERS: Duration = Duration::from_secs(1);

/// A running watch of one tree or several.
pub struct V2Watch {
    trees: Vec<TreeWatch>,
}

/// A running watch of one tree.
struct TreeWatch {
    place: WatchPosition,
    poll: Option<LongPoll>,
}

/// What is watched, and how far.
struct WatchPosition {
    store: V2,
    tree: Tree,
    /// Everything up to here has been delivered.
    seen: Revision,
}

/// A request that waits for its event. Kept in the watch, so that `next` may be dropped and
/// called again.
struct LongPoll {
    endpoint: EndpointChoice,
    answer: LongPollResponse,
    since: Instant,
    until: Instant,
    check_at: Instant,
}

type Sending = Pin<Box<dyn Future<Output = Result<Response, StoreError>> + Send>>;

enum LongPollResponse {
    /// The headers have not come. A server sends them at once; etcd 2 as a proxy, and others that
    /// buffer, keep them until there is an event.
    Awaited(Sending),
    Arrived(Response, HttpReply),
}

/// How far a poll has come.
enum PollStep {
    /// The headers are there.
    Headers,
    /// All of the answer is there.
    Ended,
}

impl V2Watch {
    pub(super) async fn open(
        store: &V2,
        trees: &[Tree],
        after: Revision,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        // Side by side: each takes a round trip or more.
        let opening =
            trees.iter().map(|tree| TreeWatch::open(store.clone(), tree.clone(), after, deadline));
        Ok(Self { trees: try_join_all(opening).await? })
    }
}

impl Watch for V2Watch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        if let [tree] = self.trees.as_mut_slice() {
            return tree.next().await;
        }
        let each = self.trees.iter_mut().map(|tree| Box::pin(tree.next()));
        let (event, ..) = select_all(each).await;
        Ok(match event? {
            WatchEvent::Changes(changes) => WatchEvent::Partial(changes),
            other => other,
        })
    }
}

impl TreeWatch {
    async fn open(
        store: V2,
        tree: Tree,
        after: Revision,
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        let place = WatchPosition { store, tree, seen: after };
        let mut poll = place.issue().await?;
        let patience = deadline.min(Instant::now() + HEADERS);
        match timeout_at(patience, poll.advance()).await {
            Ok(Ok(_)) if place.is_ahead_of(&poll)? => place.check(deadline).await?,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(place.failed(&poll, error)),
            // A proxy that buffers the headers, or a member that hangs: a read finds out which.
            Err(_) => place.check(deadline).await?,
        }
        Ok(Self { place, poll: Some(poll) })
    }
}

impl WatchPosition {
    async fn issue(&self) -> Result<LongPoll, StoreError> {
        let endpoint = self.store.shared.endpoints.choose().await?;
        let next = (self.seen.0.saturating_add(1)).to_string();
        let params = [("wait", "true"), ("recursive", "true"), ("waitIndex", next.as_str())];
        let url = key_url(&endpoint.url, self.tree.path());
        let request = self.store.request(Method::GET, url)?.query(&params);
        let sending = async move { request.send().await.map_err(transport_error) };
        let now = Instant::now();
        Ok(LongPoll {
            endpoint,
            answer: LongPollResponse::Awaited(Box::pin(sending)),
            since: now,
            until: now + MAX_POLL,
            check_at: now + QUIET,
        })
    }

    /// Whether the index in the headers is below what was seen. Perhaps only this member lags
    /// behind: [`Self::check`] shows it.
    fn is_ahead_of(&self, poll: &LongPoll) -> Result<bool, StoreError> {
        match &poll.answer {
            LongPollResponse::Arrived(_, reply) if reply.status == 200 => {
                Ok(reply.index()? < self.seen)
            }
            _ => Ok(false),
        }
    }

    /// Asks for the store's index, by quorum.
    async fn check(&self, deadline: Instant) -> Result<(), StoreError> {
        let now = self.store.index(&self.tree, deadline).await?;
        if now < self.seen {
            return Err(StoreError::Regressed { seen: self.seen, now });
        }
        Ok(())
    }

    /// What the failure of a poll means.
    fn failed(&self, poll: &LongPoll, error: StoreError) -> StoreError {
        let brief = match poll.answer {
            LongPollResponse::Awaited(_) => BRIEF_WITHOUT_HEADERS,
            LongPollResponse::Arrived(..) => BRIEF,
        };
        match error {
            // Not sent again for the same index: a store restored from a backup may have got
            // there by other changes, and nothing would show it.
            error if error.is_unanswered() && poll.since.elapsed() >= brief => {
                StoreError::Interrupted
            }
            error => self.store.shared.endpoints.failed(&poll.endpoint, error),
        }
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
    /// Waits for the headers, or then for the rest. May be dropped and called again.
    async fn advance(&mut self) -> Result<PollStep, StoreError> {
        let (response, reply) = match &mut self.answer {
            LongPollResponse::Awaited(sending) => {
                let response = sending.await?;
                let reply = head(&response);
                self.answer = LongPollResponse::Arrived(response, reply);
                return Ok(PollStep::Headers);
            }
            LongPollResponse::Arrived(response, reply) => (response, reply),
        };
        while let Some(part) = response.chunk().await.map_err(transport_error)? {
            grow(&mut reply.body, &part)?;
        }
        if reply.status == 200 && reply.body.is_empty() {
            return Err(StoreError::Unreachable("the server ended the watch".to_owned()));
        }
        Ok(PollStep::Ended)
    }

    fn into_reply(self) -> HttpReply {
        match self.answer {
            LongPollResponse::Awaited(_) => HttpReply::default(),
            LongPollResponse::Arrived(_, reply) => reply,
        }
    }
}

impl TreeWatch {
    async fn next(&mut self) -> Result<WatchEvent, StoreError> {
        loop {
            let Some(poll) = &mut self.poll else {
                self.poll = Some(self.place.issue().await?);
                continue;
            };
            let step = timeout_at(poll.check_at, poll.advance()).await;
            let Some(mut poll) = self.poll.take() else { continue };
            match step {
                Err(_) if poll.until <= Instant::now() => {}
                // Kept before anything else is waited for: this call may be dropped.
                Err(_) => {
                    poll.check_at = Instant::now() + QUIET;
                    self.poll = Some(poll);
                    self.place.check(default_deadline()).await?;
                }
                Ok(Ok(PollStep::Headers)) => {
                    let ahead = self.place.is_ahead_of(&poll)?;
                    self.poll = Some(poll);
                    if ahead {
                        self.place.check(default_deadline()).await?;
                    }
                }
                Ok(Ok(PollStep::Ended)) => return self.place.take(&poll.into_reply()),
                Ok(Err(error)) => return Err(self.place.failed(&poll, error)),
            }
        }
    }
}
