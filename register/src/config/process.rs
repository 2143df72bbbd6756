//! What holds for the whole process: the lease, the handshake with load balancers,
//! the status server. And the rules between services.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use common::model::{Prefix, Ttl, format_span, parse_span};
use common::runtime::listen_address;

use super::errors::Complaints;
use super::given::Raw;
use super::reader::Reader;
use super::service::{Service, Target};
use crate::drain::Bounds;

const BOOKKEEPING: &str = "/confsync";
const APPLIED: Duration = Duration::from_secs(10);
const QUIESCED: Duration = Duration::from_secs(30);
const WAIT_APPLIED: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3_600);

/// What holds for the whole process. A change takes a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// How long keys outlive their last refresh.
    pub ttl: Ttl,
    /// Where load balancers keep members and acknowledgements.
    pub bookkeeping: Prefix,
    /// Where status is served; `None` for nowhere.
    pub status: Option<SocketAddr>,
    /// How long to wait until every load balancer serves a new instance, before it
    /// counts as ready; `None` for not at all.
    pub wait_applied: Option<Duration>,
    /// Fewer load balancers than this make a drain unconfirmed.
    pub min_lbs: u32,
    /// How to leave.
    pub drain: Drain,
}

impl Process {
    /// How long leaving waits for load balancers, and for how many.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            applied: self.drain.applied,
            quiesced: self.drain.quiesced,
            least: self.drain.min.unwrap_or_default(),
            min_lbs: usize::try_from(self.min_lbs).unwrap_or(usize::MAX),
            ..Bounds::default()
        }
    }
}

/// The bounds of leaving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// Wait at least this long after the key is gone, for readers that acknowledge
    /// nothing. `None` if the operator said nothing.
    pub min: Option<Duration>,
    /// How long to wait for `applied` from every load balancer.
    pub applied: Duration,
    /// How long to wait for `quiesced`, after that.
    pub quiesced: Duration,
}

/// What `register remove` takes away, and how it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The key, and the address that its value must have to be ours.
    pub target: Target,
    /// Bookkeeping and drain, for `--wait`.
    pub process: Process,
}

/// `None` never happens: the default is a good prefix.
pub(super) fn read(mut from: Reader<'_>) -> Option<Process> {
    let second = Duration::from_secs(1);
    let min = from.raw.one("drain_min").is_some();
    let min = min.then(|| from.span("drain_min", Duration::ZERO, Duration::ZERO, HOUR));
    let drain = Drain {
        min,
        applied: from.span("drain_applied", APPLIED, Duration::ZERO, HOUR),
        quiesced: from.span("drain_quiesced", QUIESCED, Duration::ZERO, HOUR),
    };
    let wait = from.read("wait_applied", |text| match text {
        "yes" | "true" => Ok(Some(WAIT_APPLIED)),
        "no" | "false" => Ok(None),
        text => match parse_span(text) {
            Ok(span) if (second..=HOUR).contains(&span) => Ok(Some(span)),
            Ok(_) => Err("the wait is from 1s to 1h".to_owned()),
            Err(e) => Err(e.to_string()),
        },
    });
    let status = from.read("status", listen_address);
    let bookkeeping = from.read("bookkeeping", str::parse).or_else(|| BOOKKEEPING.parse().ok())?;
    Some(Process {
        ttl: from.read("ttl", str::parse).unwrap_or(Ttl::DEFAULT),
        bookkeeping,
        status,
        wait_applied: wait.flatten(),
        min_lbs: from.number("min_lbs", 0, 0, 10_000),
        drain,
    })
}

/// The rules that no setting can break alone.
pub(super) fn check(
    process: &Process,
    services: &[Service],
    raw: &Raw,
    complaints: &mut Complaints,
) {
    let mut reader = Reader::new(raw, "", complaints);
    if let Some(slowest) = services.iter().map(|service| service.policy.interval).max()
        && process.ttl.span() < slowest * 3
    {
        reader.wrong(
            "ttl",
            format!(
                "{} is below three probe intervals of {}; raise it, or lower --interval",
                process.ttl,
                format_span(slowest)
            ),
        );
    }
    let mut keys = BTreeMap::new();
    for service in services {
        let key = &service.target.key;
        if let Some(other) = keys.insert(key.as_str(), service) {
            reader.complaints.add(
                key,
                format!(
                    "two services would write this key ({} and {}); \
                 give them different ids, such as id = \"{{host}}:{{port}}\"",
                    other.target.addr, service.target.addr
                ),
            );
        }
        let folder = key.as_str();
        let inside = process.bookkeeping.strip(folder).is_some();
        if inside {
            reader.wrong("bookkeeping", format!("the key {key} is inside it; keep them apart"));
        }
    }
}
