//! The subcommands: what the command line says, put together and done.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgMatches, FromArgMatches};
use common::args::{LogArgs, StoreArgs};
use common::model::{self, Tree};
use common::runtime::{
    Exit, Forwarded, Liveness, ServiceManager, Signals, Usage, print, print_error, start_log,
};
use common::startup::wait_for_etcd;
use common::store::{Connection, Store, connect, default_deadline, read_deadline};

use crate::agent::{self, Child};
use crate::args::ListArgs;
use crate::config::{Sources, UsageErrors, prepare};
use crate::list::{self, Row};
use crate::status::Surface;
use crate::supervise::Backend;

/// `register run`.
///
/// # Errors
/// Bad usage, or etcd refusing us.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let sources = sources(matches);
    let config = sources.load().map_err(usage)?;
    let connection = shared(matches)?;
    let manager = ServiceManager::default();
    let signals = Signals::listen().context("cannot listen to signals")?;
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let services = config.services.len();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), services, "starting");
    let probes = prepare(&config.services).map_err(usage)?;
    let mut backend = supervise(&config.command)?;
    let (publish, published) = tokio::sync::watch::channel(agent::Snapshot::default());
    let liveness = Liveness::default();
    if let Some(addr) = config.process.status {
        let surface =
            Surface { snapshot: published, liveness: liveness.clone(), manager: manager.clone() };
        surface.serve(addr, signals.abort.clone()).await?;
    }
    let store = tokio::select! {
        store = wait_for_etcd(&connection, &manager, &signals.drain, &liveness) => store,
        exit = ended(&mut backend) => {
            tracing::warn!(code = exit.code(), "the backend ended by itself");
            return Ok(Exit::Child(exit.code()));
        }
    };
    let Some(store) = store else {
        tracing::info!("ended before etcd was reached");
        return stop_early(backend).await;
    };
    let parts = agent::Parts {
        config,
        probes,
        sources,
        store,
        signals,
        manager,
        liveness,
        backend,
        publish,
    };
    agent::run(parts).await
}

fn supervise(argv: &[String]) -> anyhow::Result<Option<Child>> {
    if argv.is_empty() {
        return Ok(None);
    }
    let signals = Forwarded::listen().context("cannot listen to signals")?;
    let backend = Backend::start(argv).map_err(|e| Usage(e.to_string()))?;
    Ok(Some(Child { backend, signals }))
}

/// The end of the backend while etcd is still waited for. Signals reach it meanwhile.
async fn ended(child: &mut Option<Child>) -> crate::supervise::Exit {
    let Some(Child { backend, signals }) = child else { return std::future::pending().await };
    loop {
        tokio::select! {
            exit = backend.ended() => return exit.unwrap_or(crate::supervise::Exit::Code(1)),
            signal = signals.next() => backend.signal(signal),
        }
    }
}

/// Told to end while nothing was registered yet.
async fn stop_early(backend: Option<Child>) -> anyhow::Result<Exit> {
    match backend {
        None => Ok(Exit::Done),
        Some(Child { mut backend, .. }) => {
            Ok(Exit::Child(backend.stop(Duration::from_secs(30)).await?.code()))
        }
    }
}

/// `register check`: one probe now.
///
/// # Errors
/// Bad usage.
pub async fn check(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let config = sources(matches).load().map_err(usage)?;
    for note in &config.notes {
        print_error(format_args!("note: {note}"));
    }
    let probes = prepare(&config.services).map_err(usage)?;
    let lines = crate::check::ask(&config.services, &probes).await;
    print(crate::check::render(&lines));
    Ok(if crate::check::healthy(&lines) { Exit::Done } else { Exit::Failed })
}

/// `register list`.
///
/// # Errors
/// Bad usage, or etcd away.
pub async fn list(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let args = ListArgs::from_arg_matches(matches).map_err(|e| Usage(e.to_string()))?;
    let prefix: model::Prefix = args
        .prefix
        .as_deref()
        .unwrap_or("/services")
        .parse()
        .map_err(|e| Usage(format!("--prefix: {e}")))?;
    let folder = match &args.service {
        Some(service) => prefix.folder(service).map_err(|e| Usage(format!("--service: {e}")))?,
        None => prefix.clone(),
    };
    let store = connect(&shared(matches)?).await?;
    let found = store.read(&[Tree::from(folder)], read_deadline()).await?;
    let mut rows = Vec::new();
    for entry in found.entries.values() {
        let left = store.time_left(entry, default_deadline()).await?;
        rows.push(Row { key: entry.key.to_string(), value: entry.value.to_vec(), ttl: left });
    }
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text =
        if args.json { list::json(&prefix, &rows) } else { list::table(&prefix, &rows, colours) };
    print(text);
    Ok(Exit::Done)
}

pub(crate) fn sources(matches: &ArgMatches) -> Sources {
    Sources::new(matches, |name| std::env::var(name).ok(), hostname())
}

pub(crate) fn usage(errors: UsageErrors) -> Usage {
    Usage(errors.to_string())
}

/// Starts the log and reads how etcd is reached.
pub(crate) fn shared(matches: &ArgMatches) -> anyhow::Result<Connection> {
    let log = LogArgs::from_arg_matches(matches).map_err(|e| Usage(e.to_string()))?;
    start_log(log.log_format, log.level())?;
    let store = StoreArgs::from_arg_matches(matches).map_err(|e| Usage(e.to_string()))?;
    let connection = store.connection(&|name| std::env::var(name).ok());
    Ok(connection.map_err(|mistakes| Usage(mistakes.join("\n")))?)
}

/// What `{hostname}` stands for.
fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
