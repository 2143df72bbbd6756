//! One deadline for all steps of a probe, and why a probe did not pass.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use common::model::format_span;
use rustix::io::Errno;
use tokio::time::{Instant, timeout_at};

/// Why a probe did not pass; one line, fit for a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProbeFailure {
    /// The backend did not answer as expected.
    Unhealthy(String),
    /// It was not asked, for want of resources of our own.
    NotMade(String),
}

impl From<String> for ProbeFailure {
    fn from(reason: String) -> Self {
        Self::Unhealthy(reason)
    }
}

impl ProbeFailure {
    /// What a system error means for the verdict: nothing about the backend, if we are out of
    /// files,
    /// memory, buffers or local ports.
    pub(super) fn of(doing: &str, error: &io::Error) -> Self {
        let reason = format!("{doing}: {}", one_line(error));
        let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];
        match Errno::from_io_error(error) {
            Some(errno) if ours.contains(&errno) => Self::NotMade(reason),
            _ => Self::Unhealthy(reason),
        }
    }
}

/// When a probe has to be over.
pub(super) struct ProbeDeadline {
    at: Instant,
    total: Duration,
}

impl ProbeDeadline {
    pub(super) fn after(total: Duration) -> Self {
        Self { at: Instant::now() + total, total }
    }

    /// Does one step of the probe; `doing` ends the sentence "no answer within 2s
    /// while …".
    pub(super) async fn step<T, E: From<String>>(
        &self,
        doing: &str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match timeout_at(self.at, step).await {
            Ok(done) => done,
            Err(_) => {
                Err(format!("no answer within {} while {doing}", format_span(self.total)).into())
            }
        }
    }

    /// Waits for a place among those who do the same; `what` are they.
    pub(super) async fn place<T>(
        &self,
        what: &str,
        place: impl Future<Output = T>,
    ) -> Result<T, ProbeFailure> {
        let crowded = || ProbeFailure::NotMade(format!("too many {what} are under way"));
        timeout_at(self.at, place).await.map_err(|_| crowded())
    }

    /// Does something that no verdict depends on, for at most `span` and not past
    /// the deadline. Whether it was done does not matter.
    pub(super) async fn briefly(&self, span: Duration, what: impl Future) {
        let _ = timeout_at(self.at.min(Instant::now() + span), what).await;
    }
}

/// An error and all its causes on one line, without those that only repeat.
pub(super) fn one_line(error: &(dyn Error + 'static)) -> String {
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
        && let Some((text, _)) = text.split_once(" (os error ")
    {
        return text.to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_steps_share_one_deadline() {
        let deadline = ProbeDeadline::after(Duration::from_secs(2));
        let nap = |ms| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, String>(())
        };
        deadline.step("connecting", nap(1_500)).await.unwrap();
        let why = deadline.step("waiting for headers", nap(1_500)).await.unwrap_err();
        assert_eq!(why, "no answer within 2s while waiting for headers");
    }

    #[test]
    fn errors_are_one_line() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(one_line(&refused), "Connection refused");
    }

    #[test]
    fn a_lack_of_local_resources_is_no_verdict_about_the_backend() {
        let failure = |errno: Errno| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            ProbeFailure::of("cannot connect", &error)
        };
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL]
        {
            assert!(matches!(failure(errno), ProbeFailure::NotMade(_)), "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::AGAIN, Errno::HOSTUNREACH, Errno::TIMEDOUT] {
            assert!(matches!(failure(errno), ProbeFailure::Unhealthy(_)), "{errno}");
        }
    }
}
