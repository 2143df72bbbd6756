//! The processor time that one change of backends costs: of confsync, of the proxy, and of all
//! processes that either started.

use std::time::Duration;

use etcd_client::Client;
use tests::eventually::check;
use tests::{Etcd, Lab, eventually};

use crate::balancers::{Balancer, Way, Ways};
use crate::put_to_served::fill;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Backends in the upstream
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    sizes: Vec<usize>,
    /// Changes for each size
    #[arg(long, default_value_t = 40)]
    changes: u32,
    #[command(flatten)]
    ways: Ways,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("{:<22} {:>9} {:>22}", "", "backends", "processor, a change");
    for &size in &args.sizes {
        for way in args.ways.possible() {
            let cost = one(args, size, way).await?;
            println!("{way:<22} {size:>9} {:>19.2} ms", cost.as_secs_f64() * 1000.0);
        }
    }
    Ok(())
}

async fn one(args: &Args, size: usize, way: Way) -> anyhow::Result<Duration> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    fill(&mut client, size).await?;
    let balancer = Balancer::start(&lab, &etcd, way).await;
    let pause = Duration::from_millis(700);
    tokio::time::sleep(pause).await;
    let before = balancer.cpu()?;
    for change in 0..args.changes {
        let done = balancer.reloads() + balancer.member_changes();
        let key = "/services/apache/changes";
        match change.is_multiple_of(2) {
            true => drop(client.put(key, "10.255.0.1:80", None).await?),
            false => drop(client.delete(key, None).await?),
        }
        eventually("the change is live", || async {
            let now = balancer.reloads() + balancer.member_changes();
            check(now > done, || balancer.confsync.log())
        })
        .await;
        // What follows a change counts as well: files, acknowledgements, the end of old workers.
        tokio::time::sleep(pause).await;
    }
    let all = balancer.cpu()?.saturating_sub(before);
    // What it costs to do nothing for as long.
    let idle = balancer.cpu()?;
    tokio::time::sleep(pause * args.changes).await;
    let idle = balancer.cpu()?.saturating_sub(idle);
    Ok(all.saturating_sub(idle) / args.changes.max(1))
}
