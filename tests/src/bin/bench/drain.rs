//! drain: from SIGTERM to the end of `register`, with an nginx that has nothing to do.
//!
//! nginx itself takes its part: its master waits 100 ms before it signals old workers to
//! go. So the same nginx is reloaded in each round without us as well, from SIGHUP until
//! no old worker is left. What a drain takes above that is ours and etcd's.

use std::time::{Duration, Instant};

use tests::{Api, Backend, Confdir, Daemon, Etcd, Exit, Lab, Nginx, Signal};

use crate::times::Times;

/// What half of the drains may take.
const AIM: Duration = Duration::from_millis(250);
/// How exactly the end of nginx's workers is seen.
const LOOK: Duration = Duration::from_millis(1);
/// An idle worker that is not gone by then will not go.
const LONG: Duration = Duration::from_secs(30);

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
    println!("drain: {} rounds with each API\n", args.rounds);
    println!("{:<38} {:>9} {:>9} {:>9} {:>9}", "", "min", "median", "p99", "max");
    for api in [Api::V3, Api::V2] {
        let (drains, reloads) = measure(args, api).await?;
        row(&format!("{}: SIGTERM to register's exit", api.flag()), &drains);
        row("    nginx alone: HUP to no old worker", &reloads);
        let ours = drains.median().saturating_sub(reloads.median());
        let met = if drains.median() < AIM { "met" } else { "MISSED" };
        println!("    ours and etcd's: {ours:.1?} of the median; aim, under {AIM:?}: {met}");
    }
    Ok(())
}

fn row(name: &str, times: &Times) {
    let [a, b, c, d] = [0.0, 0.5, 0.99, 1.0].map(|part| times.quantile(part));
    println!("{name:<38} {a:>9} {b:>9} {c:>9} {d:>9}");
}

/// Drains, and reloads of the same nginx by hand.
async fn measure(args: &Args, api: Api) -> anyhow::Result<(Times, Times)> {
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

    let (mut drains, mut reloads) = (Times::default(), Times::default());
    for _ in 0..args.rounds {
        let sidekick = Daemon::register(&lab).backend("apache", leaves.address());
        let sidekick = sidekick.etcd(&etcd, api).flag("--rise", "1").arg("--wait-applied").start();
        sidekick.ready().await;
        // The workers of before are gone, so that each reload has its own to end.
        tokio::time::sleep(Duration::from_millis(args.quiet_ms)).await;
        reloads.add(reload_alone(&nginx).await?);
        let start = Instant::now();
        let exit = sidekick.stop().await;
        drains.add(start.elapsed());
        anyhow::ensure!(exit == Exit::Code(0), "{exit}: {}", sidekick.log());
    }
    Ok((drains, reloads))
}

async fn reload_alone(nginx: &Nginx) -> anyhow::Result<Duration> {
    let before = nginx.workers();
    let start = Instant::now();
    nginx.signal(Signal::HUP);
    loop {
        let now = nginx.workers();
        if !now.iter().any(|worker| before.iter().any(|old| old.pid == worker.pid)) {
            return Ok(start.elapsed());
        }
        anyhow::ensure!(start.elapsed() < LONG, "old workers are not gone: {now:?}");
        tokio::time::sleep(LOOK).await;
    }
}
