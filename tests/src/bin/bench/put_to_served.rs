//! put → served: a key that names the peer of `/probe` changes from one backend to the next, among
//! N others in the upstream, and a client asks for `/probe` without pause. Each backend is new: an
//! address that has just left stays out for 50 ms where changes need no reload.
//!
//! For 100 ms after a reload nginx's old and new workers both accept, so there are two
//! times: to the first answer of the new backend, and until all answers are its.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use etcd_client::{Client, Event, Txn, TxnOp};
use tests::daemon::Running;
use tests::nginx::load_lua;
use tests::process::Spec;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Nginx, confdir, eventually, http};

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
}

#[derive(Clone, Copy)]
enum Follower<'a> {
    Confsync,
    /// confsync with nginx's Lua module: no reload.
    Live,
    Confd(&'a Path),
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("put → served: {} puts each, from before the put until", args.rounds);
    println!("  first  the first request is answered by the new backend");
    println!("  only   all requests are (nginx's old workers accept for 100 ms beside the new)");
    println!("  watch  a watch of etcd has reported it: nobody can be sooner\n");
    line(["", "backends", "first, median", "first, p99", "only, median", "only, p99", "watch"]);
    for &size in &args.sizes {
        row("confsync", size, args, Follower::Confsync).await?;
        if load_lua().is_some() {
            row("no reload", size, args, Follower::Live).await?;
        }
        if let Some(confd) = &args.confd {
            row("confd", size, args, Follower::Confd(confd)).await?;
        }
    }
    Ok(())
}

async fn row(name: &str, size: usize, args: &Args, by: Follower<'_>) -> anyhow::Result<()> {
    let Measured { first, only, watch } =
        measure(size, args, by).await.with_context(|| format!("{name}, {size}"))?;
    let [a, b] = [first.quantile(0.5), first.quantile(0.99)];
    let [c, d] = [only.quantile(0.5), only.quantile(0.99)];
    line([name, &size.to_string(), &a, &b, &c, &d, &watch.quantile(0.5)]);
    Ok(())
}

fn line([name, size, a, b, c, d, watch]: [&str; 7]) {
    println!("{name:<10} {size:>8}  {a:>14} {b:>12}  {c:>14} {d:>12}  {watch:>9}");
}

#[derive(Default)]
struct Measured {
    first: Times,
    only: Times,
    watch: Times,
}

async fn measure(size: usize, args: &Args, by: Follower<'_>) -> anyhow::Result<Measured> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    fill(&mut client, size).await?;
    let old = Backend::start(&lab, "old").await;
    client.put(KEY, old.address().to_string(), None).await?;
    let nginx = Nginx::prepare(&lab);
    let _running = start(&lab, &etcd, &nginx, by).await;

    let mut events = client.watch(KEY, None).await?;
    let mut measured = Measured::default();
    let quiet = Duration::from_millis(args.quiet_ms);
    // The first is not counted: it comes right after the start's own load, and waits for the
    // minimum interval between loads.
    for round in 0..=args.rounds {
        let to = Backend::start(&lab, &format!("b{round}")).await;
        let start = Instant::now();
        let value = to.address().to_string();
        let reported = async {
            while let Some(answer) = events.message().await? {
                let is_it =
                    |event: &Event| event.kv().is_some_and(|kv| kv.value() == value.as_bytes());
                if answer.events().iter().any(is_it) {
                    return Ok(start.elapsed());
                }
            }
            anyhow::bail!("the watch has ended")
        };
        let put = async {
            client.put(KEY, value.as_str(), None).await?;
            follow(nginx.address(), to.name(), start, quiet).await
        };
        let (reported, served) = tokio::join!(reported, put);
        let ((new, all), reported) = (served?, reported?);
        if round > 0 {
            measured.first.add(new);
            measured.only.add(all);
            measured.watch.add(reported);
        }
    }
    Ok(measured)
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
