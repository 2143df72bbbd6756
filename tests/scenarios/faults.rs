//! Faults by a seeded plan, several at a time, while requests flow: none is lost, no file is
//! ever broken, and everything is right again after each round. `make soak` goes on for long.
//!
//! `FAULTS_SEED` and `FAULTS_ROUNDS` repeat a run, `FAULTS_ALOUD=1` prints it as it comes.

use tests::faults;

use crate::chaos::times;

#[tokio::test(flavor = "multi_thread")]
async fn faults_lose_nothing() {
    let seed = times("FAULTS_SEED", fastrand::usize(..1_000_000)) as u64;
    let rounds = times("FAULTS_ROUNDS", 4);
    let tally = faults::run(seed, |round| round >= rounds).await;
    // A round may change little: one sidekick that is killed, and its key outlives that.
    let seen = tally.requests > 100 && tally.observations > rounds;
    assert!(tally.faults >= rounds && seen, "seed {seed}: {tally:?}");
}
