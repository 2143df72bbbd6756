//! A backend dies, or hangs: how long until its key is gone, with `register` at its
//! defaults and with the tutorial's loop.

use std::time::{Duration, Instant};

use tests::daemon::Running;
use tests::etcd::Watcher;
use tests::eventually::check;
use tests::{Api, Backend, Behaviour, Daemon, Etcd, Lab, within};

use crate::bash_loop;
use crate::times::Times;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Backends of each kind; each dies at its own moment
    #[arg(long, default_value_t = 20)]
    backends: usize,
}

/// The loop looks every 20 s, so deaths are spread over that.
const SPREAD: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum End {
    Dies,
    Hangs,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("From a backend's end until its key is gone; {} backends each\n", args.backends);
    println!("{:<22} {:>11} {:>11} {:>11} {:>11}", "", "best", "median", "p90", "worst");
    for (end, what) in [(End::Dies, "dies"), (End::Hangs, "hangs")] {
        let [register, bash] = measure(args.backends, end).await;
        row(&format!("{what}, register"), &register);
        row(&format!("{what}, bash loop"), &bash);
    }
    Ok(())
}

fn row(name: &str, times: &Times) {
    let [a, b, c, d] = [0.0, 0.5, 0.9, 1.0].map(|part| times.quantile(part));
    println!("{name:<22} {a:>11} {b:>11} {c:>11} {d:>11}");
}

/// One backend each, with one of the two sidekicks.
async fn measure(backends: usize, end: End) -> [Times; 2] {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut sidekicks: Vec<Running> = Vec::new();
    let mut all = Vec::new();
    for nth in 0..backends * 2 {
        let backend = Backend::start_at((lab.another_ip(), 7777).into(), "one").await;
        let api = if nth % 2 == 0 { Api::V3 } else { Api::V2 };
        if api == Api::V3 {
            let sidekick = Daemon::register(&lab).backend("apache", backend.address());
            sidekicks.push(sidekick.etcd(&etcd, api).start());
        } else {
            let _ = bash_loop::start(&lab, &etcd, &backend);
        }
        all.push((api, backend));
    }
    for api in [Api::V3, Api::V2] {
        within(LONGEST, "all are registered", || async {
            let keys = etcd.ctl(api).ls("/services/apache").await;
            check(keys.len() == backends, || format!("{} keys", keys.len()))
        })
        .await;
    }
    let watchers = [etcd.watch(Api::V3, "/services").await, etcd.watch(Api::V2, "/services").await];
    let [register, bash] = &watchers;
    let times = all.into_iter().map(|(api, backend)| {
        let watcher = if api == Api::V3 { register } else { bash };
        async move { (api, one(&backend, watcher, end).await) }
    });
    let mut results = [Times::default(), Times::default()];
    let [of_register, of_bash] = &mut results;
    for (api, time) in futures_util::future::join_all(times).await {
        if api == Api::V3 { of_register.add(time) } else { of_bash.add(time) }
    }
    results
}

async fn one(backend: &Backend, watcher: &Watcher, end: End) -> Duration {
    tokio::time::sleep(SPREAD.mul_f64(fastrand::f64())).await;
    let died = Instant::now();
    match end {
        End::Dies => backend.die().await,
        End::Hangs => backend.behave(Behaviour::Hang),
    }
    let event = format!("DELETE /services/apache/{}", backend.ip());
    let gone = within(LONGEST, event.clone(), || async {
        let found = watcher.timed().into_iter().find(|(_, seen)| *seen == event);
        found.map(|(at, _)| at).ok_or("not seen yet")
    });
    gone.await - died
}
