//! What every subcommand begins with: its settings, the log, how etcd is reached.

use clap::ArgMatches;
use common::runtime::{Usage, hostname, start_log};
use common::settings::{Layer, Mistakes, both, etcd, log};
use common::store::Connection;

use crate::config::ConfigSources;

/// Where the configuration of this command line comes from.
pub(super) fn sources(matches: &ArgMatches) -> ConfigSources {
    ConfigSources::new(matches, &variable, hostname())
}

/// Starts the log. Returns `settings` and how etcd is reached, or what is wrong with any
/// of them.
pub(super) fn start<T>(
    matches: &ArgMatches,
    settings: Result<T, Mistakes>,
) -> anyhow::Result<(T, Connection)> {
    let connection = etcd::read(matches, &variable, &Layer::default());
    let log = log::read(matches, &variable, &Layer::default());
    let ((settings, connection), log) =
        both(both(settings, connection), log).map_err(Usage::from)?;
    start_log(log.format, log.filter);
    Ok((settings, connection))
}

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
