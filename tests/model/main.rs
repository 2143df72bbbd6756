//! The handshake, explored to its end: a backend that leaves, a backend that joins, and two
//! load balancers, of which each may crash, die, be stopped or be cut off at every step, and
//! comes back at any; a clock that may jump to the next bound at any time.
//!
//! What decides is the daemons' own code: `register::drain::Wait` and
//! `confsync::apply::quiescence::Quiescence`. Around it is the smallest world that can go
//! wrong. A rule broken on purpose must be found out: [`Rule`].

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a step that fails, fails its test"
)]

mod automaton;
mod balancer;
mod lump;
mod scene;
mod search;
mod waiter;
mod world;

use automaton::Automaton;
use balancer::{HARM, Name};
use scene::{LEAVER, Rule, Scene, Whose};
use search::{Found, explore};

#[track_caller]
fn holds(scene: Scene) {
    let all = Automaton::of(&scene);
    let lbs = all.lumped();
    let of_one = format!("{} (of {}) of a load balancer", lbs.all.len(), all.all.len());
    match explore(scene, lbs) {
        Found::Nothing { states, confirmed } => {
            println!("{states} states, {of_one}: {scene:?}");
            assert!(states > 1_000, "{states} states are too few to mean anything");
            assert!(confirmed > 0, "nothing was ever confirmed");
        }
        Found::Violation { why, steps } => panic!("{why}\n{}", steps.join("\n")),
    }
}

/// Step by step, for the shortest story; and among the lumps, which are to hide nothing.
#[track_caller]
fn is_found_out(rule: Rule, scene: Scene, wrong: &str) {
    let scene = Scene { broken: Some(rule), ..scene };
    let all = Automaton::of(&scene);
    let lumps = all.lumped();
    is_found_among(rule, explore(scene, all), wrong);
    is_found_among(rule, explore(scene, lumps), wrong);
}

#[track_caller]
fn is_found_among(rule: Rule, found: Found, wrong: &str) {
    match found {
        Found::Nothing { states, .. } => {
            panic!("{rule:?} is broken, and {states} states show nothing")
        }
        Found::Violation { why, steps } => {
            println!("{rule:?}: {why}\n  {}", steps.join("\n  "));
            assert!(why.contains(wrong), "another thing is wrong: {why}");
        }
    }
}

const ROUTES: &str = "routes as before";

/// What befalls a load balancer in one exploration: crash, death or stop; being cut off
/// besides these takes four times as long, and is asked for with `MODEL_HARM=all`.
fn harm() -> &'static [Name] {
    if std::env::var("MODEL_HARM").is_ok_and(|text| text == "all") { &HARM } else { &HARM[..3] }
}

const CUT_OFF: &[Name] = &[HARM[3]];

#[test]
fn nobody_stops_while_somebody_routes_to_it_unnamed_and_every_wait_ends() {
    holds(Scene { harm: harm(), ..Scene::of(Whose::Leaver) });
}

#[test]
fn nor_when_load_balancers_are_cut_off() {
    holds(Scene { harm: CUT_OFF, ..Scene::of(Whose::Leaver) });
}

#[test]
fn nobody_is_ready_while_somebody_unnamed_does_not_route_to_it_and_every_wait_ends() {
    holds(Scene { harm: harm(), ..Scene::of(Whose::Joiner) });
    holds(Scene { harm: CUT_OFF, ..Scene::of(Whose::Joiner) });
}

#[test]
fn a_change_that_no_template_uses_ends_a_wait_as_any_other() {
    holds(Scene { used: LEAVER, harm: harm(), ..Scene::of(Whose::Joiner) });
}

#[test]
fn reading_before_joining_is_found_out() {
    is_found_out(Rule::ReadBeforeJoin, Scene::of(Whose::Leaver), ROUTES);
}

#[test]
fn acknowledging_before_old_workers_shut_down_is_found_out() {
    is_found_out(Rule::AckAtSignal, Scene::of(Whose::Leaver), ROUTES);
    is_found_out(Rule::AckAtSignal, Scene::of(Whose::Joiner), ROUTES);
}

#[test]
fn not_waiting_for_quiesced_is_found_out() {
    is_found_out(Rule::StopAtApplied, Scene::of(Whose::Leaver), ROUTES);
}

#[test]
fn taking_the_lost_for_gone_is_found_out() {
    is_found_out(Rule::LostIsGone, Scene::of(Whose::Leaver), ROUTES);
}

#[test]
fn the_newest_but_one_is_not_quiesced_and_that_is_found_out() {
    is_found_out(Rule::QuiescedButOne, Scene::of(Whose::Leaver), ROUTES);
}

#[test]
fn counting_the_words_of_an_earlier_life_is_found_out() {
    is_found_out(Rule::AckBeforeProof, Scene::of(Whose::Leaver), ROUTES);
}

#[test]
fn saying_left_while_old_workers_finish_is_found_out() {
    is_found_out(Rule::LeftTooSoon, Scene::of(Whose::Leaver), ROUTES);
}

#[test]
fn waiting_for_an_older_revision_than_ones_own_is_found_out() {
    is_found_out(Rule::ReadyTooSoon, Scene::of(Whose::Joiner), ROUTES);
}

#[test]
fn not_acknowledging_what_changed_no_file_is_found_out() {
    let unused = Scene { used: LEAVER, ..Scene::of(Whose::Joiner) };
    is_found_out(Rule::NoopsAreSilent, unused, "nothing but the clock");
}
