//! A rolling deploy without a pause: each backend is stopped in order, dies the moment its
//! sidekick has ended, is started again, and then the next one.

use std::time::{Duration, Instant};

use tests::daemon::Running;
use tests::{Api, Backend, Daemon, Etcd, Exit, Lab, Load};

use crate::balancers::{Balancer, Way, Ways};
use crate::times::Times;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Restarts for each way
    #[arg(long, default_value_t = 100)]
    restarts: usize,
    #[command(flatten)]
    ways: Ways,
    /// Without any request: only how long a stop takes
    #[arg(long)]
    idle: bool,
}

const BACKENDS: usize = 3;

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("{} restarts back to back, of {BACKENDS} backends\n", args.restarts);
    for way in args.ways.possible() {
        one(args, way).await?;
    }
    Ok(())
}

async fn one(args: &Args, way: Way) -> anyhow::Result<()> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut stations = Vec::new();
    for nth in 0..BACKENDS {
        let at = (lab.another_ip(), 8080).into();
        let backend = Backend::start_at(at, &format!("b{nth}")).await;
        let sidekick = sidekick(&lab, &etcd, &backend);
        stations.push((backend, sidekick));
    }
    let balancer = Balancer::start(&lab, &etcd, way).await;
    for (_, sidekick) in &stations {
        sidekick.ready().await;
    }
    let load = || Load::on(balancer.address).clients(4).keep_alive();
    let loads = (!args.idle).then(|| [load().start(), load().post(vec![b'x'; 500]).start()]);
    let (mut stops, mut cycles) = (Times::default(), Times::default());
    let mut unconfirmed = 0;
    for nth in 0..args.restarts {
        let Some((backend, running)) = stations.get_mut(nth % BACKENDS) else { break };
        let begun = Instant::now();
        let exit = running.stop().await;
        stops.add(begun.elapsed());
        unconfirmed += usize::from(exit != Exit::Code(0));
        backend.die().await;
        backend.come_up().await;
        *running = sidekick(&lab, &etcd, backend);
        running.ready().await;
        cycles.add(begun.elapsed());
        if args.idle {
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    }
    println!("{way}:");
    if let Some([gets, posts]) = loads {
        let sum = gets.stop().await.and(posts.stop().await);
        println!("  {sum}");
        for failure in sum.failures.iter().take(5) {
            println!("    {failure:?}");
        }
    }
    if unconfirmed > 0 {
        println!("  drains that were not confirmed in time: {unconfirmed}");
    }
    for (what, times) in [("SIGTERM to exit", &stops), ("a whole restart", &cycles)] {
        let [half, most] = [times.quantile(0.5), times.quantile(0.99)];
        println!("  {what}: median {half}, p99 {most}");
    }
    Ok(())
}

fn sidekick(lab: &Lab, etcd: &Etcd, backend: &Backend) -> Running {
    let sidekick = Daemon::register(lab).named(&format!("sidekick of {}", backend.name()));
    let sidekick = sidekick.backend("apache", backend.address()).etcd(etcd, Api::V3);
    sidekick.flag("--rise", "1").flag("--interval", "500ms").arg("--wait-applied").start()
}
