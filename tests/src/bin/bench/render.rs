//! A whole single run: the keys of N backends are read from etcd, the tutorial's template
//! is rendered, the file is written; no command is run. Round by round on the same etcd: the
//! Go template, the same converted to handlebars, and confd's `-onetime` if it is there. All
//! must write the same bytes.
//!
//! What nobody can be faster than is told as well: a bare request for the same keys.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use confsync::template::convert;
use etcd_client::{Client, GetOptions};
use tests::{Confdir, Etcd, Lab, Nginx, bins, confdir};
use tokio::process::Command;

use crate::put_to_served::fill;

/// A tick of `/proc/PID/stat`; 100 a second on every Linux that we know.
const TICK: Duration = Duration::from_millis(10);

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
    wall: Duration,
    /// All threads, user and system; in ticks.
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
    let handlebars = convert(&go).map_err(|why| anyhow::anyhow!("{why:?}"))?;
    let in_go = resource(&lab, "nginx.tmpl", &go, &dest);
    let in_handlebars = resource(&lab, "nginx.hbs", &handlebars, &dest);
    let mut all = vec![
        ("confsync", confsync(&etcd, &in_go), Vec::new()),
        ("handlebars", confsync(&etcd, &in_handlebars), Vec::new()),
    ];
    all.extend(args.confd.iter().map(|path| ("confd", confd(path, &etcd, &in_go), Vec::new())));

    let mut bare = Vec::new();
    let mut first = None;
    // The first round of each is not counted: it finds cold caches.
    for round in 0..=args.rounds {
        for (name, command, spent) in &mut all {
            let run = tokio::time::timeout(LONGEST, measure(command, &dest));
            let (took, written) = run.await?.with_context(|| (*name).to_owned())?;
            if round > 0 {
                spent.push(took);
            }
            if *first.get_or_insert_with(|| written.clone()) != written {
                bail!("{name} writes other bytes than the one before");
            }
        }
        bare.push(request(&etcd, args.backends).await?.as_secs_f64() * 1000.0);
    }
    println!("one run with {} backends, median of {} runs", args.backends, args.rounds);
    line(["", "wall", "cpu", "peak memory"]);
    let rows: Vec<_> = all.iter().map(|(name, _, spent)| (*name, row(name, spent))).collect();
    line(["etcd alone", &format!("{:.1} ms", median(bare.into_iter())), "", ""]);
    if let Some((_, theirs)) = rows.iter().find(|(name, _)| *name == "confd") {
        for (name, ours) in rows.iter().filter(|(name, _)| *name != "confd") {
            let ([wall, cpu, memory], [their_wall, their_cpu, their_memory]) = (ours, theirs);
            let ratio = |ours: &f64, theirs: &f64| format!("{:.2}", ours / theirs);
            line([
                &format!("{name} / confd"),
                &ratio(wall, their_wall),
                &ratio(cpu, their_cpu),
                &ratio(memory, their_memory),
            ]);
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

async fn measure(command: &mut Command, dest: &Path) -> anyhow::Result<(Spent, Vec<u8>)> {
    let _ = std::fs::remove_file(dest);
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let proc = PathBuf::from(format!("/proc/{}", child.id().context("it has no number")?));
    let mut peak = 0;
    // The peak is lost when the process ends, its times only when it has been waited for.
    let cpu = loop {
        let (ended, cpu) = stat(&proc)?;
        if ended {
            break cpu;
        }
        peak = peak.max(high_water(&proc).unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let wall = start.elapsed();
    let exit = child.wait().await?;
    if !exit.success() {
        bail!("ended with {exit}");
    }
    let written = std::fs::read(dest).with_context(|| dest.display().to_string())?;
    Ok((Spent { wall, cpu, peak }, written))
}

/// Whether it has ended, and how long it ran.
fn stat(proc: &Path) -> anyhow::Result<(bool, Duration)> {
    let text = std::fs::read_to_string(proc.join("stat"))?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u32>().ok()).unwrap_or_default();
    Ok((fields.get(1) == Some(&"Z"), TICK * (ticks(12) + ticks(13))))
}

fn high_water(proc: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(proc.join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "kibibytes of one process")]
fn row(name: &str, spent: &[Spent]) -> [f64; 3] {
    let wall = median(spent.iter().map(|s| s.wall.as_secs_f64() * 1000.0));
    let cpu = spent.iter().map(|s| s.cpu.as_secs_f64() * 1000.0).sum::<f64>() / spent.len() as f64;
    let peak = median(spent.iter().map(|s| s.peak as f64 / 1024.0));
    // A tick is coarse; the mean of many runs is not.
    line([name, &format!("{wall:.1} ms"), &format!("{cpu:.1} ms"), &format!("{peak:.1} MiB")]);
    [wall, cpu, peak]
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn line([name, wall, cpu, peak]: [&str; 4]) {
    println!("{name:<20} {wall:>12} {cpu:>12} {peak:>14}");
}
