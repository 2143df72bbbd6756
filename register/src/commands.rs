//! The subcommands: what the command line says, put together and done.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgMatches, FromArgMatches};
use common::args::{LogArgs, StoreArgs};
use common::handshake::Bookkeeping;
use common::model::{self, Tree, format_span};
use common::reach::reach;
use common::runtime::{Exit, Forwarded, Pulse, ServiceManager, Signals, Usage, print, start_log};
use common::store::{Connection, Etcd, Guard, Store, StoreError, Written, connect};
use tokio::time::Instant;

use crate::agent::{self, Child};
use crate::args::ListArgs;
use crate::config::{Removal, Sources, UsageErrors, prepare};
use crate::drain::{Bounds, Goal, Wait};
use crate::handshake::{Ending, wait_for_all};
use crate::list::{self, Row};
use crate::status::Surface;
use crate::supervise::Backend;

/// How long `remove`, which stops a unit, tries to reach etcd.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let pulse = Pulse::default();
    if let Some(addr) = config.process.status {
        let surface =
            Surface { snapshot: published, pulse: pulse.clone(), manager: manager.clone() };
        surface.serve(addr, signals.abort.clone()).await?;
    }
    let store = tokio::select! {
        store = reach(&connection, &manager, &signals.drain, &pulse) => store?,
        exit = ended(&mut backend) => {
            tracing::warn!(code = exit.code(), "the backend ended by itself");
            return Ok(Exit::Child(exit.code()));
        }
    };
    let Some(store) = store else {
        tracing::info!("ended before etcd was reached");
        return stop_early(backend).await;
    };
    let parts =
        agent::Parts { config, probes, sources, store, signals, manager, pulse, backend, publish };
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
        eprintln!("note: {note}");
    }
    let probes = prepare(&config.services).map_err(usage)?;
    let lines = crate::check::ask(&config.services, &probes).await;
    print(crate::check::render(&lines));
    Ok(if crate::check::healthy(&lines) { Exit::Done } else { Exit::Failed })
}

/// `register remove`: take this instance's key away, if it is ours.
///
/// # Errors
/// Bad usage, etcd away, or a key that is somebody else's.
pub async fn remove(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let removal = sources(matches).removal().map_err(usage)?;
    let store = reach_soon(&shared(matches)?).await?;
    let key = &removal.target.key;
    let found = store.read(&[Tree::from(key)]).await?;
    let Some(entry) = found.entries.get(key.as_str()) else {
        print(format_args!("{key} is not registered\n"));
        return Ok(Exit::Done);
    };
    let ours = model::Backend::parse(&entry.value).is_ok_and(|b| b.addr == removal.target.addr);
    if !ours {
        let value = String::from_utf8_lossy(&entry.value);
        anyhow::bail!(
            "{key} holds `{}`, not {}: left alone",
            value.escape_debug(),
            removal.target.addr
        );
    }
    if let Err(error) = mark(&store, &removal).await {
        tracing::warn!(%error, "a load balancer that loses most of its backends may hold this one");
    }
    let revision = match store.delete(key, &Guard::Value(entry.value.clone())).await? {
        Written::Done { revision, .. } | Written::Held { by: None, revision } => revision,
        Written::Held { by: Some(_), .. } => {
            anyhow::bail!("{key} was written by somebody else just now: left alone")
        }
    };
    print(format_args!("{key} removed\n"));
    if matches.get_flag("wait") {
        wait_after(&store, removal, revision).await
    } else {
        Ok(Exit::Done)
    }
}

/// Says that the key goes on purpose. Whoever doubts a sudden loss would hold it
/// while its backend answers. The mark lapses by itself.
async fn mark(store: &Etcd, removal: &Removal) -> anyhow::Result<()> {
    let bookkeeping = Bookkeeping::below(&removal.process.bookkeeping)?;
    if let Some((key, value)) = bookkeeping.mark_of(&removal.target.key) {
        let lease = store.grant(removal.process.ttl).await?;
        store.put(&key, &value, lease, &Guard::Absent).await?;
    }
    Ok(())
}

async fn wait_after(
    store: &Etcd,
    removal: Removal,
    revision: model::Revision,
) -> anyhow::Result<Exit> {
    let process = &removal.process;
    let bounds = Bounds {
        applied: process.drain.applied,
        quiesced: process.drain.quiesced,
        least: process.drain.min.unwrap_or_default(),
        min_lbs: usize::try_from(process.min_lbs).unwrap_or(usize::MAX),
        ..Bounds::default()
    };
    let bookkeeping = Bookkeeping::below(&process.bookkeeping)?;
    let wait = Wait::new(removal.target.key, revision, Goal::Left, bounds, Instant::now());
    let signals = Signals::listen()?;
    let mut last = String::new();
    let tell = |missing: &str| {
        if last != missing {
            missing.clone_into(&mut last);
            eprintln!("waiting for {missing}");
        }
    };
    match wait_for_all(store, &bookkeeping, vec![wait], tell, &signals.drain).await {
        Ending::Verdicts(verdicts) => {
            verdicts.iter().for_each(|verdict| print(format_args!("{verdict}\n")));
            let confirmed = verdicts.iter().all(|verdict| verdict.confirmed);
            Ok(if confirmed { Exit::Done } else { Exit::Unconfirmed })
        }
        Ending::Regressed(to) => {
            print(format_args!("unconfirmed: etcd went back to revision {to} meanwhile\n"));
            Ok(Exit::Unconfirmed)
        }
        Ending::Aborted => Ok(Exit::Unconfirmed),
    }
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
    let found = store.read(&[Tree::from(folder)]).await?;
    let mut rows = Vec::new();
    for entry in found.entries.values() {
        let left = store.time_left(entry).await?;
        rows.push(Row { key: entry.key.clone(), value: entry.value.clone(), ttl: left });
    }
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text =
        if args.json { list::json(&prefix, &rows) } else { list::table(&prefix, &rows, colours) };
    print(text);
    Ok(Exit::Done)
}

async fn reach_soon(connection: &Connection) -> Result<Etcd, StoreError> {
    let until = Instant::now() + PATIENCE;
    let mut said = None;
    loop {
        match connect(connection).await {
            Ok(store) => return Ok(store),
            Err(error) if error.is_transient() && Instant::now() < until => {
                if said.as_ref() != Some(&error) {
                    tracing::warn!(%error, "trying on for {}", format_span(PATIENCE));
                    said = Some(error);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn sources(matches: &ArgMatches) -> Sources {
    Sources::new(matches, |name| std::env::var(name).ok(), hostname())
}

fn usage(errors: UsageErrors) -> Usage {
    Usage(errors.to_string())
}

/// Starts the log and reads how etcd is reached.
fn shared(matches: &ArgMatches) -> anyhow::Result<Connection> {
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
