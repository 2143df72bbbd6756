//! From flags, environment and confd's `confd.toml` to what the daemon is told:
//! every mistake at once. Flags beat environment beat file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use common::args::{LogArgs, StoreArgs};
use common::model::{Prefix, parse_span};
use common::runtime::{Usage, listen_address};
use common::store::Connection;

use crate::cli::args::{ConfdirArgs, RunArgs};
use crate::cli::confd_toml::ConfdToml;
use crate::config::confdir::{Globals, Note};
use crate::config::run::{RunConfig, SingleRun};
use crate::proxy::nginx::Argv;

/// Where the resources are when nobody says.
pub(crate) const CONFDIR: &str = "/etc/confsync";

/// Where the resources are and what applies to all of them.
#[derive(Debug)]
pub struct Place {
    /// The folder.
    pub confdir: PathBuf,
    /// What applies to all resources.
    pub globals: Globals,
    /// What an operator should know of `confd.toml`.
    pub notes: Vec<Note>,
}

/// What `run` was told.
#[derive(Debug)]
pub struct Told {
    /// For the daemon.
    pub config: RunConfig,
    /// A single run instead; `None`: go on.
    pub once: Option<SingleRun>,
    /// What an operator should know of `confd.toml`.
    pub notes: Vec<Note>,
}

/// Where the resources are and what applies to all of them.
///
/// # Errors
/// [`Usage`] with every mistake.
pub fn place(args: &ConfdirArgs) -> Result<Place, Usage> {
    let mut mistakes = Vec::new();
    let file = confd_toml(args, &mut mistakes);
    let (confdir, globals) = read_confdir(args, &file, &mut mistakes);
    if mistakes.is_empty() {
        Ok(Place { confdir, globals, notes: file.notes })
    } else {
        Err(Usage(mistakes.join("\n")))
    }
}

/// The least level logged. A mistake in `confd.toml` is told later, by who reads more of
/// it.
#[must_use]
pub fn log_level(confdir: &ConfdirArgs, log: &LogArgs) -> String {
    let file = confd_toml(confdir, &mut Vec::new());
    let told = log.log_level.as_deref().or_else(|| file.log_level());
    told.unwrap_or_else(|| log.level()).to_owned()
}

/// SingleRun etcd is reached.
///
/// # Errors
/// [`Usage`] with every mistake.
pub fn connection(confdir: &ConfdirArgs, store: &StoreArgs) -> Result<Connection, Usage> {
    let mut mistakes = Vec::new();
    let file = confd_toml(confdir, &mut mistakes);
    let connection = connect_by(&file, store, &mut mistakes);
    if mistakes.is_empty() { Ok(connection) } else { Err(Usage(mistakes.join("\n"))) }
}

fn confd_toml(args: &ConfdirArgs, mistakes: &mut Vec<String>) -> ConfdToml {
    ConfdToml::find(args.config_file.as_deref(), args.confdir.as_deref()).unwrap_or_else(
        |mistake| {
            mistakes.push(mistake);
            ConfdToml::default()
        },
    )
}

fn connect_by(file: &ConfdToml, store: &StoreArgs, mistakes: &mut Vec<String>) -> Connection {
    let variable = |name: &str| std::env::var(name).ok();
    let with_password =
        |name: &str| variable(name).or_else(|| file.password().filter(|_| name == "ETCD_PASSWORD"));
    file.under(store, &variable).connection(&with_password).unwrap_or_else(|all| {
        mistakes.extend(all);
        Connection::default()
    })
}

fn read_confdir(
    args: &ConfdirArgs,
    file: &ConfdToml,
    mistakes: &mut Vec<String>,
) -> (PathBuf, Globals) {
    let told = args.confdir.clone().or_else(|| file.confdir.clone());
    let confdir = told.unwrap_or_else(|| PathBuf::from(CONFDIR));
    let default = Globals::default();
    let prefix = args.prefix.clone().or_else(|| file.prefix.clone()).filter(|p| !p.is_empty());
    let globals = Globals {
        prefix: prefix.and_then(|text| read("--prefix", &rooted(&text), mistakes, str::parse)),
        services: read("--services", &args.services, mistakes, str::parse::<Prefix>)
            .unwrap_or(default.services),
        min_reload_interval: span("--min-reload-interval", &args.min_reload_interval, mistakes),
        nginx_is_our_child: false,
        sync_only: false,
    };
    (confdir, globals)
}

/// confd puts a `/` before a prefix that has none, and takes many for one.
fn rooted(prefix: &str) -> String {
    let segments: Vec<&str> = prefix.split('/').filter(|s| !s.is_empty()).collect();
    format!("/{}", segments.join("/"))
}

fn read<T, E: std::fmt::Display>(
    flag: &str,
    text: &str,
    mistakes: &mut Vec<String>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<T> {
    parse(text).map_err(|error| mistakes.push(format!("{flag}: {error}"))).ok()
}

fn span(flag: &str, text: &str, mistakes: &mut Vec<String>) -> Duration {
    read(flag, text, mistakes, parse_span).unwrap_or_default()
}

/// Reads what `run` was told.
///
/// # Errors
/// [`Usage`] with every mistake.
pub fn run(args: &RunArgs) -> Result<Told, Usage> {
    let mut mistakes = Vec::new();
    let file = confd_toml(&args.confdir, &mut mistakes);
    let (confdir, mut globals) = read_confdir(&args.confdir, &file, &mut mistakes);
    globals.nginx_is_our_child = Argv::read(&args.command).is_some();
    let once = once(args, &file);
    globals.sync_only = once.is_none() && (args.sync_only || file.sync_only);
    let connection = connect_by(&file, &args.store, &mut mistakes);
    let reconcile = match (args.interval.as_deref(), file.interval) {
        (Some(text), _) => read("--interval", text, &mut mistakes, parse_span),
        (None, Some(secs)) => Some(Duration::from_secs(secs)),
        (None, None) => Some(Duration::from_secs(300)),
    };
    if reconcile.is_some_and(|interval| interval.is_zero()) {
        mistakes.push("--interval: it must be above zero".into());
    }
    let name = args.name.clone().unwrap_or_else(host_name);
    if name.is_empty() || name.contains('/') {
        mistakes
            .push(format!("--name: `{name}` must be one path segment, such as the host's name"));
    }
    let bookkeeping = read("--bookkeeping", &args.bookkeeping, &mut mistakes, str::parse::<Prefix>);
    if let Some(bookkeeping) = &bookkeeping
        && globals.services.strip(bookkeeping.as_str()).is_some()
    {
        mistakes.push(format!(
            "--bookkeeping: {bookkeeping} is below {}; it must lie outside what is watched",
            globals.services
        ));
    }
    let ttl = read("--ttl", &args.ttl, &mut mistakes, str::parse);
    let stop_timeout = span("--stop-timeout", &args.stop_timeout, &mut mistakes);
    let status = args.status.as_deref().filter(|text| !text.is_empty());
    let status = status.and_then(|text| read("--status", text, &mut mistakes, listen_address));
    match (bookkeeping, ttl, reconcile) {
        (Some(bookkeeping), Some(ttl), Some(reconcile)) if mistakes.is_empty() => {
            let config = RunConfig {
                confdir,
                globals,
                connection,
                reconcile,
                name,
                advertise: args.advertise.clone().filter(|a| !a.is_empty()),
                bookkeeping,
                ttl,
                status,
                stop_timeout,
                command: args.command.iter().map(OsString::from).collect(),
            };
            Ok(Told { config, once, notes: file.notes })
        }
        _ => Err(Usage(mistakes.join("\n"))),
    }
}

fn once(args: &RunArgs, file: &ConfdToml) -> Option<SingleRun> {
    let dry_run = args.dry_run || file.noop;
    let sync_only = args.sync_only || file.sync_only;
    (args.once || file.onetime || dry_run).then_some(SingleRun {
        dry_run,
        diff: args.diff,
        sync_only,
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
