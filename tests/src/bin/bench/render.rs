//! A whole single run: the keys of N backends are read from etcd, the tutorial's template
//! is rendered, the file is written; no command is run. Round by round on the same etcd: the
//! Go template, the same in handlebars, and confd's `-onetime` if it is there. Of
//! the Go template all must make the same bytes.
//!
//! The lower bound is printed as well: a bare request for the same keys, by a client that runs
//! already.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use etcd_client::{Client, GetOptions};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use tests::{Confdir, Etcd, Lab, Nginx, bins, confdir};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::put_to_served::fill;

const LONGEST: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Backends in the upstream
    #[arg(long, default_value_t = 10_000)]
    backends: usize,
    /// Runs of each
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// A confd to measure as well (`-backend etcdv3 -onetime`)
    #[arg(long, env = "CONFD_BIN")]
    confd: Option<PathBuf>,
}

/// What one run took.
struct Spent {
    /// From its start until the file was in its place.
    file: Duration,
    /// Until it had ended.
    wall: Duration,
    /// All threads, user and system.
    cpu: Duration,
    /// The most memory that was resident at once, in KiB.
    peak: u64,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    fill(&mut client, args.backends).await?;
    let nginx = Nginx::prepare(&lab);
    let dest = lab.path().join("app.conf");
    let go = confdir::tutorial_tmpl(&nginx);
    let handlebars = go
        .replace(
            "{{ range getvs \"/services/apache/*\" }}",
            "{{#each (getvs \"/services/apache/*\")}}",
        )
        .replace("server {{ . }};", "server {{this}};")
        .replace("{{ end }}", "{{/each}}");
    let in_go = resource(&lab, "nginx.tmpl", &go, &dest);
    let in_handlebars = resource(&lab, "nginx.hbs", &handlebars, &dest);
    let mut all = vec![
        ("confsync", confsync(&etcd, &in_go), Vec::new()),
        ("handlebars", confsync(&etcd, &in_handlebars), Vec::new()),
    ];
    all.extend(args.confd.iter().map(|path| ("confd", confd(path, &etcd, &in_go), Vec::new())));

    let mut bare = Vec::new();
    let mut first: BTreeMap<bool, Vec<u8>> = BTreeMap::new();
    // The first round of each is not counted: it finds cold caches.
    for round in 0..=args.rounds {
        for (name, command, spent) in &mut all {
            let run = tokio::time::timeout(LONGEST, measure(command, &dest));
            let (took, written) = run.await?.with_context(|| (*name).to_owned())?;
            if round > 0 {
                spent.push(took);
            }
            // Handlebars leaves no empty line where a block stands alone.
            let like = first.entry(*name == "handlebars").or_insert_with(|| written.clone());
            if *like != written {
                bail!("{name} writes other bytes than the one before");
            }
        }
        bare.push(request(&etcd, args.backends).await?.as_secs_f64() * 1000.0);
    }
    println!("one run with {} backends, median of {} runs", args.backends, args.rounds);
    line(["", "file in place", "ended", "cpu", "peak memory"]);
    let rows: Vec<_> = all.iter().map(|(name, _, spent)| (*name, row(name, spent))).collect();
    let bare = median(bare.into_iter());
    line(["etcd alone", &format!("{bare:.1} ms"), "", "", ""]);
    for (name, [file, ended, ..]) in &rows {
        let (file, ended) = (format!("{:.2}", file / bare), format!("{:.2}", ended / bare));
        line([&format!("{name} / etcd"), &file, &ended, "", ""]);
    }
    if let Some((_, theirs)) = rows.iter().find(|(name, _)| *name == "confd") {
        for (name, ours) in rows.iter().filter(|(name, _)| *name != "confd") {
            let [file, ended, cpu, peak] = std::array::from_fn(|column| {
                let (own, other) = (ours.get(column), theirs.get(column));
                own.zip(other).map(|(own, other)| format!("{:.2}", own / other)).unwrap_or_default()
            });
            line([&format!("{name} / confd"), &file, &ended, &cpu, &peak]);
        }
    }
    Ok(())
}

fn confsync(etcd: &Etcd, confdir: &Confdir) -> Command {
    let mut command = program(&bins::confsync());
    command.args(["run", "--once", "--etcd-api", "v3", "--etcd", &etcd.url(), "--confdir"]);
    command.arg(confdir.path()).env_clear();
    command
}

fn confd(path: &Path, etcd: &Etcd, confdir: &Confdir) -> Command {
    let mut command = program(path);
    let node = etcd.address().to_string();
    command.args(["-onetime", "-backend", "etcdv3", "-node", &node, "-confdir"]);
    command.arg(confdir.path()).env_clear();
    command
}

/// Connects and asks for the same keys, in one request.
async fn request(etcd: &Etcd, backends: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut client = Client::connect([etcd.url()], None).await?;
    let all = GetOptions::new().with_prefix();
    let answer = client.get("/services/apache/", Some(all)).await?;
    let took = start.elapsed();
    if answer.kvs().len() != backends {
        bail!("etcd has {} keys", answer.kvs().len());
    }
    Ok(took)
}

#[expect(clippy::disallowed_methods, reason = "measured from outside; `LONGEST` is its deadline")]
fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.kill_on_drop(true);
    command
}

/// The tutorial's resource with a template of this name, and no commands.
fn resource(lab: &Lab, src: &str, template: &str, dest: &Path) -> Confdir {
    let confdir = Confdir::empty(lab);
    let toml = format!(
        "[template]\nsrc = \"{src}\"\ndest = \"{}\"\nkeys = [\"/services/apache\"]\n",
        dest.display()
    );
    confdir.toml("nginx", &toml);
    confdir.template(src, template);
    confdir
}

/// One run to be timed, which nobody looks at, and one whose memory is watched.
async fn measure(command: &mut Command, dest: &Path) -> anyhow::Result<(Spent, Vec<u8>)> {
    let placed = placed(dest)?;
    let (start, before) = (Instant::now(), cpu_of_the_ended()?);
    let exit = begin(command, dest)?.wait().await?;
    let (wall, cpu) = (start.elapsed(), cpu_of_the_ended()? - before);
    succeeded(exit)?;
    let file = placed.await?? - start;
    let written = std::fs::read(dest).with_context(|| dest.display().to_string())?;

    let mut child = begin(command, dest)?;
    let pid = child.id().context("it has no number")?;
    let mut peak = 0;
    let exit = loop {
        // The peak is lost when the process ends.
        peak = peak.max(high_water(pid).unwrap_or_default());
        if let Ok(exit) = tokio::time::timeout(Duration::from_millis(1), child.wait()).await {
            break exit?;
        }
    };
    succeeded(exit)?;
    Ok((Spent { file, wall, cpu, peak }, written))
}

/// Waits for the moment in which `dest` is renamed into its place.
fn placed(dest: &Path) -> anyhow::Result<JoinHandle<nix::Result<Instant>>> {
    let folder = dest.parent().context("no folder")?;
    let name = dest.file_name().map(OsStr::to_owned);
    let events = Inotify::init(InitFlags::IN_CLOEXEC)?;
    events.add_watch(folder, AddWatchFlags::IN_MOVED_TO)?;
    Ok(tokio::task::spawn_blocking(move || {
        loop {
            let moved = events.read_events()?;
            let now = Instant::now();
            if moved.into_iter().any(|event| event.name == name) {
                return Ok(now);
            }
        }
    }))
}

fn begin(command: &mut Command, dest: &Path) -> anyhow::Result<Child> {
    let _ = std::fs::remove_file(dest);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

fn succeeded(exit: ExitStatus) -> anyhow::Result<()> {
    if !exit.success() {
        bail!("ended with {exit}");
    }
    Ok(())
}

/// What all of our processes that have ended ran together. `/proc` counts ticks of
/// 10 ms, cut off, which is all of a short run.
fn cpu_of_the_ended() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: TimeVal| u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(micros(usage.user_time())? + micros(usage.system_time())?))
}

fn high_water(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "kibibytes of one process")]
fn row(name: &str, spent: &[Spent]) -> [f64; 4] {
    let file = median(spent.iter().map(|s| s.file.as_secs_f64() * 1000.0));
    let wall = median(spent.iter().map(|s| s.wall.as_secs_f64() * 1000.0));
    let cpu = median(spent.iter().map(|s| s.cpu.as_secs_f64() * 1000.0));
    let peak = median(spent.iter().map(|s| s.peak as f64 / 1024.0));
    let ms = |time: f64| format!("{time:.1} ms");
    line([name, &ms(file), &ms(wall), &ms(cpu), &format!("{peak:.1} MiB")]);
    [file, wall, cpu, peak]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn line([name, file, ended, cpu, peak]: [&str; 5]) {
    println!("{name:<20} {file:>14} {ended:>12} {cpu:>12} {peak:>14}");
}
