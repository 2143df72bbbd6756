//! The subcommands: what the command line says, put together and done.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::Context;
use common::args::LogArgs;
use common::handshake::Bookkeeping;
use common::model::{Prefix, Snapshot, plural};
use common::runtime::{Exit, Signals, Usage, print, print_bytes, print_error, start_log};
use common::store::{Connection, Store, connect, read_deadline};

use crate::cli::args::{CheckArgs, Command, InitArgs, RenderArgs, RunArgs, StatusArgs};
use crate::cli::settings;
use crate::cli::settings::{Place, Told};
use crate::config::load::{self, load};
use crate::daemon::once;
use crate::status::load_balancers;
use crate::{daemon, template};

/// Does what was asked.
///
/// # Errors
/// Bad usage, or what the subcommand meets.
pub async fn dispatch(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Run(args) => run(&args).await,
        Command::Check(args) => check(&args),
        Command::Render(args) => render(&args).await,
        Command::Status(args) => status(&args).await,
        Command::Init(args) => init(&args),
    }
}

fn log(args: &LogArgs) -> anyhow::Result<()> {
    start_log(args.log_format, args.level())
}

async fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    start_log(args.log.log_format, &settings::log_level(&args.confdir, &args.log))?;
    let Told { config, once, notes } = settings::run(args)?;
    for note in notes {
        tracing::warn!(file = %note.file.display(), "{}", note.text);
    }
    if let Some(how) = once {
        return once::run(&config, how).await;
    }
    let signals = Signals::listen().context("cannot listen to signals")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), confdir = %config.confdir.display(), "starting");
    daemon::run(config, signals).await.or_else(daemon::explain)
}

fn check(args: &CheckArgs) -> anyhow::Result<Exit> {
    let Place { confdir, globals, notes } = settings::place(&args.confdir)?;
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
    for note in notes.iter().chain(&loaded.notes) {
        let kind = if note.ignored { "" } else { "note: " };
        print_error(format_args!("{}: {kind}{}", note.file.display(), note.text));
        wrong += usize::from(note.ignored);
    }
    if let Some(data) = &args.data {
        let snapshot = once::from_file(data)?;
        for program in loaded.sets.iter().flat_map(|set| &set.programs) {
            let seen = program.resource.reading.see(snapshot.entries.values());
            for refused in &seen.refused {
                print_error(format_args!("{}: value refused: {}", refused.key, refused.why));
            }
            if let Err(error) = program.render(&seen) {
                print_error(&error);
                wrong += 1;
            }
        }
    }
    if wrong > 0 {
        return Ok(Exit::Failed);
    }
    let resources: usize = loaded.sets.iter().map(|set| set.programs.len()).sum();
    print(format_args!("{}: {}, no mistakes\n", confdir.display(), plural(resources, "resource")));
    Ok(Exit::Done)
}

async fn render(args: &RenderArgs) -> anyhow::Result<Exit> {
    log(&args.log)?;
    let Place { confdir, globals, .. } = settings::place(&args.confdir)?;
    let loaded = load(&confdir, &globals)?;
    let programs: Vec<_> = loaded.sets.iter().flat_map(|set| &set.programs).collect();
    let Some(program) = programs.iter().find(|p| p.resource.name == args.resource) else {
        let names: Vec<&str> = programs.iter().map(|p| p.resource.name.as_str()).collect();
        let text =
            format!("there is no resource `{}`; there are: {}", args.resource, names.join(", "));
        return Err(Usage(text).into());
    };
    let snapshot = match &args.data {
        Some(file) => once::from_file(file)?,
        None => {
            let connection = settings::connection(&args.confdir, &args.store)?;
            read_keys(&connection, &program.resource.reading.trees).await?
        }
    };
    let seen = program.resource.reading.see(snapshot.entries.values());
    for refused in &seen.refused {
        print_error(format_args!("{}: value refused: {}", refused.key, refused.why));
    }
    let candidate = program.render(&seen).map_err(anyhow::Error::msg)?;
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

async fn status(args: &StatusArgs) -> anyhow::Result<Exit> {
    log(&args.log)?;
    let prefix: Prefix =
        args.bookkeeping.parse().map_err(|e| Usage(format!("--bookkeeping: {e}")))?;
    let bookkeeping = Bookkeeping::below(&prefix)?;
    let connection = args.store.connection(&|name| std::env::var(name).ok());
    let connection = connection.map_err(|mistakes| Usage(mistakes.join("\n")))?;
    let found = read_keys(&connection, &[bookkeeping.members(), bookkeeping.acks()]).await?;
    let (fleet, revision) = (load_balancers::read(&found, &bookkeeping), found.revision.0);
    if args.json {
        let text = serde_json::to_string_pretty(&load_balancers::json(&fleet, revision))?;
        print(format_args!("{text}\n"));
    } else {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        print(load_balancers::table(&fleet, revision, colours));
    }
    Ok(Exit::Done)
}

fn init(args: &InitArgs) -> anyhow::Result<Exit> {
    for (name, text) in template::starter::files() {
        let path = args.confdir.join(name);
        if path.exists() {
            print(format_args!("{} is there and left alone\n", path.display()));
            continue;
        }
        write_new(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        print(format_args!("{} written\n", path.display()));
    }
    print(format_args!("try it: confsync check --confdir {}\n", args.confdir.display()));
    Ok(Exit::Done)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}
