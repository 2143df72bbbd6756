//! Faults drawn by a seeded plan, several at a time, while requests flow and backends come
//! and go: `make soak` for long, the scenario `faults` for a moment.
//!
//! * [`plan`] says which faults come together and how long they last; pure, by its seed alone.
//! * [`world`] is a cluster of three etcd members behind lines that can be cut, five backends
//!   with a sidekick each, and two load balancers.
//! * [`act`] carries a fault out and ends it; [`judge`] says what is broken.
//! * [`reads`] are readers of etcd, and the judge of what they saw.
//!
//! What must hold, after each round and where it can be seen at every moment:
//!
//! * no request fails: at every moment there is a backend that could have served it;
//! * the file of each load balancer is one that nginx accepts, and names only backends that
//!   there are;
//! * within a bound after the last fault each load balancer routes to exactly the backends that
//!   are up, and etcd has their keys and no other;
//! * what our client sees of etcd is what was written: revisions only grow, no event is lost,
//!   each picture was true at its revision;
//! * processes that nobody killed do not grow: descriptors, threads, memory.

#![expect(clippy::indexing_slicing, reason = "the plan draws only numbers that there are")]

pub mod act;
pub mod history;
pub mod judge;
pub mod plan;
pub mod reads;
pub mod world;

use std::time::{Duration, Instant};

use crate::lab::Lab;
use history::History;
use plan::Plan;
use reads::Readers;
use world::World;

/// What a run did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Rounds of faults, each ended by a look at everything.
    pub rounds: usize,
    /// Faults that began and ended.
    pub faults: usize,
    /// Requests that were answered well; no other ones were made.
    pub requests: u64,
    /// What readers of etcd saw, each judged by what was written.
    pub observations: usize,
    /// The longest from the last fault of a round until everything was right.
    pub slowest: Duration,
    /// The most memory that a load balancer's daemon used in the end, in KiB.
    pub memory_kib: u64,
}

/// Goes on with rounds of faults until `enough` says so, given the rounds that are over.
///
/// # Panics
/// At the first violation, with the seed and the history.
pub async fn run(seed: u64, enough: impl Fn(usize) -> bool) -> Tally {
    let history = History::new(seed);
    let lab = Lab::new();
    let world = World::start(&lab).await;
    let watch = judge::Watch::start(&world);
    let mut readers = Readers::start(&world.members, &world.lines).await;
    world.converged(&history).await;
    let before = judge::Footprint::of(&world);
    let mut tally = Tally::default();
    for round in Plan::new(seed) {
        if enough(tally.rounds) {
            break;
        }
        history.round(tally.rounds, &round);
        act::carry_out(&world, &round, &history).await;
        let since = Instant::now();
        world.converged(&history).await;
        let took = since.elapsed();
        watch.assert_nothing_lost(&history);
        readers.judge(&world.members).await;
        tally.rounds += 1;
        tally.faults += round.len();
        tally.slowest = tally.slowest.max(took);
        history.note(format!("right again after {took:.1?}; {} requests", watch.requests()));
    }
    let after = judge::Footprint::of(&world);
    after.assert_like(&before, &history);
    tally.observations = readers.judged;
    tally.memory_kib = after.memory_kib;
    tally.requests = watch.stop().await;
    tally
}
