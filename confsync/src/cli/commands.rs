//! The subcommands: each reads its part of the command line and does its work.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ArgMatches;
use common::handshake::Bookkeeping;
use common::model::{Prefix, Snapshot, plural};
use common::other_api::hint;
use common::runtime::{Exit, Signals, Usage, print, print_bytes, print_error, start_log};
use common::settings::{Layer, Mistakes, Reader, both, etcd, log, output};
use common::store::{Connection, Etcd, Store, connect, read_deadline};

use crate::backends::ParsedKeys;
use crate::cli::args::{
    ACCEPTING, BOOKKEEPING, CONFDIR, DATA, HOST, JSON, OUTPUT, PROXY, SHOWING, STARTING,
};
use crate::cli::host;
use crate::cli::proxy_check::{self, ProxyAnswer};
use crate::cli::retries;
use crate::cli::settings::{CommandLine, ResourceSettings, RunSettings};
use crate::config::confdir::{Note, SCHEMA};
use crate::config::load::{self, load};
use crate::config::program::CompiledResource;
use crate::config::reload_group::ReloadGroup;
use crate::daemon;
use crate::daemon::once;
use crate::proxy::{Warning, nginx};
use crate::status::fleet_json::fleet_json;
use crate::status::load_balancers;
use crate::template::starter;

/// Runs the subcommand.
///
/// # Errors
/// A usage error, or the failure of the subcommand.
pub async fn dispatch(matches: &ArgMatches) -> anyhow::Result<Exit> {
    match matches.subcommand() {
        Some(("run", matches)) => run(matches).await,
        Some(("check", matches)) => check(matches).await,
        Some(("render", matches)) => render(matches).await,
        Some(("status", matches)) => status(matches).await,
        Some(("accept", matches)) => accept(matches).await,
        Some(("init", matches)) => init(matches).await,
        Some(("schema", _)) => {
            print(SCHEMA);
            Ok(Exit::Done)
        }
        _ => Err(Usage("give a command; see --help".into()).into()),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Starts the log; returns `settings`, or the mistakes in them or in those of the log.
fn start<T>(
    log: Result<log::LogSettings, Mistakes>,
    settings: Result<T, Mistakes>,
) -> anyhow::Result<T> {
    let (log, settings) = both(log, settings).map_err(Usage::from)?;
    start_log(log.format, log.filter);
    Ok(settings)
}

async fn run(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let line = CommandLine::new(matches, &variable);
    let RunSettings { config, once } = start(line.log(), line.run())?;
    for note in line.notes() {
        tracing::warn!(file = %note.file.display(), "{}", note.text);
    }
    if let Some(how) = once {
        return once::run(&config, how).await;
    }
    let signals = Signals::listen().context("cannot install signal handlers")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), confdir = %config.confdir.display(), "starting");
    daemon::run(config, signals).await.or_else(daemon::explain)
}

async fn check(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let line = CommandLine::new(matches, &variable);
    let ResourceSettings { confdir, globals } = line.resources().map_err(Usage::from)?;
    let (loaded, mistakes) = match load::read(&confdir, &globals) {
        Ok(read) => read,
        Err(error) => {
            print_error(&error);
            return Ok(Exit::Failed);
        }
    };
    for mistake in &mistakes {
        print_error(mistake);
    }
    let mut wrong = mistakes.len();
    wrong += line.notes().iter().chain(&loaded.notes).filter(|note| print_note(note)).count();
    let programs: Vec<_> = loaded.sets.iter().flat_map(|set| &set.programs).collect();
    programs.iter().for_each(|program| print_notes(program));
    let mut unrendered = 0;
    let keys = data(matches).map(|file| once::from_file(&file)).transpose()?;
    if let Some(snapshot) = &keys {
        unrendered = programs.iter().filter(|program| !renders(program, snapshot)).count();
        wrong += unrendered;
    }
    if matches.get_flag(HOST.name) {
        let missing = programs.iter().map(|program| check_host(program)).sum::<usize>();
        wrong += missing;
        // What is missing is named already, in better words than a proxy has.
        if missing == 0 && unrendered == 0 {
            wrong += count_rejected(&loaded.sets, keys.as_ref()).await;
        }
    }
    if wrong > 0 {
        return Ok(Exit::Failed);
    }
    let resources = plural(programs.len(), "resource");
    print(format_args!("{}: {resources}, no mistakes\n", confdir.display()));
    Ok(Exit::Done)
}

/// Prints a note; whether it is one of a mistake.
fn print_note(note: &Note) -> bool {
    let kind = if note.ignored { "" } else { "note: " };
    print_error(format_args!("{}: {kind}{}", note.file.display(), note.text));
    note.ignored
}

/// Prints what may not be expected of a resource, and is no mistake.
fn print_notes(program: &CompiledResource) {
    let resource = &program.resource;
    if let Some(guarded) = resource.guarded() {
        print_error(format_args!("{}: note: {guarded}", resource.file.display()));
    }
    if resource.nginx.is_some()
        && let Some(note) = retries::note(program.template())
    {
        print_error(format_args!("{}: note: {note}", resource.src.display()));
    }
}

/// Prints what is missing on this machine for a resource; how much that is.
fn check_host(program: &CompiledResource) -> usize {
    let file = program.resource.file.display();
    let problems = host::problems(&program.resource);
    for problem in &problems {
        print_error(format_args!("{file}: on this machine: {problem}"));
    }
    if let Some(note) = host::note(&program.resource) {
        print_error(format_args!("{file}: note: on this machine: {note}"));
    }
    problems.len()
}

/// How many of the reload groups their proxy rejects.
async fn count_rejected(sets: &[ReloadGroup], keys: Option<&Snapshot>) -> usize {
    let mut rejected = 0;
    for set in sets {
        rejected += usize::from(!is_accepted(set, keys).await);
    }
    rejected
}

/// Whether the proxy accepts what would be installed, as far as it can be asked; prints what it
/// says.
async fn is_accepted(set: &ReloadGroup, keys: Option<&Snapshot>) -> bool {
    let name = &set.name;
    match proxy_check::ask(set, keys).await {
        ProxyAnswer::Accepted(warnings) => {
            // That note is there already, with what may be meant.
            let is_new = |warning: &&Warning| !matches!(warning, Warning::NotIncluded { .. });
            for warning in warnings.iter().filter(is_new) {
                print_error(format_args!("{name}: note: on this machine: {warning}"));
            }
            true
        }
        ProxyAnswer::Rejected(why) => {
            print_error(format_args!("{name}: on this machine: {why}"));
            false
        }
        ProxyAnswer::NotAsked(why) => {
            print_error(format_args!("{name}: note: on this machine: not checked: {why}"));
            true
        }
    }
}

/// Whether a resource renders from these keys; prints why not.
fn renders(program: &CompiledResource, snapshot: &Snapshot) -> bool {
    let rendered = program.render(&see(program, snapshot));
    if let Err(error) = &rendered {
        print_error(error);
    }
    rendered.is_ok()
}

/// The keys as the resource sees them; prints which values are rejected.
fn see(program: &CompiledResource, snapshot: &Snapshot) -> ParsedKeys {
    let seen = program.resource.reading.see(snapshot.entries.values());
    for (key, why) in &seen.rejected {
        let name = &program.resource.name;
        print_error(format_args!("{key}: value rejected by the resource {name}: {why}"));
    }
    seen
}

/// The file with keys, if one is named.
fn data(matches: &ArgMatches) -> Option<PathBuf> {
    let file = matches.get_one::<String>(DATA.name)?;
    Some(PathBuf::from(file)).filter(|file| !file.as_os_str().is_empty())
}

async fn render(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let line = CommandLine::new(matches, &variable);
    let ResourceSettings { confdir, globals } = start(line.log(), line.resources())?;
    let wanted = matches.get_one::<String>("resource").map_or("", String::as_str);
    let loaded = load(&confdir, &globals)?;
    let programs: Vec<_> = loaded.sets.iter().flat_map(|set| &set.programs).collect();
    let Some(program) = programs.iter().find(|p| p.resource.name == wanted) else {
        let names: Vec<&str> = programs.iter().map(|p| p.resource.name.as_str()).collect();
        let text = format!("there is no resource `{wanted}`; there are: {}", names.join(", "));
        return Err(Usage(text).into());
    };
    let snapshot = match data(matches) {
        Some(file) => once::from_file(&file)?,
        None => {
            let connection = line.connection().map_err(Usage::from)?;
            read_keys(&connection, &program.resource.reading.trees).await?
        }
    };
    let candidate = program.render(&see(program, &snapshot)).map_err(anyhow::Error::msg)?.plain();
    print_bytes(&candidate.bytes);
    Ok(Exit::Done)
}

async fn read_keys(
    connection: &Connection,
    trees: &[common::model::Tree],
) -> anyhow::Result<Snapshot> {
    let store = connect(connection).await?;
    Ok(store.read(trees, read_deadline()).await?)
}

async fn status(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let layer = Layer::from_matches(matches, SHOWING.settings, &variable);
    let mut mistakes = Mistakes::default();
    let json = output::is_json(&mut Reader::new(&layer, "", &mut mistakes), &OUTPUT, &JSON);
    let (connection, store, bookkeeping) = load_balancer_keys(matches, &layer, mistakes).await?;
    let members = bookkeeping.members();
    let found = store.read(&[members.clone(), bookkeeping.acks()], read_deadline()).await?;
    if !found.entries.keys().any(|key| members.covers(key)) {
        print_error(format_args!("{}", hint(&connection, &store, &members).await));
    }
    let (fleet, revision) = (load_balancers::read(&found, &bookkeeping), found.revision.0);
    if json {
        let text = serde_json::to_string_pretty(&fleet_json(&fleet, revision))?;
        print(format_args!("{text}\n"));
    } else {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        print(load_balancers::table(&fleet, revision, colours));
    }
    Ok(Exit::Done)
}

async fn accept(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let layer = Layer::from_matches(matches, ACCEPTING.settings, &variable);
    let (_, store, bookkeeping) = load_balancer_keys(matches, &layer, Mistakes::default()).await?;
    let resource = matches.get_one::<String>("resource").map_or("", String::as_str);
    super::accept::accept(&store, &bookkeeping, resource).await
}

/// Starts the log, and reaches the store in which load balancers publish. `mistakes` are those in
/// other settings of the command.
async fn load_balancer_keys(
    matches: &ArgMatches,
    layer: &Layer,
    mut mistakes: Mistakes,
) -> anyhow::Result<(Connection, Etcd, Bookkeeping)> {
    let prefix = Reader::new(layer, "", &mut mistakes).get(&BOOKKEEPING, str::parse::<Prefix>);
    let connection = etcd::read(matches, &variable, &Layer::default());
    let log = log::read(matches, &variable, &Layer::default());
    let (prefix, connection) = start(log, both(mistakes.none_or_some(prefix), connection))?;
    let store = connect(&connection).await?;
    Ok((connection, store, Bookkeeping::below(&prefix)?))
}

async fn init(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let layer = Layer::from_matches(matches, STARTING.settings, &variable);
    let mut mistakes = Mistakes::default();
    let mut from = Reader::new(&layer, "", &mut mistakes);
    let confdir = from.text(&CONFDIR);
    let proxy = from.text(&PROXY).unwrap_or_default().to_ascii_lowercase();
    let (confdir, proxy) = mistakes.none_or((confdir, proxy)).map_err(Usage::from)?;
    let confdir = PathBuf::from(confdir.unwrap_or_default());
    let schema = ("schema.json", SCHEMA);
    let is_newer = proxy == "nginx" && is_newer_nginx().await;
    for (name, text) in starter::files(&proxy).into_iter().chain([schema]) {
        let path = confdir.join(name);
        if path.exists() {
            print(format_args!("{} exists, left unchanged\n", path.display()));
            continue;
        }
        let newer = is_newer.then(|| starter::for_newer_nginx(text));
        write_new(&path, newer.as_deref().unwrap_or(text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        print(format_args!("{} written\n", path.display()));
    }
    print(format_args!("try it: confsync check --confdir {}\n", confdir.display()));
    Ok(Exit::Done)
}

/// Whether the nginx of this machine keeps connections over a reload; not known where there is none.
async fn is_newer_nginx() -> bool {
    nginx::knows(Path::new("nginx"), starter::KEEPALIVE_DIRECTIVE).await == Some(true)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}
