//! `make demo`: backends register, nginx follows them, one dies, it comes back, another
//! leaves in good order, and so on, under a load that never stops.
//!
//! Runs until Ctrl-C, or for `DEMO_SECONDS`. Everything happens on private loopback
//! addresses and in a folder that goes away at the end, as do all processes.

use std::time::Duration;

use tests::Lab;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod story;
mod tally;
mod world;

use story::Story;
use world::World;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let seconds = match std::env::var("DEMO_SECONDS") {
        Ok(text) => Some(text.parse::<u64>().map_err(|e| anyhow::anyhow!("DEMO_SECONDS: {e}"))?),
        Err(_) => None,
    };
    let signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let end = the_end(seconds, signals);
    tokio::pin!(end);
    let lab = Lab::new();
    let world = tokio::select! {
        world = World::build(&lab) => world,
        () = &mut end => anyhow::bail!("ended before everything was up"),
    };
    let mut story = Story::of(world);
    tokio::select! {
        () = story.tell() => {}
        () = &mut end => {}
    }
    let last_line = story.sum_up().await;
    drop(lab);
    println!("\n{last_line}");
    Ok(())
}

/// Ctrl-C, SIGTERM, or the time that was given.
async fn the_end(seconds: Option<u64>, [mut interrupt, mut terminate]: [Signal; 2]) {
    let over = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        _ = interrupt.recv() => println!(),
        _ = terminate.recv() => {}
    }
}
