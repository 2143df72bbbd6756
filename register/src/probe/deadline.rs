//! One deadline for all steps of a probe, and errors as words.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use common::model::format_span;
use tokio::time::{Instant, timeout_at};

/// When a probe has to be over.
pub(super) struct Deadline {
    at: Instant,
    total: Duration,
}

impl Deadline {
    pub(super) fn after(total: Duration) -> Self {
        Self { at: Instant::now() + total, total }
    }

    /// Does one step of the probe; `doing` ends the sentence "no answer within 2s
    /// while …".
    pub(super) async fn step<T>(
        &self,
        doing: &str,
        step: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        match timeout_at(self.at, step).await {
            Ok(done) => done,
            Err(_) => Err(format!("no answer within {} while {doing}", format_span(self.total))),
        }
    }

    /// Does something that no verdict depends on, for at most `span` and not past
    /// the deadline. Whether it was done does not matter.
    pub(super) async fn briefly(&self, span: Duration, what: impl Future) {
        let _ = timeout_at(self.at.min(Instant::now() + span), what).await;
    }
}

/// An error and all its causes on one line, without those that only repeat.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = plain(error);
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = plain(inner);
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// `Connection refused` rather than `Connection refused (os error 111)`.
fn plain(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    if error.is::<io::Error>()
        && let Some((said, _)) = text.split_once(" (os error ")
    {
        return said.to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_steps_share_one_deadline() {
        let deadline = Deadline::after(Duration::from_secs(2));
        let nap = |ms| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(())
        };
        deadline.step("connecting", nap(1_500)).await.unwrap();
        let why = deadline.step("waiting for headers", nap(1_500)).await.unwrap_err();
        assert_eq!(why, "no answer within 2s while waiting for headers");
    }

    #[test]
    fn errors_are_words() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(words(&refused), "Connection refused");
    }
}
