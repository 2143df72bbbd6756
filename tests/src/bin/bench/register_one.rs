//! One service at the defaults: what a sidekick costs, beside the tutorial's loop.

use std::time::Duration;

use tests::process::Process;
use tests::{Api, Backend, Daemon, Etcd, Lab, eventually};

use crate::bash_loop;
use crate::cost::Cost;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long to measure
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

struct Subject {
    name: &'static str,
    process: Process,
    backend: Backend,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut running = Vec::new();
    let mut subjects = Vec::new();
    for (name, api) in [("register, v3", Api::V3), ("register, v2", Api::V2)] {
        let backend = Backend::start_at((lab.another_ip(), 7777).into(), name).await;
        let sidekick = Daemon::register(&lab).backend("apache", backend.address());
        let sidekick = sidekick.etcd(&etcd, api).start();
        sidekick.ready().await;
        subjects.push(Subject { name, process: sidekick.process().clone(), backend });
        running.push(sidekick);
    }
    let backend = Backend::start_at((lab.another_ip(), 7777).into(), "bash").await;
    let process = bash_loop::start(&lab, &etcd, &backend);
    let (ctl, key) = (etcd.ctl(Api::V2), format!("/services/apache/{}", backend.ip()));
    eventually("the loop registers", || async { ctl.get(&key).await.ok_or("no key yet") }).await;
    subjects.push(Subject { name: "bash loop, v2", process, backend });

    println!("One service at the defaults, measured for {} s", args.seconds);
    println!("Processor time with that of all children; one core is 100 %\n");
    let mut before = Vec::new();
    for subject in &subjects {
        before.push((Cost::of(subject.process.pid())?, subject.backend.requests()));
    }
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    line(["", "resident", "own + of files", "processor", "probes"]);
    for (subject, (before, probes)) in subjects.iter().zip(before) {
        let now = Cost::of(subject.process.pid())?;
        let share = now.share_since(&before);
        let probes = subject.backend.requests() - probes;
        let (share, probes) = (format!("{share:.3} %"), probes.to_string());
        line([subject.name, &now.memory(), &now.split(), &share, &probes]);
    }
    Ok(())
}

fn line([name, resident, split, processor, probes]: [&str; 5]) {
    println!("{name:<16} {resident:>22} {split:>16} {processor:>10} {probes:>8}");
}
