//! Many services in one process against one etcd: what the process costs, and what it
//! asks of etcd, while nothing changes.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tests::eventually::check;
use tests::{Api, Backend, Daemon, Etcd, Lab, http, within};

use crate::cost::Cost;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Services in the process
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// How long to measure
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only v3
    #[arg(long)]
    v3: bool,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("{} services in one process at the defaults, {} s", args.services, args.seconds);
    println!("Writes are what moves etcd's revision: with v2 each refresh does, with v3 none\n");
    measure(args, Api::V3).await?;
    if !args.v3 {
        measure(args, Api::V2).await?;
    }
    Ok(())
}

async fn measure(args: &Args, api: Api) -> anyhow::Result<()> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backend = Backend::start(&lab, "all").await;
    let file = lab.path().join("services.toml");
    fs::write(&file, services(args.services, &backend))?;
    let start = Instant::now();
    let sidekick = Daemon::register(&lab).etcd(&etcd, api);
    let sidekick = sidekick.flag("--config", file.display().to_string()).start();
    let keys = || async { etcd.ctl(api).ls("/services").await };
    let named = |keys: &[String]| keys.iter().filter(|key| key.ends_with("/one")).count();
    within(Duration::from_secs(120), "all are registered", || async {
        let count = named(&keys().await);
        check(count == args.services, || format!("{count} are"))
    })
    .await;
    let registered = start.elapsed();
    sidekick.ready().await;

    let pid = sidekick.process().pid();
    let (before, probes, seen) =
        (Cost::of(pid)?, backend.requests(), Requests::of(&etcd, api).await?);
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let (now, asked) = (Cost::of(pid)?, Requests::of(&etcd, api).await?);
    #[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
    let per_second = |count: u64| count as f64 / args.seconds as f64;

    println!("{}", api.flag());
    println!("  all registered after  {:.1} s", registered.as_secs_f64());
    println!("  resident              {}", now.memory());
    println!("  own + of files        {}", now.split());
    println!("  processor             {:.2} % of a core", now.share_since(&before));
    println!("  probes                {:.1} a second", per_second(backend.requests() - probes));
    println!("  requests to etcd      {:.1} a second", per_second(asked.all - seen.all));
    println!("  writes to etcd        {}", asked.revision - seen.revision);
    Ok(())
}

fn services(count: usize, backend: &Backend) -> String {
    let mut text = String::from("[defaults]\nid = \"one\"\n");
    for nth in 0..count {
        let (host, port) = (backend.ip(), backend.port());
        // Writing into a text cannot fail.
        let _ =
            write!(text, "[[service]]\nservice = \"s{nth}\"\nhost = \"{host}\"\nport = {port}\n");
    }
    text
}

/// What etcd has counted, and its revision.
struct Requests {
    all: u64,
    revision: u64,
}

impl Requests {
    async fn of(etcd: &Etcd, api: Api) -> anyhow::Result<Self> {
        let counter = match api {
            // A refresh is one message on a stream and one answer.
            Api::V3 => "grpc_server_msg_received_total",
            Api::V2 => "etcd_http_received_total",
        };
        let ask = |path| http::get(etcd.address(), path);
        let metrics = ask("/metrics").await.map_err(anyhow::Error::msg)?.body;
        let values = metrics.lines().filter(|line| line.starts_with(counter));
        let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
        let all = values.sum::<f64>() as u64;
        let revision = match api {
            Api::V2 => {
                let answer = ask("/v2/keys/").await.map_err(anyhow::Error::msg)?;
                answer.header("x-etcd-index").context("an index")?.parse()?
            }
            Api::V3 => {
                let text = etcd.ctl(api).run(&["get", "/", "-w=json"]).await.ok();
                let json: serde_json::Value = serde_json::from_str(&text)?;
                json.pointer("/header/revision").and_then(|r| r.as_u64()).context("a revision")?
            }
        };
        Ok(Self { all, revision })
    }
}
