//! A storm of changes: how many reloads come of it, when the last change is live, and
//! whether a request fails.

use std::time::{Duration, Instant};

use etcd_client::Client;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Load, Nginx};

use crate::balancers::registered_backends;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Changes
    #[arg(long, default_value_t = 1_000)]
    changes: u32,
    /// Seconds that they are spread over
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Clients that send requests meanwhile, each on a new connection every time
    #[arg(long, default_value_t = 4)]
    clients: usize,
}

/// All up all the time, so that a request fails only by a reload.
const BACKENDS: u64 = 10;
/// Keys that come and go.
const KEYS: u32 = 100;

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    let backends = registered_backends(&lab, &mut client, BACKENDS).await?;
    let last = Backend::start(&lab, "last").await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;
    let load = Load::on(nginx.address()).clients(args.clients).start();
    load.more(100).await;
    let before = reloads(&nginx);

    let begun = Instant::now();
    let pace = Duration::from_secs(args.seconds) / args.changes.max(1);
    let mut ticks = tokio::time::interval(pace);
    for (change, backend) in (1..args.changes).zip(backends.iter().cycle()) {
        ticks.tick().await;
        let key = format!("/services/apache/storm{}", change % KEYS);
        if (change / KEYS).is_multiple_of(2) {
            client.put(key, backend.address().to_string(), None).await?;
        } else {
            client.delete(key, None).await?;
        }
    }
    ticks.tick().await;
    let put = Instant::now();
    client.put("/services/apache/last", last.address().to_string(), None).await?;
    let served = load.answered("last").await.saturating_duration_since(put);
    let took = begun.elapsed();
    let summary = load.stop().await;

    println!("{} changes in {:.1} s", args.changes, (put - begun).as_secs_f64());
    println!("  reloads                  {}", reloads(&nginx) - before);
    println!(
        "  until the last is served {} ms (in all {:.1} s)",
        served.as_millis(),
        took.as_secs_f64()
    );
    println!("  {summary}");
    Ok(())
}

fn reloads(nginx: &Nginx) -> usize {
    nginx.error_log().iter().filter(|line| line.ends_with(": reconfiguring")).count()
}
