//! From flags, environment and confd's `confd.toml` to what the daemon is told:
//! every mistake at once. Flags beat environment beat file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::args::StoreArgs;
use common::model::{Prefix, parse_span};
use common::runtime::Usage;
use serde::Deserialize;

use crate::args::{ConfdirArgs, RunArgs};
use crate::confdir::Globals;
use crate::daemon::Config;
use crate::nginx::Argv;

/// Where the resources are and what applies to all of them.
///
/// # Errors
/// [`Usage`] with every mistake.
pub fn confdir(args: &ConfdirArgs) -> Result<(PathBuf, Globals), Usage> {
    let mut mistakes = Vec::new();
    let file = args
        .config_file
        .as_deref()
        .and_then(|file| Confd::read(file).map_err(|mistake| mistakes.push(mistake)).ok());
    let found = read_confdir(args, file.as_ref(), &mut mistakes);
    if mistakes.is_empty() { Ok(found) } else { Err(Usage(mistakes.join("\n"))) }
}

fn read_confdir(
    args: &ConfdirArgs,
    file: Option<&Confd>,
    mistakes: &mut Vec<String>,
) -> (PathBuf, Globals) {
    let told = args.confdir.clone().or_else(|| file?.confdir.clone());
    let confdir = told.unwrap_or_else(|| PathBuf::from("/etc/confsync"));
    let default = Globals::default();
    let prefix = args.prefix.clone().or_else(|| file?.prefix.clone()).filter(|p| !p.is_empty());
    let globals = Globals {
        prefix: prefix.and_then(|text| read("--prefix", &text, mistakes, str::parse::<Prefix>)),
        services: read("--services", &args.services, mistakes, str::parse::<Prefix>)
            .unwrap_or(default.services),
        min_reload_interval: span("--min-reload-interval", &args.min_reload_interval, mistakes),
        nginx_is_our_child: false,
    };
    (confdir, globals)
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

/// What `run` was told.
///
/// # Errors
/// [`Usage`] with every mistake.
pub fn run(args: &RunArgs) -> Result<Config, Usage> {
    let mut mistakes = Vec::new();
    let file = match args.confdir.config_file.as_deref().map(Confd::read) {
        Some(Ok(file)) => file,
        Some(Err(mistake)) => {
            mistakes.push(mistake);
            Confd::default()
        }
        None => Confd::default(),
    };
    let (confdir, mut globals) = read_confdir(&args.confdir, Some(&file), &mut mistakes);
    globals.nginx_is_our_child = Argv::read(&args.command).is_some();
    let connection = file.under(&args.store).connection(&|name| std::env::var(name).ok());
    let connection = connection.unwrap_or_else(|all| {
        mistakes.extend(all);
        common::store::Connection::default()
    });
    let reconcile = match (args.interval.as_deref(), file.interval) {
        (Some(text), _) => span("--interval", text, &mut mistakes),
        (None, Some(secs)) => Duration::from_secs(secs),
        (None, None) => Duration::from_secs(300),
    };
    if reconcile.is_zero() {
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
    match (bookkeeping, ttl) {
        (Some(bookkeeping), Some(ttl)) if mistakes.is_empty() => Ok(Config {
            confdir,
            globals,
            connection,
            reconcile,
            name,
            advertise: args.advertise.clone().filter(|a| !a.is_empty()),
            bookkeeping,
            ttl,
            status: args.status,
            stop_timeout,
            command: args.command.iter().map(OsString::from).collect(),
        }),
        _ => Err(Usage(mistakes.join("\n"))),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `confd.toml`, as far as it means something here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Confd {
    confdir: Option<PathBuf>,
    prefix: Option<String>,
    interval: Option<u64>,
    backend: Option<String>,
    nodes: Vec<String>,
    client_cakeys: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    username: Option<String>,
}

impl Confd {
    /// The tutorial hands a resource file to confd as its configuration; confd finds
    /// nothing of its own in it and reads its confdir. So do we, and take the confdir
    /// that the file lies in.
    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("--config-file {}: {error}", path.display()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            format!("--config-file {}: {}", path.display(), error.message())
        })?;
        if table.contains_key("template") {
            let folder = path.parent().filter(|parent| parent.ends_with("conf.d"));
            let confdir = folder.and_then(Path::parent).map(Path::to_owned);
            return Ok(Self { confdir, ..Self::default() });
        }
        let file: Self = Self::deserialize(table)
            .map_err(|error| format!("--config-file {}: {}", path.display(), error.message()))?;
        match file.backend.as_deref() {
            None | Some("etcd" | "etcdv3") => Ok(file),
            Some(other) => Err(format!(
                "--config-file {}: backend `{other}`: only etcd is read here",
                path.display()
            )),
        }
    }

    /// The flags, with the file's values where they say nothing.
    fn under(&self, args: &StoreArgs) -> StoreArgs {
        let mut args = args.clone();
        if args.etcd.is_empty() {
            args.etcd.clone_from(&self.nodes);
        }
        args.etcd_ca = args.etcd_ca.or_else(|| self.client_cakeys.clone());
        args.etcd_cert = args.etcd_cert.or_else(|| self.client_cert.clone());
        args.etcd_key = args.etcd_key.or_else(|| self.client_key.clone());
        args.etcd_user = args.etcd_user.or_else(|| self.username.clone());
        args
    }
}
