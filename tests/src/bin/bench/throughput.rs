//! Requests a second through an upstream that changes without a reload, beside nginx's own:
//! `wrk` on kept connections, all peers being addresses of one listener.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use etcd_client::{Client, Txn, TxnOp};
use tests::process::{Spec, run as run_to_end};
use tests::{Etcd, Lab, Nginx, bins};

use crate::balancers::{Balancer, Way};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Peers in the upstream
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    sizes: Vec<usize>,
    /// Seconds for each row
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections
    #[arg(long, default_value_t = 32)]
    connections: usize,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(bins::on_path("wrk"), "wrk is not installed");
    println!("{:<24} {:>9} {:>14}", "", "peers", "requests/s");
    for &size in &args.sizes {
        for method in ["", "random two least_conn;"] {
            let name = if method.is_empty() { "static, round robin" } else { "static, random two" };
            row(name, size, of_static(args, size, method).await?);
        }
        if Way::NginxLua.is_possible() {
            row("without a reload (Lua)", size, of_lua(args, size).await?);
        }
    }
    Ok(())
}

fn row(name: &str, size: usize, rate: f64) {
    println!("{name:<24} {size:>9} {rate:>14.0}");
}

/// The peers: addresses of one listener.
fn peer(nth: usize, port: u16) -> String {
    format!("127.{}.{}.{}:{port}", 100 + (nth >> 16), (nth >> 8) & 0xff, nth & 0xff)
}

/// An nginx that answers at once, at every address of this machine.
async fn backend(lab: &Lab) -> (Nginx, u16) {
    let nginx = Nginx::prepare(lab);
    let port = nginx.address().port();
    nginx.write_conf(&format!(
        "server {{ listen {port}; keepalive_requests 1000000; return 200 \"yes\\n\"; }}"
    ));
    let _ = nginx.start().await;
    (nginx, port)
}

async fn of_static(args: &Args, size: usize, method: &str) -> anyhow::Result<f64> {
    let lab = Lab::new();
    let (_backend, port) = backend(&lab).await;
    let nginx = Nginx::prepare(&lab);
    let mut servers = String::new();
    for nth in 0..size {
        writeln!(servers, "server {};", peer(nth, port))?;
    }
    let site = format!(
        "upstream apache {{ zone apache 32m; {method} {servers} keepalive 64; }}\nserver {{ listen \
         {}; keepalive_requests 1000000; location / {{ proxy_pass http://apache; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n",
        nginx.address()
    );
    fs::write(nginx.site(), site)?;
    let _ = nginx.start().await;
    wrk(&lab, args, nginx.address()).await
}

async fn of_lua(args: &Args, size: usize) -> anyhow::Result<f64> {
    let lab = Lab::new();
    let (_backend, port) = backend(&lab).await;
    let etcd = Etcd::start(&lab).await;
    let mut client = Client::connect([etcd.url()], None).await?;
    for batch in (0..size).collect::<Vec<_>>().chunks(100) {
        let put =
            |nth: &usize| TxnOp::put(format!("/services/apache/{nth}"), peer(*nth, port), None);
        client.txn(Txn::new().and_then(batch.iter().map(put).collect::<Vec<_>>())).await?;
    }
    let balancer = Balancer::start(&lab, &etcd, Way::NginxLua).await;
    wrk(&lab, args, balancer.address).await
}

async fn wrk(lab: &Lab, args: &Args, to: SocketAddr) -> anyhow::Result<f64> {
    let (connections, seconds) = (args.connections.to_string(), format!("{}s", args.seconds));
    let url = format!("http://{to}/");
    let line = ["-t2", "-c", &connections, "-d", &seconds, &url];
    let spec = Spec::new("wrk", "wrk", lab.path()).args(line);
    let message = run_to_end(spec, Duration::from_secs(args.seconds + 60)).await.ok();
    let errors = message.lines().find(|line| line.contains("Non-2xx") || line.contains("errors"));
    anyhow::ensure!(errors.is_none(), "{message}");
    let rate = message.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    Ok(rate.context("wrk says no rate")?.trim().parse()?)
}
