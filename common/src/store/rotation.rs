//! Which of several endpoints is asked: one, until it fails; then the next.
//!
//! Sticky, because a connection that works is worth more than an even load, and
//! because a balancer keeps sending requests to a member that hangs. The start is
//! shuffled, so that a fleet does not lean on the first endpoint of its flag.
//!
//! A caller's own, shorter deadline drops the call: that counts as a failure too,
//! or a hung member would be asked for ever. This module knows nothing of v2 or v3.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use url::Url;

use super::StoreError;
use super::discovery::Discovery;
use crate::model::format_span;

/// A call dropped before this was not given up: the caller went on to something
/// else, as a `select!` does.
const IMPATIENT: Duration = Duration::from_millis(200);

/// The endpoints and whose turn it is. Clones share it.
#[derive(Clone)]
pub(super) struct Rotation {
    ring: Arc<Mutex<Ring>>,
    /// Where the endpoints came from, if they may change.
    discovery: Option<Arc<Discovery>>,
}

#[derive(Debug)]
struct Ring {
    endpoints: Vec<Url>,
    at: usize,
    /// Grows with each rotation, also with a single endpoint: a new turn asks for
    /// a new connection.
    turn: u64,
    /// The turn at which DNS was asked last.
    found_at: u64,
}

/// The endpoint to ask now.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// Which rotation this is; connections belong to one.
    pub(super) turn: u64,
    /// The endpoint.
    pub(super) url: Url,
}

impl Seat {
    /// `host:port`, for messages.
    pub(super) fn name(&self) -> String {
        place(&self.url)
    }
}

/// `host:port` of a URL, for messages: never a user or a password.
pub(super) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Rotation {
    /// Starts with the first endpoint. [`shuffled`] before, unless one of them is
    /// known to answer.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn new(endpoints: Vec<Url>) -> Result<Self, StoreError> {
        if endpoints.is_empty() {
            return Err(StoreError::Refused("no etcd endpoint is given".to_owned()));
        }
        let ring = Ring { endpoints, at: 0, turn: 0, found_at: 0 };
        Ok(Self { ring: Arc::new(Mutex::new(ring)), discovery: None })
    }

    /// The same, whose endpoints are looked up again when all have failed.
    pub(super) fn found_by(self, discovery: Option<Arc<Discovery>>) -> Self {
        Self { discovery, ..self }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose turn it is.
    ///
    /// # Errors
    /// Never in practice: a rotation has at least one endpoint.
    pub(super) async fn seat(&self) -> Result<Seat, StoreError> {
        if let Some(discovery) = &self.discovery
            && self.ring().all_have_failed()
        {
            match discovery.lookup().await {
                Ok(endpoints) => self.ring().replace(endpoints),
                Err(error) => tracing::debug!(%error, "staying with the endpoints known"),
            }
        }
        let ring = self.ring();
        let url = ring.endpoints.get(ring.at).cloned();
        url.map(|url| Seat { turn: ring.turn, url })
            .ok_or_else(|| StoreError::Refused("no etcd endpoint is left".to_owned()))
    }

    /// Goes on to the next endpoint, unless somebody has done so since `turn`.
    pub(super) fn leave(&self, turn: u64) {
        let mut ring = self.ring();
        if ring.turn == turn {
            ring.turn += 1;
            ring.at = (ring.at + 1) % ring.endpoints.len().max(1);
        }
    }

    /// Awaits one call to the endpoint of `seat`, `limit` at most, and goes on to
    /// the next endpoint when it brings no answer.
    ///
    /// # Errors
    /// Those of the call, and [`StoreError::Unreachable`] at the limit; the latter
    /// names the endpoint.
    pub(super) async fn bounded<T>(
        &self,
        seat: &Seat,
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut watched = Attempt { rotation: self, turn: seat.turn, since: Some(Instant::now()) };
        let result = timeout(limit, call).await.unwrap_or_else(|_| {
            Err(StoreError::Unreachable(format!("no answer within {}", format_span(limit))))
        });
        watched.since = None;
        result.map_err(|error| self.failed(seat, error))
    }

    /// Goes on to the next endpoint if `error` says that this one does not answer,
    /// and names it in the message.
    pub(super) fn failed(&self, seat: &Seat, error: StoreError) -> StoreError {
        match error {
            StoreError::Unreachable(why) => {
                self.leave(seat.turn);
                StoreError::Unreachable(format!("{}: {why}", seat.name()))
            }
            other => other,
        }
    }
}

impl Ring {
    /// True once for each round of failures.
    fn all_have_failed(&mut self) -> bool {
        let round = u64::try_from(self.endpoints.len()).unwrap_or(u64::MAX);
        let over = self.turn - self.found_at >= round;
        if over {
            self.found_at = self.turn;
        }
        over
    }

    fn replace(&mut self, endpoints: Vec<Url>) {
        let same = endpoints.len() == self.endpoints.len()
            && endpoints.iter().all(|url| self.endpoints.contains(url));
        if !same && !endpoints.is_empty() {
            let turn = self.turn + 1;
            *self = Self { endpoints, at: 0, turn, found_at: turn };
        }
    }
}

/// A call under way. Dropped unfinished after a while, its endpoint is left.
struct Attempt<'r> {
    rotation: &'r Rotation,
    turn: u64,
    since: Option<Instant>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= IMPATIENT) {
            self.rotation.leave(self.turn);
        }
    }
}

/// The endpoints in a random order.
pub(super) fn shuffled(mut endpoints: Vec<Url>) -> Vec<Url> {
    fastrand::shuffle(&mut endpoints);
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Rotation {
        let urls = ["http://a:1", "http://b:2", "http://c:3"];
        Rotation::new(urls.iter().map(|u| u.parse().unwrap()).collect()).unwrap()
    }

    async fn name(rotation: &Rotation) -> String {
        rotation.seat().await.unwrap().name()
    }

    #[tokio::test]
    async fn two_calls_that_fail_together_rotate_once() {
        let rotation = three();
        let (first, second) = (rotation.seat().await.unwrap(), rotation.seat().await.unwrap());
        rotation.leave(first.turn);
        rotation.leave(second.turn);
        assert_eq!(name(&rotation).await, "b:2");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_a_dropped_call_rotate_and_a_refusal_does_not() {
        let rotation = three();
        let hung = || std::future::pending::<Result<(), StoreError>>();
        let limit = Duration::from_secs(5);
        let error =
            rotation.bounded(&rotation.seat().await.unwrap(), limit, hung()).await.unwrap_err();
        assert_eq!(error, StoreError::Unreachable("a:1: no answer within 5s".into()));
        assert_eq!(name(&rotation).await, "b:2");

        let seat = rotation.seat().await.unwrap();
        let call = rotation.bounded(&seat, limit, hung());
        assert!(timeout(Duration::from_secs(1), call).await.is_err());
        assert_eq!(name(&rotation).await, "c:3");

        let seat = rotation.seat().await.unwrap();
        let brief = rotation.bounded(&seat, limit, hung());
        assert!(timeout(Duration::from_millis(10), brief).await.is_err());
        let refused = async { Err::<(), _>(StoreError::Refused("no".into())) };
        assert!(rotation.bounded(&seat, limit, refused).await.is_err());
        assert_eq!(name(&rotation).await, "c:3");
    }
}
