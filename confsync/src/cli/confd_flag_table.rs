//! What each flag of confd, and of its fork, means here.

/// How a flag of confd is translated.
pub(super) enum FlagMeaning {
    /// A flag of ours that takes no value.
    Switch(&'static str),
    /// A flag of ours with the same value.
    Value(&'static str),
    /// Dropped: it always applies, or has no meaning here.
    Nothing,
    /// Dropped with its value.
    NothingOf,
    /// An error; the reason and what to do.
    Unsupported(&'static str),
}

use FlagMeaning::{Nothing, NothingOf, Switch, Unsupported, Value};

const OTHER_STORE: &str = "it belongs to a store other than etcd, and only etcd is read here";

const IN_THE_RESOURCE: &str = "it is set for each resource, in its [template] table";

/// Stores that the fork takes as a subcommand.
pub(super) const OTHER_STORES: [&str; 11] = [
    "consul",
    "vault",
    "redis",
    "zookeeper",
    "dynamodb",
    "ssm",
    "acm",
    "secretsmanager",
    "imds",
    "env",
    "file",
];

pub(super) const FLAGS: &[(&str, FlagMeaning)] = &[
    ("onetime", Switch("--once")),
    ("noop", Switch("--dry-run")),
    ("sync-only", Switch("--sync-only")),
    ("watch", Nothing),
    ("basic-auth", Nothing),
    ("interval", Value("--interval")),
    ("node", Value("--etcd")),
    ("n", Value("--etcd")),
    ("backend", Value("--etcd-api")),
    ("confdir", Value("--confdir")),
    ("config-file", Value("--config-file")),
    ("log-level", Value("--log-level")),
    ("prefix", Value("--prefix")),
    ("client-ca-keys", Value("--etcd-ca")),
    ("client-cert", Value("--etcd-cert")),
    ("client-key", Value("--etcd-key")),
    ("username", Value("--etcd-user")),
    ("srv-domain", Value("--etcd-srv")),
    // The names of the SRV records say whether it is TLS.
    ("scheme", NothingOf),
    (
        "keep-stage-file",
        Unsupported("stage files are never kept; `confsync render` prints what would be written"),
    ),
    (
        "client-insecure",
        Unsupported("certificates are always checked; give --etcd-ca the CA that signed etcd's"),
    ),
    (
        "password",
        Unsupported(
            "everybody can read arguments; set $ETCD_PASSWORD or give --etcd-password-file",
        ),
    ),
    (
        "srv-record",
        Unsupported(
            "_etcd-client-ssl._tcp and _etcd-client._tcp are looked up; give --etcd-srv the domain",
        ),
    ),
    ("auth-token", Unsupported(OTHER_STORE)),
    ("auth-type", Unsupported(OTHER_STORE)),
    ("app-id", Unsupported(OTHER_STORE)),
    ("user-id", Unsupported(OTHER_STORE)),
    ("role-id", Unsupported(OTHER_STORE)),
    ("secret-id", Unsupported(OTHER_STORE)),
    ("path", Unsupported(OTHER_STORE)),
    ("table", Unsupported(OTHER_STORE)),
    ("separator", Unsupported(OTHER_STORE)),
    ("file", Unsupported(OTHER_STORE)),
    ("filter", Unsupported(OTHER_STORE)),
    // Flags of the fork. Every request, retry and command is bounded here anyway.
    ("color", Nothing),
    ("diff", Switch("--diff")),
    ("systemd-notify", Nothing),
    ("template-cache", Nothing),
    ("no-template-cache", Nothing),
    ("diff-context", NothingOf),
    ("stat-cache-ttl", NothingOf),
    ("backend-timeout", NothingOf),
    ("dial-timeout", NothingOf),
    ("read-timeout", NothingOf),
    ("write-timeout", NothingOf),
    ("retry-max-attempts", NothingOf),
    ("retry-base-delay", NothingOf),
    ("retry-max-delay", NothingOf),
    ("watch-error-backoff", NothingOf),
    ("preflight-timeout", NothingOf),
    ("shutdown-timeout", NothingOf),
    ("watchdog-interval", NothingOf),
    ("batch-interval", Value("--min-reload-interval")),
    ("failure-mode", NothingOf),
    ("check-cmd-timeout", Unsupported(IN_THE_RESOURCE)),
    ("reload-cmd-timeout", Unsupported(IN_THE_RESOURCE)),
    ("debounce", Unsupported(IN_THE_RESOURCE)),
    ("check-config", Unsupported("write `confsync check --confdir DIR`")),
    ("validate", Unsupported("write `confsync check --confdir DIR`")),
    ("mock-data", Unsupported("write `confsync check --confdir DIR --data FILE`")),
    ("resource", Unsupported("write `confsync render RESOURCE --confdir DIR`")),
    ("preflight", Unsupported("write `confsync status`, which asks etcd")),
    ("metrics-addr", Unsupported("give --listen ADDR; metrics are at /metrics there")),
];
