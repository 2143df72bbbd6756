//! The command line of `confsync`: every setting, named once, and which subcommand takes
//! which. What they mean is in [`super::settings`].
//!
//! A line meant for confd is rewritten by [`super::confd_flags`] before clap reads it.

use clap::{Arg, Command, value_parser};
use common::settings::cli::with_common_commands;
use common::settings::{Group, Setting, etcd, log, output, status, with_settings};
use std::ffi::OsString;

use crate::config::confdir;
use crate::template::starter::PROXIES;

common::settings! {
    CONFDIR: "confdir", "CONFSYNC_CONFDIR", "DIR", "Folder with conf.d/ and templates/"
        .default("/etc/confsync");
    PREFIX: "prefix", "CONFSYNC_PREFIX", "PREFIX",
        "Prefix of every resource's keys, in place of its own prefix";
    SERVICES: "services", "CONFSYNC_SERVICES", "PREFIX",
        "The folder of all services, below the prefix".default(confdir::SERVICES);
    MIN_RELOAD_INTERVAL: "min_reload_interval", "CONFSYNC_MIN_RELOAD_INTERVAL", "SPAN",
        "Minimum time between two reloads of one proxy, unless a resource sets its own; reloads \
         are delayed, never dropped".default(confdir::MIN_RELOAD_INTERVAL);
    CONFD_CONFIG: "confd_config", "CONFSYNC_CONFD_CONFIG", "FILE",
        "confd's own confd.toml; flags and environment override it"
        .also_from(&["CONFSYNC_CONFIG_FILE"]).formerly(&["config_file"])
        .default_in_words("confd.toml in the confdir, if it exists");
}

pub static RESOURCES: Group = Group {
    heading: "",
    settings: &[&CONFDIR, &PREFIX, &SERVICES, &BOOKKEEPING, &MIN_RELOAD_INTERVAL, &CONFD_CONFIG],
};

common::settings! {
    ONCE: "once", "CONFSYNC_ONCE", "", "Apply once and exit; the exit code reports the result"
        .formerly(&["onetime"]);
    DRY_RUN: "dry_run", "CONFSYNC_DRY_RUN", "", "Change nothing; print what would be done"
        .formerly(&["noop"]);
    DIFF: "diff", "CONFSYNC_DIFF", "", "With --dry-run: show the changes as a diff";
    SYNC_ONLY: "sync_only", "CONFSYNC_SYNC_ONLY", "",
        "Only write the files: run no check and no reload of any resource";
    INTERVAL: "interval", "CONFSYNC_INTERVAL", "SPAN",
        "Interval of the periodic resync, which reads everything again".default("5m");
    REREAD: "reread", "CONFSYNC_REREAD", "",
        "Also read conf.d and templates again at each --interval, as confd does";
    NAME: "name", "CONFSYNC_NAME", "NAME", "This load balancer's name among the others"
        .default_in_words("host name and resources, such as edge-1-nginx");
    ADVERTISE: "advertise", "CONFSYNC_ADVERTISE", "ADDR",
        "Address where clients reach this load balancer; written to its member key";
    BOOKKEEPING: "bookkeeping", "CONFSYNC_BOOKKEEPING", "PREFIX",
        "Folder of confsync's own keys: members and acknowledgements; no template sees them"
        .default(confdir::BOOKKEEPING);
    TTL: "ttl", "CONFSYNC_TTL", "SPAN", "Lifetime of the member key after its last refresh"
        .default("15s");
}

/// Where status is served.
pub static LISTEN: Setting = status::listen(
    "CONFSYNC_LISTEN",
    &["CONFSYNC_STATUS"],
    "Serve status, metrics, health and a page for people at this address, such as 127.0.0.1:9180",
);

/// Names under which it may be asked.
pub static ALLOW_HOST: Setting = status::allow_host("CONFSYNC_ALLOW_HOST");

common::settings! {
    START_WITHIN: "start_within", "CONFSYNC_START_WITHIN", "SPAN",
        "Send READY=1 to the service manager after this long at the latest, so that no boot waits \
         for etcd or a first backend; /readyz keeps reporting the real state. 0s: only when \
         everything is active".default("30s");
    STOP_TIMEOUT: "stop_timeout", "CONFSYNC_STOP_TIMEOUT", "SPAN",
        "How long the supervised command may take to end".default("30s");
}

/// What `run` does.
pub static RUNNING: Group = Group {
    heading: "",
    settings: &[
        &ONCE,
        &DRY_RUN,
        &DIFF,
        &SYNC_ONLY,
        &INTERVAL,
        &REREAD,
        &NAME,
        &ADVERTISE,
        &TTL,
        &LISTEN,
        &ALLOW_HOST,
        &START_WITHIN,
        &STOP_TIMEOUT,
    ],
};

common::settings! {
    DATA: "data", "CONFSYNC_DATA", "FILE",
        "Render from these keys, a JSON object of key to value, instead of etcd";
    HOST: "host", "CONFSYNC_CHECK_HOST", "",
        "Also report what would fail on this machine: folders, users, programs, nginx.conf, pid \
         file; and have nginx or HAProxy check the files (rendered from --data, else without keys)";
}

/// What `check` looks at.
pub static CHECKING: Group = Group { heading: "", settings: &[&DATA, &HOST] };

/// What is rendered from.
pub static RENDERING: Group = Group { heading: "", settings: &[&DATA] };

/// Table or JSON.
pub static OUTPUT: Setting = output::form("CONFSYNC_OUTPUT");

/// The short way to ask for JSON.
pub static JSON: Setting = output::json("CONFSYNC_JSON");

/// What is shown by `status`, and how.
pub static SHOWING: Group = Group { heading: "", settings: &[&OUTPUT, &JSON, &BOOKKEEPING] };

/// The prefix below which the acceptance is written.
pub static ACCEPTING: Group = Group { heading: "", settings: &[&BOOKKEEPING] };

common::settings! {
    PROXY: "proxy", "CONFSYNC_PROXY", "NAME", "The proxy to start with: nginx, haproxy or apache"
        .choices(&PROXIES).default("nginx");
}

/// Where `init` writes, and what.
pub static STARTING: Group = Group { heading: "", settings: &[&CONFDIR, &PROXY] };

/// The whole command line.
pub fn command() -> Command {
    let program = Command::new("confsync")
        .about("Renders the proxy's configuration from etcd and proves that the proxy runs it")
        .max_term_width(100);
    with_common_commands(subcommands().into_iter().fold(program, Command::subcommand))
}

fn subcommand(name: &'static str, about: &'static str, examples: &'static str) -> Command {
    Command::new(name).about(about).after_help(format!("Examples:\n{examples}"))
}

fn run_command() -> Command {
    let run =
        subcommand("run", "Follow the keys, and keep the files and the proxy up to date", RUNS);
    with_settings(run, &[&RESOURCES, &RUNNING, &etcd::GROUP, &log::GROUP]).arg(
        Arg::new("command")
            .value_name("COMMAND")
            .last(true)
            .num_args(0..)
            .value_parser(value_parser!(OsString))
            .help(
                "Supervise this command: started with the first good configuration, stopped at \
                 the end; its exit code is ours",
            ),
    )
}

fn subcommands() -> [Command; 7] {
    let check = subcommand(
        "check",
        "Validate resources and templates without etcd; ignored and misspelt keys are errors here",
        CHECKS,
    );
    let resource = Arg::new("resource")
        .value_name("RESOURCE")
        .required(true)
        .help("The resource: the name of its file without .toml");
    let render = subcommand("render", "Print what a resource would write", RENDERS).arg(&resource);
    let accept = subcommand(
        "accept",
        "Accept a loss of backends that the load balancers withhold; later losses are not covered",
        ACCEPTS,
    )
    .arg(resource);
    let status =
        subcommand("status", "Every load balancer: what it has applied, what it waits for", SHOWS);
    let init = subcommand("init", "Write a working confdir to start from", INITS);
    [
        run_command(),
        with_settings(check, &[&RESOURCES, &CHECKING]),
        with_settings(render, &[&RESOURCES, &RENDERING, &etcd::GROUP, &log::GROUP]),
        with_settings(status, &[&SHOWING, &etcd::GROUP, &log::GROUP]),
        with_settings(accept, &[&ACCEPTING, &etcd::GROUP, &log::GROUP]),
        with_settings(init, &[&STARTING]),
        subcommand("schema", "Print the JSON schema of resource files, for editors", SCHEMAS),
    ]
}

const RUNS: &str = "  \
  confsync run -- nginx -g 'daemon off;'
  confsync run --confdir /etc/confd --once
  confsync run --dry-run --diff";

const CHECKS: &str = "  \
  confsync check --confdir /etc/confsync
  confsync check --data keys.json
  confsync check --host";

const RENDERS: &str = "  \
  confsync render nginx
  confsync render nginx --data keys.json";

const SHOWS: &str = "  \
  confsync status
  confsync status --output json";

const ACCEPTS: &str = "  \
  confsync accept nginx";

const SCHEMAS: &str = "  \
  confsync schema > schema.json";

const INITS: &str = "  \
  confsync init --confdir /etc/confsync
  confsync init --proxy haproxy";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_command_line_is_consistent() {
        command().debug_assert();
    }
}
