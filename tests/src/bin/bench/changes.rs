//! Many changes of backends under load: what is lost, what is cut, what is reloaded.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use etcd_client::Client;
use tests::{Etcd, Lab, Load};
use tokio::net::TcpListener;

use crate::balancers::{Balancer, Way, Ways, key, registered_backends};
use crate::sockets;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Changes for each way
    #[arg(long, default_value_t = 1_000)]
    changes: u64,
    /// Requests for each way, at least
    #[arg(long, default_value_t = 200_000)]
    requests: u64,
    /// WebSockets that are open all the time, to another service
    #[arg(long, default_value_t = 100)]
    sockets: usize,
    #[command(flatten)]
    ways: Ways,
}

/// All up all the time: a request fails by a change alone.
const BACKENDS: u64 = 10;
/// Of these, so many are never taken out.
const STAY: u64 = 3;

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!(
        "{} changes each, under at least {} requests (GET and POST on kept connections, slow \
         uploads) and {} open WebSockets to another service\n",
        args.changes, args.requests, args.sockets
    );
    for way in args.ways.possible() {
        one(args, way).await?;
    }
    Ok(())
}

async fn one(args: &Args, way: Way) -> anyhow::Result<()> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    let backends = registered_backends(&lab, &mut client, BACKENDS).await?;
    let listener = TcpListener::bind(lab.free()).await?;
    let echo = listener.local_addr()?.to_string();
    client.put("/services/sockets/echo", echo, None).await?;
    let server = tokio::spawn(sockets::echo(listener));
    let balancer = Balancer::start(&lab, &etcd, way).await;
    let mut open = Vec::new();
    for _ in 0..args.sockets {
        open.push(sockets::open(balancer.address).await?);
    }

    let think = Duration::ZERO;
    let load = || Load::on(balancer.address).think(think);
    let gets = load().clients(6).keep_alive().start();
    let posts = load().clients(3).keep_alive().post(vec![b'x'; 2_000]).start();
    let uploads = load().clients(4).slow_upload(Duration::from_millis(400)).start();
    let (reloads, first) = (balancer.reloads(), balancer.workers());
    let mut workers: BTreeSet<i32> = BTreeSet::new();
    let begun = Instant::now();
    for change in 0..args.changes {
        let nth = STAY + change % (BACKENDS - STAY);
        let backend = backends.get(usize::try_from(nth)?).map(|b| b.address().to_string());
        match (change / (BACKENDS - STAY)).is_multiple_of(2) {
            true => drop(client.delete(key(nth), None).await?),
            false => drop(client.put(key(nth), backend.unwrap_or_default(), None).await?),
        }
        let goal = args.requests * (change + 1) / args.changes;
        loop {
            workers.extend(balancer.workers());
            if gets.so_far().requests() + posts.so_far().requests() >= goal {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let took = begun.elapsed();
    let new = workers.difference(&first).count();
    let sum = gets.stop().await.and(posts.stop().await).and(uploads.stop().await);
    let mut cut = 0;
    for stream in &mut open {
        cut += usize::from(!sockets::is_open(stream).await);
    }
    println!("{way}: {:.0} s", took.as_secs_f64());
    println!("  {sum}");
    println!("  WebSockets cut: {cut} of {}", args.sockets);
    println!("  reloads: {}, new workers: {new}", balancer.reloads() - reloads);
    println!("  changes without a reload: {}", balancer.member_changes());
    for failure in sum.failures.iter().take(5) {
        println!("    {failure:?}");
    }
    server.abort();
    Ok(())
}
