//! `make soak MINUTES=60 SEED=…`: faults by a seeded plan for as long as is asked for. Prints
//! the seed first, each round as it comes, and the sum; fails at the first violation.

#![expect(clippy::print_stdout, reason = "what it finds is printed")]

use std::time::{Duration, Instant};

use clap::Parser;
use tests::faults;

#[derive(Parser)]
struct SoakArgs {
    /// How long to go on
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Where chance begins; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() {
    let args = SoakArgs::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    println!("seed {seed}");
    let start = Instant::now();
    let span = Duration::from_secs(60 * args.minutes);
    let tally = faults::run(seed, |_| start.elapsed() >= span).await;
    println!(
        "{} faults in {} rounds and {:.0?}: {} requests, none lost; {} observations of etcd, all \
         true; right again after {:.1?} at the latest; a confsync has {} KiB",
        tally.faults,
        tally.rounds,
        start.elapsed(),
        tally.requests,
        tally.observations,
        tally.slowest,
        tally.memory_kib,
    );
}
