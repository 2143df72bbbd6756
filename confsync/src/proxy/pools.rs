//! The types that the pipeline and the drivers share: pools, departed members, and files in the
//! form that a driver needs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

pub use crate::config::rendered::RenderedFile;
use crate::install::Wanted;
use crate::template::UpstreamMembers;

/// The members of each pool (nginx's upstream, HAProxy's backend), by the pool's name.
pub type Pools = BTreeMap<String, UpstreamMembers>;

/// How many members all pools have together.
pub fn count_members(pools: &Pools) -> usize {
    pools.values().map(UpstreamMembers::len).sum()
}

/// A member that left a pool and may have requests in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DepartedMember {
    pub pool: String,
    /// Its position there: a slot of a table, or an id of HAProxy's.
    pub slot: u32,
}

/// The traffic of one member of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberTraffic {
    /// The pool: nginx's upstream, HAProxy's backend.
    pub pool: String,
    /// Where it is, as an endpoint is written.
    pub addr: String,
    /// It has left, and still has requests.
    pub leaving: bool,
    /// Requests that it has and has not answered; `None` where they are not all counted.
    pub in_flight: Option<u64>,
    /// Requests that it has had.
    pub requests: u64,
    /// Tries that failed.
    pub failures: u64,
    /// It gets no requests now because it failed.
    pub ejected: bool,
}

/// When failures leave a member out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// So many failures do; 0 for never.
    pub max_fails: u32,
    /// And for this long.
    pub fail_timeout: Duration,
}

/// Files in the form of a driver.
#[derive(Debug, Clone)]
pub struct Arrangement {
    /// The files; their structure is what the driver cannot change.
    pub wanted: Wanted,
    /// The members, which it can change.
    pub pools: Pools,
}

/// Why the proxy may not use the members that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// Worth another try.
    Retry(String),
    /// The running configuration is not the expected one: it needs a reload.
    NeedsReload(String),
}

/// What a look at the running proxy has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadBack {
    /// What was published, or no worker could be asked.
    Same,
    /// The same, by a worker that was not there before: its configuration may be another one.
    NewWorker,
    /// Something else, for an operator.
    Other(String),
}
