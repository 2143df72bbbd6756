//! What `confsync run` is configured with, merged from the command line, the environment and
//! files, and validated.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use common::model::{Prefix, Ttl};
use common::runtime::StatusServer;
use common::store::Connection;

use crate::config::confdir::Globals;

/// The settings of `run` that do not belong to one resource.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// The folder with `conf.d` and `templates`.
    pub confdir: PathBuf,
    /// Defaults and limits that every resource is read with.
    pub globals: Globals,
    /// How etcd is reached.
    pub connection: Connection,
    /// The interval of the periodic resync, jitter not included.
    pub reconcile: Duration,
    /// The confdir is read again at each.
    pub reread: bool,
    /// The name of this load balancer: one segment of its member key. Empty: made of the host's
    /// name and those of the resources.
    pub name: String,
    /// The address at which clients reach this load balancer, for its member key.
    pub advertise: Option<String>,
    /// The prefix of member keys and acknowledgements.
    pub bookkeeping: Prefix,
    /// How long the member key outlives its last refresh.
    pub ttl: Ttl,
    /// Where the status page listens; `None` for nowhere.
    pub status: Option<StatusServer>,
    /// After this the start is over for the service manager, ready or not; zero for never.
    pub start_within: Duration,
    /// How long the supervised command may take to exit once it was asked to.
    pub stop_timeout: Duration,
    /// The supervised command with its arguments; empty for none.
    pub command: Vec<OsString>,
}

/// How `run --once` and `run --dry-run` differ from the daemon.
#[derive(Debug, Clone, Copy)]
pub struct SingleRun {
    /// Print what would be written, and change nothing.
    pub dry_run: bool,
    /// With `dry_run`: print a unified diff.
    pub diff: bool,
    /// Write the files, and run neither checks nor reloads.
    pub sync_only: bool,
}
