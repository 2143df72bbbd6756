//! drain: from SIGTERM to the end of `register`, with an nginx that has nothing to do.
//!
//! nginx itself takes its part: its master waits 100 ms before it tells old workers to
//! go. What is above that is ours and etcd's.

use std::time::{Duration, Instant};

use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Nginx};

use crate::times::Times;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Drains measured with each API
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Milliseconds of quiet before each drain; below the interval between reloads (500)
    /// a drain waits for it
    #[arg(long, default_value_t = 800)]
    quiet_ms: u64,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("drain: {} each, from SIGTERM to the exit of register\n", args.rounds);
    println!("{:<4} {:>10} {:>10} {:>10} {:>10}", "etcd", "median", "p90", "p99", "worst");
    for api in [Api::V3, Api::V2] {
        let times = measure(args, api).await?;
        let [a, b, c, d] = [0.5, 0.9, 0.99, 1.0].map(|part| times.quantile(part));
        println!("{:<4} {a:>10} {b:>10} {c:>10} {d:>10}", api.flag());
    }
    Ok(())
}

async fn measure(args: &Args, api: Api) -> anyhow::Result<Times> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let stays = Backend::start(&lab, "stays").await;
    etcd.ctl(api).put("/services/apache/stays", &stays.address().to_string()).await;
    let leaves = Backend::start_at((lab.another_ip(), 8080).into(), "leaves").await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    let confsync = Daemon::confsync(&lab).etcd(&etcd, api).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;

    let mut times = Times::default();
    for _ in 0..args.rounds {
        let sidekick = Daemon::register(&lab).backend("apache", leaves.address());
        let sidekick = sidekick.etcd(&etcd, api).flag("--rise", "1").arg("--wait-applied").start();
        sidekick.ready().await;
        tokio::time::sleep(Duration::from_millis(args.quiet_ms)).await;
        let start = Instant::now();
        let exit = sidekick.stop().await;
        times.add(start.elapsed());
        anyhow::ensure!(exit == Exit::Code(0), "{exit}: {}", sidekick.log());
    }
    Ok(times)
}
