//! The command line as written.
//!
//! A line meant for confd is rewritten by `confd_words` before clap sees it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use common::args::{LogArgs, StoreArgs};

/// Renders the proxy's configuration from etcd and proves that the proxy runs it.
#[derive(Debug, Parser)]
#[command(name = "confsync", version = common::VERSION, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the keys, keep the files and the proxy in line
    Run(Box<RunArgs>),
    /// Validate resources and templates without etcd; what is merely ignored or
    /// misspelt is an error here
    Check(CheckArgs),
    /// Print what a resource would write
    Render(Box<RenderArgs>),
    /// Every load balancer: what it has applied, and what it waits for
    Status(Box<StatusArgs>),
    /// Write a working confdir to start from
    Init(InitArgs),
}

/// Where the resources are.
#[derive(Debug, Clone, Args)]
pub struct ConfdirArgs {
    /// Folder with conf.d/ and templates/ [default: /etc/confsync]
    #[arg(long, value_name = "DIR", env = "CONFSYNC_CONFDIR")]
    pub confdir: Option<PathBuf>,

    /// Put before every resource's keys, in place of its own prefix
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_PREFIX")]
    pub prefix: Option<String>,

    /// The folder of all services, below the prefix
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_SERVICES", default_value = "/services")]
    pub services: String,

    /// The least time between two reloads of one proxy, unless a resource says
    /// otherwise; it delays, it never drops
    #[arg(
        long,
        value_name = "SPAN",
        env = "CONFSYNC_MIN_RELOAD_INTERVAL",
        default_value = "500ms"
    )]
    pub min_reload_interval: String,

    /// confd's own confd.toml, for what neither flag nor environment says
    /// [default: confd.toml in the confdir, if it is there]
    #[arg(long, value_name = "FILE", env = "CONFSYNC_CONFIG_FILE")]
    pub config_file: Option<PathBuf>,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where the resources are.
    #[command(flatten)]
    pub confdir: ConfdirArgs,

    /// Apply once and exit; the exit code tells
    #[arg(long, alias = "onetime", env = "CONFSYNC_ONCE")]
    pub once: bool,

    /// Change nothing; say what would be done
    #[arg(long, alias = "noop", env = "CONFSYNC_DRY_RUN")]
    pub dry_run: bool,

    /// With --dry-run: show the changes as a diff
    #[arg(long, requires = "dry_run", env = "CONFSYNC_DIFF")]
    pub diff: bool,

    /// Write the files only: no check, no reload, whatever the resources say
    #[arg(long, env = "CONFSYNC_SYNC_ONLY")]
    pub sync_only: bool,

    /// Everything is read again this often, whatever the watch says [default: 5m]
    #[arg(long, value_name = "SPAN", env = "CONFSYNC_INTERVAL")]
    pub interval: Option<String>,

    /// This load balancer's name among the others [default: host name]
    #[arg(long, value_name = "NAME", env = "CONFSYNC_NAME")]
    pub name: Option<String>,

    /// Address where clients reach this load balancer; written to its member key
    #[arg(long, value_name = "ADDR", env = "CONFSYNC_ADVERTISE")]
    pub advertise: Option<String>,

    /// Folder of our own keys: members and acknowledgements
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_BOOKKEEPING", default_value = "/confsync")]
    pub bookkeeping: String,

    /// Lifetime of the member key after its last refresh
    #[arg(long, value_name = "SPAN", env = "CONFSYNC_TTL", default_value = "15s")]
    pub ttl: String,

    /// Serve status, metrics, health and a page for people here
    #[arg(long, value_name = "ADDR", env = "CONFSYNC_STATUS")]
    pub status: Option<String>,

    /// How long the supervised command may take to end
    #[arg(long, value_name = "SPAN", env = "CONFSYNC_STOP_TIMEOUT", default_value = "30s")]
    pub stop_timeout: String,

    /// How etcd is reached.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,

    /// Supervise this command: started with the first good configuration, stopped
    /// at the end; its exit is ours
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the resources are.
    #[command(flatten)]
    pub confdir: ConfdirArgs,
    /// Render against these keys: a JSON object of key to value
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
}

/// `render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The resource: the name of its file without .toml
    pub resource: String,
    /// Where the resources are.
    #[command(flatten)]
    pub confdir: ConfdirArgs,
    /// Render from these keys, a JSON object of key to value, instead of etcd
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// How etcd is reached.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
    /// Folder of our own keys: members and acknowledgements
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_BOOKKEEPING", default_value = "/confsync")]
    pub bookkeeping: String,
    /// How etcd is reached.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to write to; files that are there are left alone
    #[arg(long, value_name = "DIR", env = "CONFSYNC_CONFDIR", default_value = "/etc/confsync")]
    pub confdir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
