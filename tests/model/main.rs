//! The handshake, explored: one backend that leaves and two load balancers, of which the
//! steady one may crash and come back at every step, a clock that may jump to the next
//! bound at any time; for one broken rule a backend that joins as well.
//!
//! What decides is the daemons' own code: `register::drain::Wait` and
//! `confsync::quiescence::Quiescence`. Around it is the smallest world that can go
//! wrong: [`world`]. A rule broken on purpose must be found out: [`Rule`].

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a step that fails, fails its test"
)]

mod search;
mod world;

use search::{Found, explore};
use world::Rule;

#[track_caller]
fn holds(crashes: [u8; 2]) -> usize {
    match explore(None, crashes) {
        Found::Nothing { states, confirmed } => {
            assert!(confirmed > 0, "no drain was ever confirmed");
            states
        }
        Found::Violation { why, steps } => panic!("{why}\n{}", steps.join("\n")),
    }
}

#[track_caller]
fn is_found_out(rule: Rule) {
    let crashes = match rule {
        Rule::LostIsGone | Rule::AckBeforeProof => [1, 0],
        _ => [0, 0],
    };
    match explore(Some(rule), crashes) {
        Found::Nothing { states, .. } => {
            panic!("{rule:?} is broken, and {states} states show nothing")
        }
        Found::Violation { why, steps } => println!("{rule:?}: {why}\n  {}", steps.join("\n  ")),
    }
}

#[test]
fn nobody_stops_while_somebody_routes_to_it_unnamed_and_every_wait_ends() {
    // With crashes of both it takes long: MODEL_CRASHES=both.
    let both = std::env::var("MODEL_CRASHES").is_ok_and(|text| text == "both");
    for crashes in if both { vec![[1, 1]] } else { vec![[0, 0], [1, 0]] } {
        let states = holds(crashes);
        println!("{states} states with {crashes:?} crashes");
        assert!(states > 1_000, "{states} states are too few to mean anything");
    }
}

#[test]
fn reading_before_joining_is_found_out() {
    is_found_out(Rule::ReadBeforeJoin);
}

#[test]
fn acknowledging_before_old_workers_shut_down_is_found_out() {
    is_found_out(Rule::AckAtSignal);
}

#[test]
fn not_waiting_for_quiesced_is_found_out() {
    is_found_out(Rule::StopAtApplied);
}

#[test]
fn taking_the_lost_for_gone_is_found_out() {
    is_found_out(Rule::LostIsGone);
}

#[test]
fn the_newest_but_one_is_not_quiesced_and_that_is_found_out() {
    is_found_out(Rule::QuiescedButOne);
}

#[test]
fn counting_the_words_of_an_earlier_life_is_found_out() {
    is_found_out(Rule::AckBeforeProof);
}
