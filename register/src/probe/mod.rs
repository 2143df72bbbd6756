//! Probes: one request to a backend, answered in bounded time.
//!
//! * [`Check`] is what an operator wrote, parsed; pure.
//! * [`Probe`] is that check, ready to run: its CA is read, its command is found.
//! * [`Verdict`] is the result. It is never an error: a backend that cannot be reached has failed,
//!   for a reason in words; a probe that we ourselves cannot make gives no verdict.
//!
//! The invariant: one deadline covers everything a probe does, from resolving the name to the last
//! byte read, so neither silence nor a byte a second can outlast it. Each probe opens a connection
//! of its own, as the next client of the backend has to: a kept connection would not notice that
//! new ones are no longer accepted. Nothing is taken from the environment (no proxy), no redirect
//! is followed, and the response is bounded.
//!
//! This module knows nothing of rise and fall, services or etcd.

mod argv;
mod check;
mod connect;
mod deadline;
mod exec;
mod http;
mod parse;
mod statuses;
mod tls;

use std::fmt;
use std::time::Duration;

pub use check::{Check, CheckError, HttpCheck, HttpOptions, ProbeAddress, Scheme};
pub use exec::is_left_over;
pub(crate) use http::judge_any as judge_any_answer;
pub use statuses::{StatusError, Statuses};
pub use tls::Trust;

use deadline::{ProbeDeadline, ProbeFailure};

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The backend answered as expected.
    Pass,
    /// It did not, or could not be asked. The reason is one line, fit for a log.
    Fail(String),
    /// The probe was not made for want of resources of our own (files, processes, memory,
    /// ports): nothing is known of the backend. The reason is one line.
    NotMade(String),
}

impl Verdict {
    pub fn passed(&self) -> bool {
        matches!(self, Self::Pass)
    }
}

/// What a probe takes while it runs, so that many at once can be bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    Nothing,
    Connection,
    Process,
}

/// A check that is ready to be asked, any number of times.
#[derive(Debug)]
pub struct Probe {
    check: Check,
    tls: Option<tls::Connector>,
    timeout: Duration,
}

impl Probe {
    /// Makes a check ready: settles whom it trusts (shared by all in `trust`), looks for its
    /// command. A CA file is read when a server presents its certificate.
    ///
    /// # Errors
    /// What an operator has to put right, in words.
    pub fn prepare(check: Check, timeout: Duration, trust: &mut Trust) -> Result<Self, String> {
        let tls = match &check {
            Check::Http(http) if http.scheme == Scheme::Https => {
                Some(trust.connector(http.ca.as_deref(), http.insecure)?)
            }
            Check::Exec(argv) => {
                exec::find(argv)?;
                None
            }
            _ => None,
        };
        Ok(Self { check, tls, timeout })
    }

    /// What it takes while it runs.
    pub fn cost(&self) -> Cost {
        match self.check {
            Check::None => Cost::Nothing,
            Check::Tcp(_) | Check::Http(_) => Cost::Connection,
            Check::Exec(_) => Cost::Process,
        }
    }

    /// Asks once. Answers within the timeout; dropping the future ends whatever
    /// it has begun, a child process included.
    pub async fn ask(&self) -> Verdict {
        let deadline = ProbeDeadline::after(self.timeout);
        let answer = match &self.check {
            Check::None => Ok(()),
            Check::Tcp(address) => connect::open(address, &deadline).await.map(drop),
            Check::Http(http) => http::ask(http, self.tls.as_ref(), &deadline).await,
            Check::Exec(argv) => exec::ask(argv, &deadline).await,
        };
        match answer {
            Ok(()) => Verdict::Pass,
            Err(ProbeFailure::Unhealthy(why)) => Verdict::Fail(why),
            Err(ProbeFailure::NotMade(why)) => Verdict::NotMade(why),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.check.fmt(f)
    }
}

#[cfg(test)]
mod tests;
