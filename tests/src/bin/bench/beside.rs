//! What one change of a key costs, beside confd and its fork with the same confdir: processor
//! time, bytes from etcd, and reloads. Every program has an etcd of its own, and they take turns.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use etcd_client::Client;
use tests::eventually::check;
use tests::nginx::load_lua;
use tests::process::{Process, Spec};
use tests::{Api, Confdir, Daemon, Etcd, Lab, Nginx, eventually, http};

use crate::chart::Chart;
use crate::cost::{own, tree};
use crate::put_to_served::fill;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Backends
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    sizes: Vec<usize>,
    /// Changes for each size
    #[arg(long, default_value_t = 20)]
    changes: u32,
    /// What is asked
    #[arg(long, value_delimiter = ',', value_enum, default_value = "file,folders,commands,nginx")]
    cases: Vec<Case>,
    /// A confd to measure as well
    #[arg(long, env = "CONFD_BIN")]
    confd: Option<PathBuf>,
    /// Its fork, to measure as well
    #[arg(long, env = "CONFD_FORK_BIN")]
    fork: Option<PathBuf>,
    /// Where charts go: a folder, an SVG file in it for each case
    #[arg(long)]
    charts: Option<PathBuf>,
}

/// What follows a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Case {
    /// A file is written, and nothing is run
    File,
    /// The same, with two folders in `keys`
    Folders,
    /// `nginx -t` and `nginx -s reload` as commands
    Commands,
    /// An `[nginx]` table and a reload; commands for the others
    Nginx,
    /// nginx with its Lua module: no reload; commands for the others
    Live,
    /// 500 values are put again as they were, 50 a second
    Unchanged,
    /// 500 keys are put at once
    Burst,
}

/// Who keeps the file.
#[derive(Clone, Copy)]
enum Program<'a> {
    Ours,
    Confd(&'a Path),
    Fork(&'a Path),
}

impl fmt::Display for Program<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "confsync",
            Self::Confd(_) => "confd",
            Self::Fork(_) => "its fork",
        })
    }
}

impl Case {
    fn title(self) -> &'static str {
        match self {
            Self::File => "a change, nothing to run",
            Self::Folders => "a change, two folders in keys",
            Self::Commands => "a change, nginx by commands",
            Self::Nginx => "a change, nginx by name, a reload",
            Self::Live => "a change, nginx without a reload",
            Self::Unchanged => "500 values put again, 50 a second",
            Self::Burst => "500 keys at once",
        }
    }

    fn unit(self) -> &'static str {
        if self == Self::Unchanged { "% of a core" } else { "ms of processor time" }
    }

    fn has_nginx(self) -> bool {
        matches!(self, Self::Commands | Self::Nginx | Self::Live | Self::Burst)
    }
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let confd = args.confd.as_deref().map(Program::Confd);
    let fork = args.fork.as_deref().map(Program::Fork);
    let programs: Vec<_> = [Some(Program::Ours), confd, fork].into_iter().flatten().collect();
    for &case in &args.cases {
        println!("\n{}", case.title());
        println!("{:<10} {:>9} {:>14} {:>14} {:>14}", "", "backends", "processor", "own", "etcd");
        let mut chart = Chart::new(case.title(), case.unit());
        for &size in &args.sizes {
            for &program in &programs {
                let measured = Trial::start(case, size, program).await?.measure(args).await;
                let measured = measured.with_context(|| format!("{program}, {size}"))?;
                println!("{program:<10} {size:>9} {measured}");
                chart.add(&program.to_string(), size, measured.all);
            }
        }
        if let Some(folder) = &args.charts {
            chart.write(&folder.join(format!("{case:?}.svg").to_lowercase()))?;
        }
    }
    Ok(())
}

/// Processor time.
#[derive(Debug, Clone, Copy)]
struct Cpu {
    /// Of everything that was started.
    all: Duration,
    /// Of the program itself.
    own: Duration,
}

impl Cpu {
    fn since(self, before: Self) -> Self {
        Self { all: self.all.saturating_sub(before.all), own: self.own.saturating_sub(before.own) }
    }
}

/// What a change costs, or a second of what is asked.
struct Measured {
    /// In all processes that were started, in milliseconds a change, or percent of a core.
    all: f64,
    /// In the program itself.
    own: f64,
    unit: &'static str,
    /// Bytes that etcd sent.
    bytes: f64,
    reloads: Option<usize>,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { all, own, unit, bytes, reloads } = self;
        write!(f, "{all:>11.2} {unit:>2} {own:>11.2} {unit:>2} {bytes:>12.0} B")?;
        reloads.map_or(Ok(()), |reloads| write!(f, "   {reloads} reloads"))
    }
}

/// A program at work.
struct Trial {
    case: Case,
    client: Client,
    etcd: Etcd,
    nginx: Nginx,
    proxy: Option<Process>,
    program: Process,
    /// Last, so that it ends the others.
    _lab: Lab,
}

const KEY: &str = "/services/apache/changes";
const VALUE: &str = "10.255.0.1:80";
/// What follows a change within this counts as well: the end of old workers, acknowledgements.
const PAUSE: Duration = Duration::from_millis(700);

impl Trial {
    async fn start(case: Case, size: usize, program: Program<'_>) -> anyhow::Result<Self> {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let mut client = Client::connect([etcd.url()], None).await?;
        fill(&mut client, size).await?;
        client.put("/settings/title", "x", None).await?;
        let nginx = Nginx::prepare(&lab);
        let is_ours = matches!(program, Program::Ours);
        let confdir = confdir(&lab, &nginx, case, is_ours);
        let proxy = if case.has_nginx() { Some(nginx.start().await) } else { None };
        let program = match program {
            Program::Ours => {
                let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
                confsync.start().process().clone()
            }
            Program::Confd(binary) | Program::Fork(binary) => {
                let spec = Spec::new("confd", binary, lab.path());
                let line: &[&str] = match program {
                    Program::Fork(_) => &["etcd", "--watch", "--node"],
                    _ => &["-backend", "etcdv3", "-watch", "-node"],
                };
                let url = etcd.url();
                let spec = spec.args(line).args([url.as_str(), "--confdir"]).args([confdir.path()]);
                lab.spawn(spec)
            }
        };
        let trial = Self { case, client, etcd, nginx, proxy, program, _lab: lab };
        let last = format!("10.0.{}.{}:80", ((size - 1) >> 8) & 0xff, (size - 1) & 0xff);
        trial.shows(&last, true).await;
        Ok(trial)
    }

    /// Until the file has a text or not.
    async fn shows(&self, text: &str, there: bool) {
        eventually("the file follows", || async {
            let file = self.nginx.rendered().unwrap_or_default();
            check(file.contains(text) == there, || self.program.log())
        })
        .await;
    }

    async fn measure(mut self, args: &Args) -> anyhow::Result<Measured> {
        tokio::time::sleep(PAUSE * 2).await;
        let (bytes, reloads) = (self.bytes().await, self.reloads());
        let idle = self.idle(args.changes).await?;
        let before = self.cpu()?;
        let begun = tokio::time::Instant::now();
        match self.case {
            Case::Unchanged => self.put_again().await?,
            Case::Burst => self.burst().await?,
            _ => {
                for change in 0..args.changes {
                    self.change(change.is_multiple_of(2)).await?;
                }
            }
        }
        let spent = self.cpu()?.since(before);
        let bytes = self.bytes().await - bytes;
        let reloads = (self.case == Case::Burst).then(|| self.reloads() - reloads);
        let changes = f64::from(args.changes.max(1));
        let measured =
            |all: f64, own: f64, unit, bytes| Measured { all, own, unit, bytes, reloads };
        Ok(match self.case {
            Case::Unchanged => {
                let share =
                    |cpu: Duration| 100.0 * cpu.as_secs_f64() / begun.elapsed().as_secs_f64();
                measured(share(spent.all), share(spent.own), "%", bytes)
            }
            Case::Burst => measured(ms(spent.all), ms(spent.own), "ms", bytes),
            _ => {
                let spent = spent.since(idle);
                measured(ms(spent.all) / changes, ms(spent.own) / changes, "ms", bytes / changes)
            }
        })
    }

    /// What it costs to do nothing for as long as the changes take.
    async fn idle(&self, changes: u32) -> anyhow::Result<Cpu> {
        let before = self.cpu()?;
        tokio::time::sleep(PAUSE * changes).await;
        Ok(self.cpu()?.since(before))
    }

    async fn change(&mut self, put: bool) -> anyhow::Result<()> {
        if put {
            self.client.put(KEY, VALUE, None).await?;
        } else {
            self.client.delete(KEY, None).await?;
        }
        self.shows(VALUE, put).await;
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn put_again(&mut self) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            ticks.tick().await;
            self.client.put("/services/apache/10.0.0.0", "10.0.0.0:80", None).await?;
        }
        Ok(())
    }

    async fn burst(&mut self) -> anyhow::Result<()> {
        for n in 0..500 {
            let at = format!("10.254.{}.{}:80", n >> 8, n & 0xff);
            self.client.put(format!("/services/apache/burst-{n}"), at, None).await?;
        }
        self.shows("10.254.1.243:80", true).await;
        tokio::time::sleep(PAUSE * 3).await;
        Ok(())
    }

    fn cpu(&self) -> anyhow::Result<Cpu> {
        let proxy = self.proxy.as_ref().map_or(Ok(Duration::ZERO), |proxy| tree(proxy.pid()))?;
        let pid = self.program.pid();
        Ok(Cpu { all: tree(pid)? + proxy, own: own(pid)? })
    }

    async fn bytes(&self) -> f64 {
        let answer = http::get(self.etcd.address(), "/metrics").await;
        let text = answer.map(|answer| answer.body).unwrap_or_default();
        let name = "etcd_network_client_grpc_sent_bytes_total ";
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    fn reloads(&self) -> usize {
        self.nginx.error_log().iter().filter(|line| line.ends_with(": reconfiguring")).count()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn confdir(lab: &Lab, nginx: &Nginx, case: Case, is_ours: bool) -> Confdir {
    let confdir = match case {
        Case::Live if is_ours => {
            nginx.write_conf_with(&load_lua().unwrap_or_default(), "");
            let _ = lab.folder(&format!("nginx-{}/live", nginx.address().port()));
            Confdir::handlebars(lab, nginx)
        }
        Case::Nginx | Case::Burst if is_ours => Confdir::tutorial(lab, nginx),
        _ => Confdir::tutorial_commands(lab, nginx),
    };
    confdir.edit("conf.d/nginx.toml", |toml| {
        let runs = |line: &&str| line.starts_with("check_cmd") || line.starts_with("reload_cmd");
        let kept = toml.lines().filter(|line| case.has_nginx() || !runs(line));
        let toml = kept.fold(String::new(), |text, line| text + line + "\n");
        let two = "\"/services/apache\", \"/settings\"";
        if case == Case::Folders { toml.replace("\"/services/apache\"", two) } else { toml }
    });
    confdir
}
