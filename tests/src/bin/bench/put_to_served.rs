//! put → served: a key that names the peer of `/probe` changes from one backend to the next, among
//! N others in the upstream, and a client asks for `/probe` without pause. Each backend is new: an
//! address that has just left stays out for 50 ms where changes need no reload.
//!
//! For 100 ms after a reload nginx's old and new workers both accept, so there are two
//! times: to the first answer of the new backend, and until all answers are its.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use etcd_client::{Client, Event, Txn, TxnOp, WatchStream};
use tests::daemon::Running;
use tests::nginx::load_lua;
use tests::process::Spec;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, Signal, confdir, eventually, http};

use crate::chart::Chart;
use crate::reload_as_check::site;
use crate::times::Times;

const KEY: &str = "/services/probe/peer";
const BATCH: usize = 100;
const LONGEST: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Backends in the upstream, one table row each
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    sizes: Vec<usize>,
    /// Puts measured for each size
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Milliseconds of quiet after the last answer of the old backend, before the next put
    #[arg(long, default_value_t = 800)]
    quiet_ms: u64,
    /// A confd to measure as well (`-backend etcdv3 -watch`)
    #[arg(long, env = "CONFD_BIN")]
    confd: Option<PathBuf>,
    /// Where the chart goes: a folder
    #[arg(long)]
    charts: Option<PathBuf>,
}

#[derive(Clone, Copy)]
enum Follower<'a> {
    /// The file is written, `nginx -t` run and the master signalled, and nothing else.
    Floor,
    Confsync,
    /// confsync with nginx's Lua module: no reload.
    Live,
    Confd(&'a Path),
}

impl fmt::Display for Follower<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "floor",
            Self::Confsync => "confsync",
            Self::Live => "no reload",
            Self::Confd(_) => "confd",
        })
    }
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("put → served: {} puts each, in turn, from before the put until", args.rounds);
    println!("  first  the first request is answered by the new backend");
    println!("  only   all requests are (nginx's old workers accept for 100 ms beside the new)");
    println!("  watch  a watch of etcd has reported it: nobody can be sooner");
    println!("  floor  who writes the file, runs `nginx -t` and sends SIGHUP, and no more");
    println!("  ratio  of the first to the floor's\n");
    line([
        "",
        "backends",
        "first, median",
        "first, p99",
        "only, median",
        "only, p99",
        "watch",
        "ratio",
    ]);
    let mut all = vec![Follower::Floor, Follower::Confsync];
    all.extend(load_lua().map(|_| Follower::Live));
    all.extend(args.confd.as_deref().map(Follower::Confd));
    let mut chart = Chart::new("put → first request served, median", "ms");
    for &size in &args.sizes {
        let mut trials = Vec::new();
        for &by in &all {
            let trial = Trial::start(size, by).await;
            trials.push(trial.with_context(|| format!("{by}, {size}"))?);
        }
        // The first is not counted: it comes right after the start's own load, and waits for the
        // minimum interval between loads.
        for round in 0..=args.rounds {
            for trial in &mut trials {
                let measured = trial.round(round, Duration::from_millis(args.quiet_ms)).await;
                measured.with_context(|| format!("{}, {size}", trial.by))?;
            }
        }
        let floor = trials.first().map(|floor| floor.first.median()).unwrap_or_default();
        for trial in &trials {
            trial.print(size, floor);
            chart.add(&trial.by.to_string(), size, trial.first.median().as_secs_f64() * 1000.0);
        }
    }
    match &args.charts {
        Some(folder) => chart.write(&folder.join("put-to-served.svg")),
        None => Ok(()),
    }
}

fn line([name, size, a, b, c, d, watch, ratio]: [&str; 8]) {
    println!("{name:<10} {size:>8}  {a:>14} {b:>12}  {c:>14} {d:>12}  {watch:>9} {ratio:>6}");
}

/// One follower with an etcd and an nginx of its own.
struct Trial<'a> {
    by: Follower<'a>,
    client: Client,
    events: WatchStream,
    nginx: SocketAddr,
    first: Times,
    only: Times,
    watch: Times,
    _running: Option<Running>,
    /// Dropped last: it ends what it started.
    lab: Lab,
}

impl<'a> Trial<'a> {
    async fn start(size: usize, by: Follower<'a>) -> anyhow::Result<Self> {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let mut client = Client::connect([etcd.url()], None).await?;
        fill(&mut client, size).await?;
        let old = Backend::start(&lab, "old").await;
        client.put(KEY, old.address().to_string(), None).await?;
        let nginx = Nginx::prepare(&lab);
        let address = nginx.address();
        let running = match by {
            Follower::Floor => {
                floor(nginx, size, &old, client.watch(KEY, None).await?).await?;
                None
            }
            _ => start(&lab, &etcd, &nginx, by).await,
        };
        let events = client.watch(KEY, None).await?;
        let (first, only, watch) = Default::default();
        Ok(Self { by, client, events, nginx: address, first, only, watch, _running: running, lab })
    }

    async fn round(&mut self, round: usize, quiet: Duration) -> anyhow::Result<()> {
        let to = Backend::start(&self.lab, &format!("b{round}")).await;
        let start = Instant::now();
        let value = to.address().to_string();
        let reported = async {
            reported(&mut self.events, &value).await?;
            anyhow::Ok(start.elapsed())
        };
        let put = async {
            self.client.put(KEY, value.as_str(), None).await?;
            follow(self.nginx, to.name(), start, quiet).await
        };
        let (reported, served) = tokio::join!(reported, put);
        let ((new, all), reported) = (served?, reported?);
        if round > 0 {
            self.first.add(new);
            self.only.add(all);
            self.watch.add(reported);
        }
        Ok(())
    }

    fn print(&self, size: usize, floor: Duration) {
        let [a, b] = [self.first.quantile(0.5), self.first.quantile(0.99)];
        let [c, d] = [self.only.quantile(0.5), self.only.quantile(0.99)];
        let ratio = self.first.median().as_secs_f64() / floor.as_secs_f64();
        let (name, watch) = (self.by.to_string(), self.watch.quantile(0.5));
        line([&name, &size.to_string(), &a, &b, &c, &d, &watch, &format!("{ratio:.2}")]);
    }
}

/// Waits until a watch reports that the key has this value.
async fn reported(events: &mut WatchStream, value: &str) -> anyhow::Result<()> {
    while let Some(answer) = events.message().await? {
        let is_it = |event: &Event| event.kv().is_some_and(|kv| kv.value() == value.as_bytes());
        if answer.events().iter().any(is_it) {
            return Ok(());
        }
    }
    anyhow::bail!("the watch has ended")
}

/// The least that any follower with a reload does, for as long as its watch lasts.
async fn floor(
    nginx: Nginx,
    size: usize,
    old: &Backend,
    mut events: WatchStream,
) -> anyhow::Result<()> {
    let base = site(&nginx, size, 0);
    let text = move |peer: &str| {
        let probe = format!("location /probe {{ proxy_pass http://{peer}; }} location / {{");
        base.replace("location / {", &probe)
    };
    fs::write(nginx.site(), text(&old.address().to_string()))?;
    let _ = nginx.start().await;
    tokio::spawn(async move {
        while let Ok(Some(answer)) = events.message().await {
            let newest =
                answer.events().iter().rev().find_map(|event| event.kv()?.value_str().ok());
            let Some(peer) = newest else { continue };
            let text = text(peer);
            let candidate = nginx.folder().join("candidate");
            let written = fs::write(&candidate, text).and_then(|()| {
                fs::File::open(&candidate)?.sync_all()?;
                fs::rename(&candidate, nginx.site())
            });
            // Whoever waits for the answer says that there was none.
            if written.is_ok() && nginx.test().await.exit.success() {
                nginx.signal(Signal::HUP);
            }
        }
    });
    Ok(())
}

/// `size` backends that no request goes to, in `/services/apache`.
pub(crate) async fn fill(client: &mut Client, size: usize) -> anyhow::Result<()> {
    let keys: Vec<usize> = (0..size).collect();
    for batch in keys.chunks(BATCH) {
        let puts = batch.iter().map(|n| {
            let ip = format!("10.{}.{}.{}", n >> 16, (n >> 8) & 0xff, n & 0xff);
            TxnOp::put(format!("/services/apache/{ip}"), format!("{ip}:80"), None)
        });
        client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await?;
    }
    Ok(())
}

/// Asks without pause until the old backend has been quiet for long enough. The times of
/// the new one's first answer, and from when on all answers are its.
async fn follow(
    nginx: SocketAddr,
    to: &str,
    start: Instant,
    quiet: Duration,
) -> anyhow::Result<(Duration, Duration)> {
    let mut first = None;
    let mut last_old = Duration::ZERO;
    loop {
        let answer = http::get(nginx, "/probe").await.map_err(anyhow::Error::msg)?;
        let now = start.elapsed();
        if answer.body.trim() == to {
            let first = *first.get_or_insert(now);
            if now > last_old.max(first) + quiet {
                return Ok((first, last_old.max(first)));
            }
        } else {
            last_old = now;
        }
        // A panic, so that the lab prints its report.
        assert!(now < LONGEST, "not served within {LONGEST:?}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Starts nginx and what keeps its file; the lab ends both.
async fn start(lab: &Lab, etcd: &Etcd, nginx: &Nginx, by: Follower<'_>) -> Option<Running> {
    let probe = format!("    location /probe {{ proxy_pass http://{{{{ getv \"{KEY}\" }}}}; }}\n");
    let template =
        confdir::tutorial_tmpl(nginx).replace("    location / {", &(probe + "\n    location / {"));
    let watched = |toml: String| toml.replace("/services/apache\"", "/services\"");
    match by {
        Follower::Confsync => {
            let confdir = Confdir::tutorial(lab, nginx);
            confdir.edit("conf.d/nginx.toml", watched);
            confdir.template("nginx.tmpl", &template);
            let confsync = Daemon::confsync(lab).etcd(etcd, Api::V3).confdir(&confdir);
            let confsync = confsync.supervising(nginx).start();
            confsync.ready().await;
            Some(confsync)
        }
        Follower::Live => {
            nginx.write_conf_with(&load_lua().unwrap_or_default(), "");
            let confdir = Confdir::handlebars(lab, nginx);
            confdir.edit("conf.d/nginx.toml", watched);
            confdir.edit("templates/nginx.hbs", |text| {
                let probe = "location /probe { proxy_pass http://probe; }\n    location / {";
                text.replacen("location / {", probe, 1) + "{{upstream \"probe\"}}\n"
            });
            let confsync = Daemon::confsync(lab).etcd(etcd, Api::V3).confdir(&confdir);
            let confsync = confsync.supervising(nginx).start();
            confsync.ready().await;
            Some(confsync)
        }
        Follower::Floor => None,
        Follower::Confd(binary) => {
            let confdir = Confdir::tutorial_commands(lab, nginx);
            confdir.edit("conf.d/nginx.toml", watched);
            confdir.template("nginx.tmpl", &template);
            let _ = nginx.start().await;
            let spec = Spec::new("confd", binary, lab.path())
                .args(["-backend", "etcdv3", "-watch", "-node", &etcd.url(), "-confdir"])
                .args([confdir.path()]);
            let _ = lab.spawn(spec);
            eventually("confd's first file is served", || http::get(nginx.address(), "/probe"))
                .await;
            None
        }
    }
}
