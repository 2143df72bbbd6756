//! The words that the pipeline and the drivers of proxies share: pools, who left them, and
//! files in the form of a driver.

use std::collections::BTreeMap;

pub use crate::config::rendered::RenderedFile;
use crate::install::Wanted;
use crate::template::UpstreamMembers;

/// The members of each pool (nginx's upstream, HAProxy's backend), by the pool's name.
pub type Pools = BTreeMap<String, UpstreamMembers>;

/// A member that left a pool and may have requests in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DepartedMember {
    /// The pool.
    pub pool: String,
    /// Its place there: a slot of ours, an id of HAProxy's.
    pub slot: u32,
}

/// Files in the form of a driver.
#[derive(Debug, Clone)]
pub struct Arrangement {
    /// The files; their structure is what the driver cannot change.
    pub wanted: Wanted,
    /// What it can.
    pub pools: Pools,
}

/// Why the proxy is not known to go by the members that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// Worth another try.
    Retry(String),
    /// What runs is not what it was taken for: it must be reloaded.
    NeedsReload(String),
}
