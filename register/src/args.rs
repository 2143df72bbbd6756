//! The command line as written. Every setting stays a text here; what it means,
//! and all that can be wrong with it, is in [`crate::config`], which reads the same
//! names from `services.toml`.

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};

/// Keeps a backend's key in etcd while the backend is healthy.
#[derive(Debug, Parser)]
#[command(name = "register", version = common::VERSION, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Probe a backend and keep its key in etcd while it is healthy
    Run(Box<RunArgs>),
    /// Probe once now: exit 0 if healthy, 1 if not
    Check(Box<RunArgs>),
    /// Take an instance's key away, if it is this instance's
    Remove(Box<RemoveArgs>),
    /// Show who is registered
    List(Box<ListArgs>),
}

/// What every subcommand takes that talks to etcd. The one place where groups
/// shared with other programs are flattened in.
#[derive(Debug, Args)]
pub struct Shared {
    /// How etcd is reached.
    #[command(flatten)]
    pub store: common::args::StoreArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: common::args::LogArgs,
}

/// `run` and `check`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which instance.
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// What is written.
    #[command(flatten)]
    pub value: ValueArgs,
    /// What is asked.
    #[command(flatten)]
    pub check: CheckArgs,
    /// How often, and what the answers mean.
    #[command(flatten)]
    pub health: HealthArgs,
    /// Joining and leaving.
    #[command(flatten)]
    pub handshake: HandshakeArgs,

    /// Time to live of the key after its last refresh; three intervals at least [default: 30s]
    #[arg(long, env = "REGISTER_TTL", value_name = "SPAN", help_heading = "Registration")]
    pub ttl: Option<String>,

    /// Hold readiness back until every load balancer serves this instance [default span: 30s]
    #[arg(
        long, env = "REGISTER_WAIT_APPLIED", value_name = "SPAN",
        num_args = 0..=1, default_missing_value = "yes",
        help_heading = "Joining and leaving"
    )]
    pub wait_applied: Option<String>,

    /// Serve status, metrics and health of this process at this address, such as 127.0.0.1:8080
    #[arg(long, env = "REGISTER_STATUS", value_name = "ADDR")]
    pub status: Option<String>,

    /// Read services from this TOML file, where settings are named as the flags, in snake_case
    #[arg(long, env = "REGISTER_CONFIG", value_name = "FILE")]
    pub config: Option<String>,

    /// Shared groups.
    #[command(flatten)]
    pub shared: Shared,

    /// Start this command as the backend, and stop it after it has been drained
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Which instance.
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Leaving.
    #[command(flatten)]
    pub handshake: HandshakeArgs,

    /// Wait until every load balancer has let go, as `run` does when it is stopped
    #[arg(long, env = "REGISTER_WAIT", value_parser = BoolishValueParser::new())]
    pub wait: bool,

    /// Shared groups.
    #[command(flatten)]
    pub shared: Shared,
}

/// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only this service
    #[arg(long, env = "REGISTER_SERVICE", value_name = "NAME")]
    pub service: Option<String>,

    /// The folder of all services [default: /services]
    #[arg(long, env = "REGISTER_PREFIX", value_name = "PREFIX")]
    pub prefix: Option<String>,

    /// For programs: one JSON array
    #[arg(long, env = "REGISTER_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// Shared groups.
    #[command(flatten)]
    pub shared: Shared,
}

/// Which instance of which service.
#[derive(Debug, Args)]
#[command(next_help_heading = "Instance")]
pub struct InstanceArgs {
    /// Name of the service: the folder under the prefix
    #[arg(long, env = "REGISTER_SERVICE", value_name = "NAME")]
    pub service: Option<String>,

    /// Address where load balancers reach the instance [default: $COREOS_PRIVATE_IPV4]
    #[arg(long, env = "REGISTER_HOST", value_name = "HOST")]
    pub host: Option<String>,

    /// Port where it listens
    #[arg(long, allow_negative_numbers = true, env = "REGISTER_PORT", value_name = "PORT")]
    pub port: Option<String>,

    /// Name of the key; {host}, {port} and {hostname} are filled in [default: {host}]
    #[arg(long, env = "REGISTER_ID", value_name = "ID")]
    pub id: Option<String>,

    /// The folder of all services [default: /services]
    #[arg(long, env = "REGISTER_PREFIX", value_name = "PREFIX")]
    pub prefix: Option<String>,
}

/// What the key's value says.
#[derive(Debug, Args)]
#[command(next_help_heading = "Registration")]
pub struct ValueArgs {
    /// Form of the value: plain (host:port) or json [default: plain]
    #[arg(long, env = "REGISTER_VALUE", value_name = "FORM")]
    pub value: Option<String>,

    /// Share of the requests, 1 to 256 (json) [default: 1]
    #[arg(long, allow_negative_numbers = true, env = "REGISTER_WEIGHT", value_name = "N")]
    pub weight: Option<String>,

    /// Where the instance runs (json)
    #[arg(long, env = "REGISTER_ZONE", value_name = "NAME")]
    pub zone: Option<String>,

    /// Anything else for templates, may be repeated (json; one a line in the environment)
    #[arg(long, env = "REGISTER_META", value_name = "KEY=VALUE")]
    pub meta: Vec<String>,
}

/// What is asked of the backend.
#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
pub struct CheckArgs {
    /// What to ask; may be repeated, then all must pass (one a line in the environment)
    ///
    /// http://…, https://…, h2c://… (HTTP/2 without TLS), http://unix:/run/app.sock:/path,
    /// /path, tcp, tcp://host:port, unix:/run/app.sock, exec:CMD (words, no shell), none.
    /// {host} and {port} are filled in. [default: http://HOST:PORT/]
    #[arg(long, env = "REGISTER_CHECK", value_name = "CHECK")]
    pub check: Vec<String>,

    /// Statuses that are healthy, such as 200-299,304 [default: 200-399]
    #[arg(long, env = "REGISTER_EXPECT", value_name = "STATUSES")]
    pub expect: Option<String>,

    /// Host header, and name in the certificate, if not the URL's
    #[arg(long, env = "REGISTER_CHECK_HOST", value_name = "NAME")]
    pub check_host: Option<String>,

    /// Text that the first 64 KiB of the body must contain
    #[arg(long, env = "REGISTER_CHECK_BODY", value_name = "TEXT")]
    pub check_body: Option<String>,

    /// Trust only the CA certificates in this PEM file (https)
    #[arg(long, env = "REGISTER_CHECK_CA", value_name = "FILE")]
    pub check_ca: Option<String>,

    /// Take any certificate (https)
    #[arg(
        long, env = "REGISTER_CHECK_INSECURE", value_name = "BOOL",
        num_args = 0..=1, default_missing_value = "true"
    )]
    pub check_insecure: Option<String>,
}

/// How often to ask, and what the answers mean.
#[derive(Debug, Args)]
#[command(next_help_heading = "Health")]
pub struct HealthArgs {
    /// From one probe to the next, ±10 % [default: 2s]
    #[arg(long, env = "REGISTER_INTERVAL", value_name = "SPAN")]
    pub interval: Option<String>,

    /// The same while the state may be changing [default: 1s]
    #[arg(long, env = "REGISTER_FAST_INTERVAL", value_name = "SPAN")]
    pub fast_interval: Option<String>,

    /// Time for one probe in total, below the interval [default: 1500ms, or three quarters of a shorter interval]
    #[arg(long, env = "REGISTER_TIMEOUT", value_name = "SPAN")]
    pub timeout: Option<String>,

    /// Passes in a row that make it healthy, at the start too [default: 2]
    #[arg(long, allow_negative_numbers = true, env = "REGISTER_RISE", value_name = "N")]
    pub rise: Option<String>,

    /// Failures in a row that make it unhealthy [default: 3]
    #[arg(long, allow_negative_numbers = true, env = "REGISTER_FALL", value_name = "N")]
    pub fall: Option<String>,

    /// How long failures at the start mean that it is still starting [default: 10s]
    #[arg(long, env = "REGISTER_GRACE", value_name = "SPAN")]
    pub grace: Option<String>,
}

/// The handshake with load balancers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Joining and leaving")]
pub struct HandshakeArgs {
    /// Fewer load balancers than this leave a drain unconfirmed [default: 0]
    #[arg(long, allow_negative_numbers = true, env = "REGISTER_MIN_LBS", value_name = "N")]
    pub min_lbs: Option<String>,

    /// Wait at least this long after the key is gone
    #[arg(long, env = "REGISTER_DRAIN_MIN", value_name = "SPAN")]
    pub drain_min: Option<String>,

    /// How long load balancers may take to stop sending new requests [default: 10s]
    #[arg(long, env = "REGISTER_DRAIN_APPLIED", value_name = "SPAN")]
    pub drain_applied: Option<String>,

    /// How long they may take to finish old ones, after that [default: 30s]
    #[arg(long, env = "REGISTER_DRAIN_QUIESCED", value_name = "SPAN")]
    pub drain_quiesced: Option<String>,

    /// Where load balancers keep members and acknowledgements [default: /confsync]
    #[arg(long, env = "REGISTER_BOOKKEEPING", value_name = "PREFIX")]
    pub bookkeeping: Option<String>,
}
