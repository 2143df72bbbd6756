//! Every setting of `register`, named once: its flag, its variable, its key in
//! `services.toml`, its help, its default. What it means is in [`crate::config`].

use common::settings::{Group, Setting, output, status};

common::settings! {
    SERVICE: "service", "REGISTER_SERVICE", "NAME",
        "Name of the service: the folder below --services".never_empty();
    HOST: "host", "REGISTER_HOST", "HOST", "Address where load balancers reach the instance"
        .default_in_words("$COREOS_PRIVATE_IPV4").never_empty();
    PORT: "port", "REGISTER_PORT", "PORT", "Port where it listens".never_empty();
    ID: "id", "REGISTER_ID", "ID", "Name of the key; {host}, {port} and {hostname} are filled in"
        .default("{host}");
    SERVICES: "services", "REGISTER_SERVICES", "PREFIX", "The folder of all services"
        .also_from(&["REGISTER_PREFIX"]).formerly(&["prefix"]).default("/services");
}

/// Which instance of which service.
pub static INSTANCE: Group =
    Group { heading: "Instance", settings: &[&SERVICE, &HOST, &PORT, &ID, &SERVICES] };

common::settings! {
    VALUE: "value", "REGISTER_VALUE", "FORM", "Form of the value: plain (host:port) or json"
        .default("plain");
    WEIGHT: "weight", "REGISTER_WEIGHT", "N", "Share of the requests, 1 to 256 (json)".default("1");
    ZONE: "zone", "REGISTER_ZONE", "NAME", "Where the instance runs (json)";
    META: "meta", "REGISTER_META", "KEY=VALUE",
        "Further data for templates; may be repeated (json; one per line in the \
         environment)".many();
    TTL: "ttl", "REGISTER_TTL", "SPAN",
        "Time to live of the key after its last refresh; three intervals at least".default("30s");
}

/// What is written.
pub static REGISTRATION: Group =
    Group { heading: "Registration", settings: &[&VALUE, &WEIGHT, &ZONE, &META, &TTL] };

common::settings! {
    CHECK: "check", "REGISTER_CHECK", "CHECK",
        "Health check; may be repeated, then all must pass (one per line in the environment)"
        .details("http://…, https://…, h2c://… (HTTP/2 without TLS), \
                 http://unix:/run/app.sock:/path, /path, tcp, tcp://host:port, \
                 unix:/run/app.sock, exec:CMD (words, no shell), none. {host} and {port} are \
                 filled in.").default_in_words("http://HOST:PORT/").many();
    EXPECT: "expect", "REGISTER_EXPECT", "STATUSES",
        "Statuses that are healthy, such as 200-299,304".default("200-399");
    CHECK_HOST: "check_host", "REGISTER_CHECK_HOST", "NAME",
        "Host header and certificate name, where they differ from the URL's";
    CHECK_BODY: "check_body", "REGISTER_CHECK_BODY", "TEXT",
        "Text that the first 64 KiB of the body must contain";
    CHECK_CA: "check_ca", "REGISTER_CHECK_CA", "FILE",
        "Trust only the CA certificates in this PEM file (https)";
    CHECK_INSECURE: "check_insecure", "REGISTER_CHECK_INSECURE", "BOOL",
        "Accept any certificate (https)".implied("true");
}

/// What is asked.
pub static CHECKS: Group = Group {
    heading: "Checks",
    settings: &[&CHECK, &EXPECT, &CHECK_HOST, &CHECK_BODY, &CHECK_CA, &CHECK_INSECURE],
};

common::settings! {
    INTERVAL: "interval", "REGISTER_INTERVAL", "SPAN",
        "Time between the starts of two probes, ±10 %".default("2s");
    FAST_INTERVAL: "fast_interval", "REGISTER_FAST_INTERVAL", "SPAN",
        "The same while the health is about to change; at most --interval".default("1s");
    TIMEOUT: "timeout", "REGISTER_TIMEOUT", "SPAN",
        "Deadline of one probe; by default three quarters of an --interval of less than \
         2s".default("1500ms");
    RISE: "rise", "REGISTER_RISE", "N", "Consecutive passes that make it healthy, also at the start"
        .default("2");
    FALL: "fall", "REGISTER_FALL", "N", "Consecutive failures that make it unhealthy".default("3");
    GRACE: "grace", "REGISTER_GRACE", "SPAN",
        "How long after the start failures count as still starting".default("10s");
}

/// How often to ask, and what the answers mean.
pub static HEALTH: Group = Group {
    heading: "Health",
    settings: &[&INTERVAL, &FAST_INTERVAL, &TIMEOUT, &RISE, &FALL, &GRACE],
};

common::settings! {
    MIN_LBS: "min_lbs", "REGISTER_MIN_LBS", "N",
        "With fewer load balancers than this, a drain is unconfirmed".default("0");
    DRAIN_MIN: "drain_min", "REGISTER_DRAIN_MIN", "SPAN",
        "Wait at least this long after the key is removed".default("0s");
    DRAIN_APPLIED: "drain_applied", "REGISTER_DRAIN_APPLIED", "SPAN",
        "How long load balancers may take to stop sending new requests".default("10s");
    DRAIN_QUIESCED: "drain_quiesced", "REGISTER_DRAIN_QUIESCED", "SPAN",
        "How long they may take after that to finish old requests".default("30s");
    BOOKKEEPING: "bookkeeping", "REGISTER_BOOKKEEPING", "PREFIX",
        "Where load balancers publish members and acknowledgements".default("/confsync");
}

pub static DRAIN: Group = Group {
    heading: "Joining and leaving",
    settings: &[&MIN_LBS, &DRAIN_MIN, &DRAIN_APPLIED, &DRAIN_QUIESCED, &BOOKKEEPING],
};

common::settings! {
    WAIT_APPLIED: "wait_applied", "REGISTER_WAIT_APPLIED", "SPAN",
        "Delay readiness until every load balancer serves this instance, by at most this; without \
         a value 30s"
        .implied("30s");
    DRAIN_QUIET: "drain_quiet", "REGISTER_DRAIN_QUIET", "SPAN",
        "After the drain, wait until no connection is open and none was made for this long"
        .details("For load balancers other than confsync, which acknowledge nothing. The wait ends \
                  after --drain-quiesced, and needs to see the backend's sockets: on the same \
                  machine, without forwarded ports.");
    READY_WITHIN: "ready_within", "REGISTER_READY_WITHIN", "SPAN",
        "Report READY to the service manager after this long, registered or not, so that a boot \
         never blocks on it";
    DRAIN_EXIT: "drain_exit", "REGISTER_DRAIN_EXIT", "WORD",
        "Exit code after a drain: by its result (0, 2, 3), or always zero"
        .choices(&["result", "zero"]).default("result")
        .details("`zero` is for a service manager that cannot be configured to accept 2 and 3, or \
                  forgets it, as systemd does when fleet removes the unit. The log reports the \
                  result of the drain in either case.");
}

/// How to join, and how to leave others than our load balancers.
pub static JOIN: Group = Group {
    heading: "Joining and leaving",
    settings: &[&DRAIN_QUIET, &DRAIN_EXIT, &WAIT_APPLIED, &READY_WITHIN],
};

/// Where status is served.
pub static LISTEN: Setting = status::listen(
    "REGISTER_LISTEN",
    &["REGISTER_STATUS"],
    "Serve status, metrics and health of this process at this address, such as 127.0.0.1:9181",
);

/// Names under which it may be asked.
pub static ALLOW_HOST: Setting = status::allow_host("REGISTER_ALLOW_HOST");

pub static PROCESS: Group = Group { heading: "Status", settings: &[&LISTEN, &ALLOW_HOST] };

common::settings! {
    ONE_INSTANCE: "instance", "", "KEY",
        "The instance, if the sidekick has several, such as apache/10.0.0.1";
}

/// Where a running sidekick serves its status: the same setting, of another process.
pub static SIDEKICK: Setting = Setting::new(
    "listen",
    "REGISTER_LISTEN",
    "ADDR",
    "The unix socket that the running sidekick was given as --listen",
)
.also_from(&["REGISTER_STATUS"])
.formerly(&["status"]);

/// The socket on which a running sidekick accepts another weight.
pub static WEIGHING: Group = Group { heading: "", settings: &[&SIDEKICK, &ONE_INSTANCE] };

common::settings! {
    CONFIG: "config", "REGISTER_CONFIG", "FILE",
        "Read services from this TOML file, where settings are named as the flags, in snake_case";
}

/// What cannot be in that file.
pub static FILE: Group = Group { heading: "", settings: &[&CONFIG] };

common::settings! {
    WAIT: "wait", "REGISTER_WAIT", "",
        "Wait until every load balancer has drained it, as `run` does when it is stopped";
    FORCE: "force", "", "",
        "Remove the key whatever its value; needed with KEY. Its sidekick, if it runs, writes it \
         again";
}

/// How `remove` is done.
pub static REMOVAL: Group = Group { heading: "", settings: &[&FORCE, &WAIT] };

/// Table or JSON.
pub static OUTPUT: Setting = output::form("REGISTER_OUTPUT");

/// The short way to ask for JSON.
pub static JSON: Setting = output::json("REGISTER_JSON");

/// What is shown by `list`, and how.
pub static LIST: Group = Group { heading: "", settings: &[&SERVICE, &SERVICES, &OUTPUT, &JSON] };

/// What a setting concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One service and no other: what it is called and where it listens.
    Identity,
    /// A service, or by `[defaults]` all of them.
    Service,
    /// The whole process: there is one lease and one drain.
    Process,
}

/// What a setting concerns that `services.toml` may have.
pub fn scope(setting: &Setting) -> Scope {
    let is_in = |group: &Group| group.settings.iter().any(|other| other.name == setting.name);
    if [SERVICE.name, PORT.name].contains(&setting.name) {
        Scope::Identity
    } else if setting.name == TTL.name || is_in(&DRAIN) || is_in(&JOIN) || is_in(&PROCESS) {
        Scope::Process
    } else {
        Scope::Service
    }
}

/// Everything that `run` takes but for etcd and the log: what `services.toml` may have.
pub fn in_file() -> impl Iterator<Item = &'static &'static Setting> {
    [&INSTANCE, &REGISTRATION, &CHECKS, &HEALTH, &DRAIN, &JOIN, &PROCESS]
        .into_iter()
        .flat_map(|group| group.settings)
}
