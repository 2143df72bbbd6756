//! Is it worth asking `nginx -t` before the swap? nginx checks a configuration once more
//! at SIGHUP, and goes on with the old one if it will not do. Both ways in
//! turn, on the same nginx, with the same parts that confsync is made of.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use confsync::install::{Candidate, Proof, StagedFiles, Target};
use confsync::proxy::nginx::{Nginx as ByName, NginxSettings, is_alive};
use tests::{Lab, Nginx};

use crate::times::Times;

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Backends in the upstream, one table row each
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    sizes: Vec<usize>,
    /// Reloads measured each way, for each size
    #[arg(long, default_value_t = 30)]
    rounds: usize,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("from the render to the proof that nginx runs it: {} reloads each way", args.rounds);
    println!(
        "{:>8}  {:>24} {:>24}  {:>6}",
        "backends", "check, then reload", "reload as the check", "ratio"
    );
    println!("{:>8}  {:>12} {:>11} {:>12} {:>11}", "", "median", "p99", "median", "p99");
    for &size in &args.sizes {
        let [with, without] = measure(size, args.rounds).await?;
        let ratio = with.median().as_secs_f64() / without.median().as_secs_f64();
        let [a, b] = [with.quantile(0.5), with.quantile(0.99)];
        let [c, d] = [without.quantile(0.5), without.quantile(0.99)];
        println!("{size:>8}  {a:>12} {b:>11} {c:>12} {d:>11}  {ratio:>6.2}");
    }
    Ok(())
}

async fn measure(size: usize, rounds: usize) -> anyhow::Result<[Times; 2]> {
    let lab = Lab::new();
    let nginx = Nginx::prepare(&lab);
    fs::write(nginx.site(), site(&nginx, size, 0))?;
    let _ = nginx.start().await;
    let settings = NginxSettings { conf: Some(nginx.conf()), ..NginxSettings::default() };
    let by_name = ByName::discover(settings).await?;
    let mut times = [Times::default(), Times::default()];
    for round in 0..rounds * 2 {
        let way = round % 2;
        let bytes = site(&nginx, size, round + 1).into_bytes();
        let start = Instant::now();
        let staged = StagedFiles::write(
            &vec![Candidate { target: Target::new(nginx.site()), bytes }].into(),
        )?;
        let proof = match way {
            0 => by_name.check(&staged).await?.proof,
            _ => Proof::nothing_to_ask(&staged),
        };
        let installed = staged.accept(proof)?.install()?;
        let old = by_name.reload(&by_name.master()?, DEADLINE).await?;
        installed.commit()?;
        if let Some(times) = times.get_mut(way) {
            times.add(start.elapsed());
        }
        // The next begins at rest.
        while old.iter().any(|worker| is_alive(*worker)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(times)
}

/// A site with so many backends, another one in each round.
pub(crate) fn site(nginx: &Nginx, size: usize, round: usize) -> String {
    let mut text = format!("# {round}\nupstream apache_pool {{\n");
    for n in 0..size {
        // Writing to a string has no way to fail.
        let _ = writeln!(text, "    server 10.{}.{}.{}:80;", n >> 16, (n >> 8) & 0xff, n & 0xff);
    }
    let listen = nginx.address();
    text + &format!(
        "}}\nserver {{ listen {listen}; location / {{ proxy_pass http://apache_pool; }} }}\n"
    )
}
