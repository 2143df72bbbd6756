//! What can change the members of a running proxy: its driver.
//!
//! A rendered file has two parts. Its *structure* needs check, swap and reload; the *members*
//! of the pools that it names, a driver can change in the running proxy. Each driver says in
//! which form the lines of members are written ([`Driver::arrange`]), makes members those of
//! the proxy ([`Driver::publish`]), has the proxy confirm them ([`Driver::confirm`]), and
//! counts what is in flight to those that left ([`Driver::in_flight`]). The pipeline decides
//! when. A further driver is one more variant here, with its parts in a folder of its own.
//!
//! This module knows nothing of etcd, templates or the ledger.

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

/// Who changes members.
#[derive(Debug)]
pub enum Driver {
    /// Nobody but a reload.
    Reload {
        /// Why there is nothing better, in the operator's words.
        why: String,
    },
}

impl Driver {
    /// Every change is a reload.
    #[must_use]
    pub fn reload(why: impl Into<String>) -> Self {
        Self::Reload { why: why.into() }
    }

    /// Its name, as logs and status have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reload { .. } => "reload",
        }
    }

    /// Why it is not a better one.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Reload { why } => Some(why),
        }
    }

    /// Puts rendered files into the form that it needs.
    #[must_use]
    pub fn arrange(&mut self, files: &[RenderedFile]) -> Arrangement {
        match self {
            Self::Reload { .. } => {
                let plain: Vec<_> = files.iter().map(RenderedFile::plain).collect();
                Arrangement { wanted: plain.into(), pools: Pools::new() }
            }
        }
    }

    /// Makes these the members. When it returns, no new request goes to any other; that the
    /// proxy knows is proven by [`Self::confirm`].
    ///
    /// # Errors
    /// [`PublishError`].
    #[expect(clippy::unused_async, reason = "the drivers of real proxies wait for them")]
    pub async fn publish(&mut self, _pools: &Pools) -> Result<(), PublishError> {
        match self {
            Self::Reload { .. } => Ok(()),
        }
    }

    /// Has the proxy say by which members it goes: those that were published last.
    ///
    /// # Errors
    /// [`PublishError`].
    #[expect(clippy::unused_async, reason = "the drivers of real proxies wait for them")]
    pub async fn confirm(&mut self) -> Result<(), PublishError> {
        match self {
            Self::Reload { .. } => Ok(()),
        }
    }

    /// Those that left and were not seen without requests since.
    #[must_use]
    pub fn departed(&self) -> Vec<DepartedMember> {
        match self {
            Self::Reload { .. } => Vec::new(),
        }
    }

    /// What is in flight to one that left; `None` where that is not known exactly.
    #[expect(clippy::unused_async, reason = "the drivers of real proxies wait for them")]
    pub async fn in_flight(&mut self, _departed: &DepartedMember) -> Option<u64> {
        match self {
            Self::Reload { .. } => None,
        }
    }
}
