//! Puts the changes of several watchers of one stream together by revision, so that no reader acts
//! on half of a transaction.
//!
//! etcd hands one revision to all watchers of a stream in one step, but in a message for each. So
//! after a change the stream is asked for its progress: an answer that is sent afterwards means
//! that whatever belongs to the revisions before it has come.
//!
//! From 3.4.25 and 3.5.8 on that is a promise (etcd issue 15220). Before, the answer may overtake
//! messages which the server has ready and cannot send; such a late change is noticed
//! ([`Late`]), and then everything is read again. Old servers (3.0.17) do not answer at all, nor do
//! newer ones while a watcher lags behind: until an answer comes, changes are handed on as
//! [`WatchEvent::Partial`].
//!
//! It knows nothing of streams and clocks.

use std::mem;

use crate::model::{Change, Revision};
use crate::store::WatchEvent;

/// The changes that have come and are not handed on yet.
#[derive(Debug)]
pub(super) struct Merge {
    waiting: Vec<Change>,
    /// The newest revision that had come when the stream was last asked; `None` if it was not, or
    /// has answered.
    asked: Option<Revision>,
    /// Whether this server answers. Not known until it has.
    answers: bool,
    /// Everything up to here was handed on as complete.
    complete: Revision,
}

/// A change that belongs to a revision which was taken for complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Late;

impl Merge {
    /// For watchers that deliver what comes after `after`.
    pub(super) fn new(after: Revision) -> Self {
        Self { waiting: Vec::new(), asked: None, answers: false, complete: after }
    }

    /// Takes what one watcher has delivered.
    pub(super) fn take(&mut self, changes: Vec<Change>) -> Result<Option<WatchEvent>, Late> {
        if changes.iter().any(|change| change.revision() <= self.complete) {
            return Err(Late);
        }
        self.waiting.extend(changes);
        Ok(if self.answers { None } else { self.partial() })
    }

    /// Whether the stream is to be asked for its progress now.
    pub(super) fn wants_to_ask(&self) -> bool {
        self.asked.is_none() && (!self.answers || !self.waiting.is_empty())
    }

    /// The stream was asked.
    pub(super) fn asked(&mut self) {
        self.asked = Some(self.newest().unwrap_or(self.complete));
    }

    /// Whether changes wait for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The stream has answered that it is at `progress`: what had come before it was asked is
    /// complete, unless the answer is to an earlier question.
    pub(super) fn answered(&mut self, progress: Revision) -> Option<WatchEvent> {
        self.answers = true;
        let complete = self.asked.take_if(|asked| *asked <= progress)?;
        self.complete = self.complete.max(complete);
        let all = mem::take(&mut self.waiting);
        let (mut ready, later): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|change| change.revision() <= complete);
        self.waiting = later;
        // Stable: the changes of one key come from one watcher, in order.
        ready.sort_by_key(Change::revision);
        (!ready.is_empty()).then_some(WatchEvent::Changes(ready))
    }

    /// Hands on what is buffered, as it is. A reader that reads again because of it then knows more
    /// than this, so the revision that is reported as complete does not move.
    pub(super) fn partial(&mut self) -> Option<WatchEvent> {
        self.answers = false;
        self.asked = None;
        let mut changes = mem::take(&mut self.waiting);
        changes.sort_by_key(Change::revision);
        (!changes.is_empty()).then_some(WatchEvent::Partial(changes))
    }

    /// For another stream, after everything that came by this one was handed on.
    pub(super) fn begin_again(&self) -> Self {
        Self::new(self.complete)
    }

    fn newest(&self) -> Option<Revision> {
        self.waiting.iter().map(Change::revision).max()
    }
}
