//! What confsync keeps in memory, by the number of backends, after some changes.

use std::fs;

use anyhow::Context as _;
use etcd_client::Client;
use tests::{Api, Backend, Confdir, Daemon, Etcd, Lab, Load, Nginx};

use crate::put_to_served::fill;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Backends in the upstream, one table row each
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    sizes: Vec<usize>,
    /// Changes, each awaited, before the look
    #[arg(long, default_value_t = 20)]
    changes: usize,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("confsync's resident memory after {} changes", args.changes);
    println!("{:>8}  {:>10} {:>10}", "backends", "now", "most");
    for &size in &args.sizes {
        let [now, most] = measure(size, args.changes).await?;
        println!("{size:>8}  {:>7.1} MB {:>7.1} MB", now / 1024.0, most / 1024.0);
    }
    Ok(())
}

async fn measure(size: usize, changes: usize) -> anyhow::Result<[f64; 2]> {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    fill(&mut client, size).await?;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::tutorial(&lab, &nginx);
    // An answer of the one backend that is there shows that a change is through.
    let template = |text: String| {
        let peer =
            "    location /probe { proxy_pass http://{{ getv \"/services/probe/peer\" }}; }\n\n";
        text.replace("    location / {", &format!("{peer}    location / {{"))
    };
    confdir.edit("templates/nginx.tmpl", template);
    confdir.edit("conf.d/nginx.toml", |toml| toml.replace("/services/apache\"", "/services\""));
    let backends = [Backend::start(&lab, "a").await, Backend::start(&lab, "b").await];
    let [a, b] = &backends;
    client.put("/services/probe/peer", a.address().to_string(), None).await?;
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.supervising(&nginx).start();
    confsync.ready().await;
    let load = Load::on(nginx.address()).path("/probe").start();
    for to in [b, a].into_iter().cycle().take(changes) {
        load.forget_answers();
        client.put("/services/probe/peer", to.address().to_string(), None).await?;
        load.answered(to.name()).await;
    }
    load.stop().await;
    let status = fs::read_to_string(format!("/proc/{}/status", confsync.process().pid()))?;
    let line = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number =
            line.and_then(|line| line.split_whitespace().next()).context("no such line")?;
        Ok(number.parse()?)
    };
    Ok([line("VmRSS:")?, line("VmHWM:")?])
}
