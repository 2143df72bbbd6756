//! What holds for the whole process: the lease, the handshake with load balancers,
//! the status server. And the rules between services.

use std::collections::BTreeMap;
use std::time::Duration;

use common::model::{Endpoint, Key, Prefix, Ttl, format_span, parse_span};
use common::runtime::StatusServer;
use common::settings::{Reader, status};

use super::service::{HOUR, Service};
use crate::handshake::WaitBounds;
use crate::settings::{
    ALLOW_HOST, BOOKKEEPING, DRAIN_APPLIED, DRAIN_EXIT, DRAIN_MIN, DRAIN_QUIESCED, DRAIN_QUIET,
    LISTEN, MIN_LBS, READY_WITHIN, TTL, WAIT_APPLIED,
};

/// What holds for the whole process. A change takes a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// How long keys outlive their last refresh.
    pub ttl: Ttl,
    /// Where load balancers publish members and acknowledgements.
    pub bookkeeping: Prefix,
    /// Where status is served; `None` for nowhere.
    pub status: Option<StatusServer>,
    /// How long to wait until every load balancer serves a new instance, before it
    /// counts as ready; `None` for not at all.
    pub wait_applied: Option<Duration>,
    /// How long the service manager waits for READY=1 at most; `None`: until it is true.
    pub ready_within: Option<Duration>,
    /// Fewer load balancers than this make a drain unconfirmed.
    pub min_lbs: u32,
    /// How to leave.
    pub drain: DrainSpans,
    /// The exit code is zero, however the drain ended.
    pub drain_exit_zero: bool,
}

impl Process {
    /// How long leaving waits for load balancers, and for how many.
    pub fn bounds(&self) -> WaitBounds {
        WaitBounds {
            applied: self.drain.applied,
            quiesced: self.drain.quiesced,
            least: self.drain.min,
            min_lbs: usize::try_from(self.min_lbs).unwrap_or(usize::MAX),
            ..WaitBounds::default()
        }
    }
}

/// The bounds of leaving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainSpans {
    /// Wait at least this long after the key is removed, for readers that acknowledge
    /// nothing.
    pub min: Duration,
    /// How long to wait for `applied` from every load balancer.
    pub applied: Duration,
    /// How long to wait for `quiesced`, after that.
    pub quiesced: Duration,
    /// At the end, wait until no new connection has come for this long; `None`: do not look.
    pub quiet: Option<Duration>,
}

impl DrainSpans {
    /// How long a drain takes at most.
    pub fn longest(&self) -> Duration {
        let quiet = self.quiet.map_or(Duration::ZERO, |_| self.quiesced);
        (self.applied + self.quiesced).max(self.min) + quiet
    }
}

/// What `register remove` removes, and how it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub key: Key,
    /// The address that its value must have to be ours; `None`: whatever it is.
    pub owner: Option<Endpoint>,
    /// Bookkeeping and drain, for `--wait`.
    pub process: Process,
}

/// Reads what holds for the whole process; `None` after a mistake.
pub fn process(from: &mut Reader<'_>) -> Option<Process> {
    let most = Duration::ZERO..=HOUR;
    let drain = DrainSpans {
        min: from.span(&DRAIN_MIN, most.clone()),
        applied: from.span(&DRAIN_APPLIED, most.clone()),
        quiesced: from.span(&DRAIN_QUIESCED, most.clone()),
        quiet: from.is_given(&DRAIN_QUIET).then(|| from.span(&DRAIN_QUIET, most)),
    };
    if drain.quiet.is_some_and(|quiet| quiet >= drain.quiesced) {
        let most = format_span(drain.quiesced);
        from.wrong(&DRAIN_QUIET, format!("it has to fit into --drain-quiesced {most}"));
    }
    let ready_within =
        from.is_given(&READY_WITHIN).then(|| from.span(&READY_WITHIN, Duration::ZERO..=HOUR));
    let wait_applied = from.get(&WAIT_APPLIED, wait_applied).flatten();
    let status = status::read(from, &LISTEN, &ALLOW_HOST);
    Some(Process {
        bookkeeping: from.get(&BOOKKEEPING, str::parse)?,
        ttl: from.get(&TTL, str::parse)?,
        status,
        wait_applied,
        ready_within,
        min_lbs: from.number(&MIN_LBS, 0..=10_000),
        drain,
        drain_exit_zero: from.get(&DRAIN_EXIT, drain_exit)?,
    })
}

fn drain_exit(text: &str) -> Result<bool, String> {
    match text {
        "result" => Ok(false),
        "zero" => Ok(true),
        _ => Err("it is result or zero".to_owned()),
    }
}

fn wait_applied(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "yes" | "true" => wait_applied("30s"),
        "no" | "false" => Ok(None),
        text => match parse_span(text) {
            Ok(span) if (Duration::from_secs(1)..=HOUR).contains(&span) => Ok(Some(span)),
            Ok(_) => Err("the wait is from 1s to 1h".to_owned()),
            Err(e) => Err(e.to_string()),
        },
    }
}

/// The rules that no setting can break alone.
pub(super) fn check(process: &Process, services: &[Service], from: &mut Reader<'_>) {
    if let Some(slowest) = services.iter().map(|service| service.policy.interval).max()
        && process.ttl.span() < slowest * 3
    {
        let (ttl, slowest) = (process.ttl, format_span(slowest));
        let problem = format!(
            "{ttl} is below three probe intervals of {slowest}; raise it, or lower --interval"
        );
        from.wrong(&TTL, problem);
    }
    let mut keys = BTreeMap::new();
    for service in services {
        let key = &service.target.key;
        if let Some(other) = keys.insert(key.as_str(), service) {
            let (one, other) = (&other.target.addr, &service.target.addr);
            let problem = match one == other {
                true => format!("{one} is given twice; keep one of the two"),
                false => format!(
                    "two services would write this key ({one} and {other}); give them different \
                     ids, such as id = \"{{host}}:{{port}}\""
                ),
            };
            from.mistake(key, problem);
        }
        if process.bookkeeping.strip(key.as_str()).is_some() {
            from.wrong(&BOOKKEEPING, format!("the key {key} is inside it; keep them apart"));
        }
    }
}
