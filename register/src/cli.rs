//! The command line of `register`: which subcommand takes which settings.

use clap::{Arg, Command};
use common::settings::cli::with_common_commands;
use common::settings::{Group, etcd, log, with_settings};

use crate::settings::{
    CHECKS, DRAIN, FILE, HEALTH, INSTANCE, JOIN, LIST, PROCESS, REGISTRATION, REMOVAL, WEIGHING,
};

const RUN: [&Group; 10] = [
    &INSTANCE,
    &REGISTRATION,
    &CHECKS,
    &HEALTH,
    &DRAIN,
    &JOIN,
    &PROCESS,
    &FILE,
    &etcd::GROUP,
    &log::GROUP,
];
const REMOVE: [&Group; 5] = [&INSTANCE, &DRAIN, &REMOVAL, &etcd::GROUP, &log::GROUP];
const WEIGHT: [&Group; 1] = [&WEIGHING];
const SHOW: [&Group; 3] = [&LIST, &etcd::GROUP, &log::GROUP];

/// The groups of settings of a subcommand.
pub fn groups(subcommand: &str) -> &'static [&'static Group] {
    match subcommand {
        "remove" => &REMOVE,
        "list" => &SHOW,
        "weight" => &WEIGHT,
        _ => &RUN,
    }
}

/// The whole command line.
pub fn command() -> Command {
    let subcommand = |name: &'static str, about: &'static str, examples: &'static str| {
        let command = Command::new(name).about(about).after_help(format!("Examples:\n{examples}"));
        with_settings(command, groups(name))
    };
    let program = Command::new("register")
        .about("Keeps a backend's key in etcd while the backend is healthy")
        .max_term_width(100)
        .subcommand(
            subcommand("run", "Probe a backend and keep its key in etcd while it is healthy", RUNS)
                .arg(backend()),
        )
        .subcommand(
            subcommand("probe", "Probe once now: exit 0 if healthy, 1 if not", PROBES)
                .alias("check")
                .arg(backend().help("The backend's command, as `run` has it; it is not started")),
        )
        .subcommand(
            subcommand(
                "remove",
                "Remove an instance's key, if it holds the address of that instance",
                REMOVALS,
            )
            .arg(key()),
        )
        .subcommand(
            subcommand("weight", "Give a running sidekick's instance another weight", WEIGHTS)
                .arg(weight()),
        )
        .subcommand(subcommand("list", "List the registered backends", LISTS));
    with_common_commands(program)
}

fn backend() -> Arg {
    Arg::new("command")
        .value_name("COMMAND")
        .last(true)
        .num_args(0..)
        .help("Start this command as the backend, and stop it after it has been drained")
}

fn key() -> Arg {
    Arg::new("key")
        .value_name("KEY")
        .help("Key to remove, such as apache/10.0.0.1, below --services")
}

fn weight() -> Arg {
    Arg::new("weight").value_name("N").required(true).help("Share of the requests, 1 to 256")
}

const RUNS: &str = "  \
  register run --service apache --host 10.0.0.1 --port 7777
  register run --service apache --host 10.0.0.1 --port 7777 --check /health -- apache2 -DFOREGROUND
  register run --config /etc/register/services.toml";

const PROBES: &str = "  \
  register probe --service apache --host 10.0.0.1 --port 7777 --check /health";

const REMOVALS: &str = "  \
  register remove --service apache --host 10.0.0.1 --port 7777 --wait
  register remove apache/10.0.0.1 --force";

const WEIGHTS: &str = "  \
  register weight 10 --listen unix:/run/apache-discovery-7777/status.sock
  register weight 1 --listen unix:/run/register/status.sock --instance apache/10.0.0.1";

const LISTS: &str = "  \
  register list
  register list --service apache --output json";

#[cfg(test)]
mod tests {
    use common::settings::{Layer, Mistakes, Reader, Setting};

    use super::*;
    use crate::settings::{Scope, in_file, scope};

    #[test]
    fn the_whole_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_default_can_be_read() {
        let matches = command().try_get_matches_from(["register", "run"]).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let layer = Layer::from_matches(matches, in_file(), &|_| None);
        let mut mistakes = Mistakes::default();
        let _ = crate::config::process(&mut Reader::new(&layer, "", &mut mistakes));
        assert_eq!(mistakes.none_or(()), Ok(()));
    }

    #[test]
    fn what_each_setting_concerns() {
        let names = |wanted| {
            let is = |setting: &&&Setting| scope(setting) == wanted;
            in_file().filter(is).map(|setting| setting.name).collect::<Vec<_>>()
        };
        assert_eq!(names(Scope::Identity), ["service", "port"]);
        assert_eq!(
            names(Scope::Process),
            [
                "ttl",
                "min_lbs",
                "drain_min",
                "drain_applied",
                "drain_quiesced",
                "bookkeeping",
                "drain_quiet",
                "drain_exit",
                "wait_applied",
                "ready_within",
                "listen",
                "allow_host"
            ]
        );
    }

    #[test]
    fn the_command_lines_of_the_manual_parse() {
        for line in [
            "register list --service apache --json",
            "register list -o json",
            "register weight 3 --listen unix:/run/a.sock --instance a/10.0.0.1",
            "register check --service a --host 10.0.0.1 --port 1 --check none",
            "register remove --service a --host 10.0.0.1 --port 1 --wait",
            "register remove /services/a/10.0.0.1 --force",
            "register run --config services.toml",
            "register run --prefix /a --status :1 --endpoints a:1",
            "register run --service a --host h --port 1 --wait-applied -- nginx -g daemon",
        ] {
            command().try_get_matches_from(line.split(' ')).unwrap();
        }
    }
}
