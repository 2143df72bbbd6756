//! The subcommands: what the command line says, put together and done.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use common::args::LogArgs;
use common::handshake::{Ack, Bookkeeping, Member};
use common::model::{Prefix, Snapshot};
use common::runtime::{Exit, Signals, Usage, start_log};
use common::store::{Connection, Store, connect};
use serde_json::json;

use crate::args::{CheckArgs, Command, ConvertArgs, InitArgs, RenderArgs, RunArgs, StatusArgs};
use crate::load::load;
use crate::once;
use crate::settings::{Place, Told};
use crate::{daemon, settings, template};

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
        Command::Convert(args) => convert(&args),
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
    let loaded = match load(&confdir, &globals) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return Ok(Exit::Failed);
        }
    };
    let mut wrong = 0;
    for note in notes.iter().chain(&loaded.notes) {
        let kind = if note.ignored { "" } else { "note: " };
        eprintln!("{}: {kind}{}", note.file.display(), note.text);
        wrong += usize::from(note.ignored);
    }
    if let Some(data) = &args.data {
        let snapshot = once::from_file(data)?;
        for program in loaded.sets.iter().flat_map(|set| &set.programs) {
            let seen = program.resource.reading.see(snapshot.entries.values());
            for refused in &seen.refused {
                eprintln!("{}: value refused: {}", refused.key, refused.why);
            }
            if let Err(error) = program.render(&seen) {
                eprintln!("{error}");
                wrong += 1;
            }
        }
    }
    if wrong > 0 {
        return Ok(Exit::Failed);
    }
    let resources: usize = loaded.sets.iter().map(|set| set.programs.len()).sum();
    println!("{}: {resources} resources, no mistakes", confdir.display());
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
        eprintln!("{}: value refused: {}", refused.key, refused.why);
    }
    let candidate = program.render(&seen).map_err(anyhow::Error::msg)?;
    use std::io::Write as _;
    std::io::stdout().write_all(&candidate.bytes)?;
    Ok(Exit::Done)
}

async fn read_keys(
    connection: &Connection,
    trees: &[common::model::Tree],
) -> anyhow::Result<Snapshot> {
    let store = connect(connection).await?;
    Ok(store.read(trees).await?)
}

async fn status(args: &StatusArgs) -> anyhow::Result<Exit> {
    log(&args.log)?;
    let prefix: Prefix =
        args.bookkeeping.parse().map_err(|e| Usage(format!("--bookkeeping: {e}")))?;
    let bookkeeping = Bookkeeping::below(&prefix)?;
    let connection = args.store.connection(&|name| std::env::var(name).ok());
    let connection = connection.map_err(|mistakes| Usage(mistakes.join("\n")))?;
    let found = read_keys(&connection, &[bookkeeping.members(), bookkeeping.acks()]).await?;
    let fleet = fleet(&found, &bookkeeping);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&fleet_json(&fleet))?);
    } else {
        print!("{}", fleet_table(&fleet, found.revision.0));
    }
    Ok(Exit::Done)
}

type Fleet = BTreeMap<String, (Member, BTreeMap<String, Ack>)>;

/// Every load balancer and what it has said.
fn fleet(found: &Snapshot, bookkeeping: &Bookkeeping) -> Fleet {
    let mut fleet = Fleet::new();
    for entry in found.entries.values() {
        if let Some(lb) = bookkeeping.lb_of_member(&entry.key)
            && let Ok(member) = serde_json::from_slice(&entry.value)
        {
            fleet.insert(lb.to_owned(), (member, BTreeMap::new()));
        }
    }
    for entry in found.entries.values() {
        if let Some((resource, lb)) = bookkeeping.parts_of_ack(&entry.key)
            && let Some((_, acks)) = fleet.get_mut(lb)
            && let Ok(ack) = serde_json::from_slice(&entry.value)
        {
            acks.insert(resource.to_owned(), ack);
        }
    }
    fleet
}

fn fleet_json(fleet: &Fleet) -> serde_json::Value {
    let lbs = fleet
        .iter()
        .map(|(lb, (member, acks))| json!({ "name": lb, "member": member, "acks": acks }));
    json!({ "load_balancers": lbs.collect::<Vec<_>>() })
}

fn fleet_table(fleet: &Fleet, revision: u64) -> String {
    if fleet.is_empty() {
        return "no load balancer is registered\n".to_owned();
    }
    let mut rows = vec![
        ["LOAD BALANCER", "HOST", "RESOURCE", "APPLIED", "QUIESCED", "STATE"].map(String::from),
    ];
    for (lb, (member, acks)) in fleet {
        for resource in &member.resources {
            let ack = acks.get(&resource.name).filter(|ack| ack.boot == member.boot);
            let (applied, quiesced) = ack.map_or(("-".into(), "-".into()), |ack| {
                (ack.applied.to_string(), ack.quiesced.to_string())
            });
            rows.push([
                lb.clone(),
                member.host.clone(),
                resource.name.clone(),
                applied,
                quiesced,
                words(member, ack),
            ]);
        }
    }
    let mut text = table(&rows);
    let _ = writeln!(text, "etcd is at revision {revision}");
    text
}

fn words(member: &Member, ack: Option<&Ack>) -> String {
    match ack {
        _ if member.left => "leaving".into(),
        None => "has not applied anything yet".into(),
        Some(Ack { refused: Some(refusal), .. }) => {
            format!("refused revision {}: {}", refusal.revision, refusal.why)
        }
        Some(ack) if !ack.held.is_empty() => {
            format!("holds {} backends against etcd", ack.held.len())
        }
        Some(ack) if ack.quiesced < ack.applied => "old workers finish requests".into(),
        Some(_) => "ok".into(),
    }
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn init(args: &InitArgs) -> anyhow::Result<Exit> {
    for (name, text) in template::starter::files() {
        let path = args.confdir.join(name);
        if path.exists() {
            println!("{} is there and left alone", path.display());
            continue;
        }
        write_new(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{} written", path.display());
    }
    println!("try it: confsync check --confdir {}", args.confdir.display());
    Ok(Exit::Done)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}

fn convert(args: &ConvertArgs) -> anyhow::Result<Exit> {
    let text = std::fs::read_to_string(&args.template)
        .map_err(|error| Usage(format!("{}: {error}", args.template.display())))?;
    match template::convert(&text) {
        Ok(converted) => {
            print!("{converted}");
            Ok(Exit::Done)
        }
        Err(cannot) => {
            for place in cannot {
                eprintln!("{}: {place}", args.template.display());
            }
            Ok(Exit::Failed)
        }
    }
}
