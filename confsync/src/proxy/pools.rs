//! The types that the pipeline and the drivers share: pools, departed members, and files in the
//! form that a driver needs.

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
    /// Its position there: a slot of a table, or an id of HAProxy's.
    pub slot: u32,
}

/// Files in the form that a driver needs.
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
