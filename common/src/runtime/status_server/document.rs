//! One rendered document for all who read it: made anew when its source has changed, and
//! once a second for the times in it, however many ask.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

/// Times in a document are this old at most.
const STALE: Duration = Duration::from_secs(1);

/// What a document is made of.
pub trait DocumentSource {
    /// Whether it has changed since this was last asked.
    fn has_changed(&mut self) -> bool;
}

impl<T> DocumentSource for watch::Receiver<T> {
    fn has_changed(&mut self) -> bool {
        // A publisher that has ended changes nothing any more.
        let changed = watch::Receiver::has_changed(self).unwrap_or(false);
        self.mark_unchanged();
        changed
    }
}

/// A document made of what `source` says.
#[derive(Debug)]
pub struct SharedDocument<S> {
    state: Mutex<DocumentState<S>>,
}

#[derive(Debug)]
struct DocumentState<S> {
    source: S,
    rendered: Option<(Instant, Bytes)>,
}

impl<S: DocumentSource> SharedDocument<S> {
    /// Nothing is rendered before the first request.
    pub fn new(source: S) -> Self {
        Self { state: Mutex::new(DocumentState { source, rendered: None }) }
    }

    /// The document: the last one while it is true, or one made now.
    pub fn get(&self, render: impl FnOnce(&S) -> String) -> Bytes {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = state.source.has_changed();
        if let Some((at, text)) = state.rendered.as_ref().filter(|_| !changed)
            && at.elapsed() < STALE
        {
            return text.clone();
        }
        let text = Bytes::from(render(&state.source));
        state.rendered = Some((Instant::now(), text.clone()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_made_once_for_each_change_and_each_second() {
        let (publish, source) = watch::channel(1);
        let document = SharedDocument::new(source);
        let made = std::cell::Cell::new(0);
        let get = || {
            document.get(|number| {
                made.set(made.get() + 1);
                number.borrow().to_string()
            })
        };
        assert_eq!((get(), get(), made.get()), ("1".into(), "1".into(), 1));
        publish.send_replace(2);
        assert_eq!((get(), get(), made.get()), ("2".into(), "2".into(), 2));
        tokio::time::advance(STALE).await;
        assert_eq!((get(), get(), made.get()), ("2".into(), "2".into(), 3));
    }
}
