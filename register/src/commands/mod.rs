//! The subcommands: each reads its part of the command line and does its work.

mod config_file;
mod list;
mod probe;
mod remove;
mod run;
mod setup;
mod weight;

use clap::ArgMatches;
use common::runtime::{Exit, Usage};

/// Does what was asked.
///
/// # Errors
/// Wrong usage, or the failure of the subcommand.
pub async fn dispatch(matches: &ArgMatches) -> anyhow::Result<Exit> {
    match matches.subcommand() {
        Some(("run", matches)) => run::run(matches).await,
        Some(("probe", matches)) => probe::probe(matches).await,
        Some(("remove", matches)) => remove::remove(matches).await,
        Some(("list", matches)) => list::list(matches).await,
        Some(("weight", matches)) => weight::weight(matches).await,
        _ => Err(Usage("give a command; see --help".into()).into()),
    }
}
