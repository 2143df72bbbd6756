//! The handshake, explored to its end: a backend that leaves, a backend that joins, and two
//! load balancers, of which each may crash, die, be stopped or be cut off at every step, and
//! comes back at any; a clock that may jump to the next bound at any time.
//!
//! What decides is the daemons' own code: `register::handshake::LoadBalancerWait` and
//! `confsync::apply::quiescence::Quiescence`. Around it is the smallest world that can go
//! wrong. A rule broken on purpose must be detected: [`Rule`].

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a step that fails, fails its test"
)]

mod automaton;
mod balancer;
mod exhaustive;
mod haproxy;
mod membership;
mod minimise;
mod search;
mod setup;
mod waiter;
mod world;

use automaton::Automaton;
use balancer::{FAULTS, Name};
use search::{Found, explore};
use setup::{LEAVER, Role, Rule, Setup};

#[track_caller]
fn holds(setup: Setup) {
    assert!(explored(setup) > 0, "nothing was ever confirmed");
}

/// How often a wait was confirmed.
#[track_caller]
fn explored(setup: Setup) -> usize {
    let all = Automaton::of(&setup);
    let lbs = all.minimised();
    let of_one = format!("{} (of {}) of a load balancer", lbs.all.len(), all.all.len());
    match explore(setup, lbs) {
        Found::Nothing { states, confirmed } => {
            println!("{states} states, {of_one}: {setup:?}");
            assert!(states > 1_000, "{states} states are too few to mean anything");
            confirmed
        }
        Found::Violation { why, steps } => panic!("{why}\n{}", steps.join("\n")),
    }
}

/// In the full automaton, for the shortest trace; and in the minimised one, which must hide nothing.
#[track_caller]
fn is_detected(rule: Rule, setup: Setup, wrong: &str) {
    let setup = Setup { broken: Some(rule), ..setup };
    let all = Automaton::of(&setup);
    let minimised = all.minimised();
    is_detected_in(rule, explore(setup, all), wrong);
    is_detected_in(rule, explore(setup, minimised), wrong);
}

#[track_caller]
fn is_detected_in(rule: Rule, found: Found, wrong: &str) {
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
/// besides these takes four times as long, and is asked for with `MODEL_FAULTS=all`.
fn faults() -> &'static [Name] {
    if std::env::var("MODEL_FAULTS").is_ok_and(|text| text == "all") {
        &FAULTS
    } else {
        &FAULTS[..3]
    }
}

const CUT_OFF: &[Name] = &[FAULTS[3]];

#[test]
fn no_backend_stops_while_an_unnamed_load_balancer_routes_to_it_and_every_wait_ends() {
    holds(Setup { faults: faults(), ..Setup::of(Role::Leaver) });
}

#[test]
fn nor_when_load_balancers_are_cut_off() {
    holds(Setup { faults: CUT_OFF, ..Setup::of(Role::Leaver) });
}

#[test]
fn no_backend_is_ready_while_an_unnamed_load_balancer_does_not_route_to_it_and_every_wait_ends() {
    holds(Setup { faults: faults(), ..Setup::of(Role::Joiner) });
    holds(Setup { faults: CUT_OFF, ..Setup::of(Role::Joiner) });
}

#[test]
fn a_change_that_no_template_uses_ends_a_wait_as_any_other() {
    holds(Setup { used: LEAVER, faults: faults(), ..Setup::of(Role::Joiner) });
}

#[test]
fn a_load_balancer_that_keeps_its_last_file_is_named_until_another_backend_comes() {
    holds(Setup { keeps_last: true, faults: faults(), ..Setup::of(Role::Leaver) });
    holds(Setup { keeps_last: true, faults: faults(), ..Setup::of(Role::Joiner) });
}

#[test]
fn a_load_balancer_that_knows_its_proxy_by_commands_is_named() {
    let by_commands = Setup { by_commands: true, ..Setup::of(Role::Leaver) };
    assert_eq!(explored(Setup { faults: &[], ..by_commands }), 0, "nothing is proven");
    explored(Setup { faults: faults(), ..by_commands });
}

#[test]
fn calling_confirmed_what_is_assumed_is_detected() {
    let by_commands = Setup { by_commands: true, ..Setup::of(Role::Leaver) };
    is_detected(Rule::AssumedIsConfirmed, by_commands, ROUTES);
}

#[test]
fn acknowledging_a_change_while_the_last_file_is_kept_is_detected() {
    let keeps_last = Setup { keeps_last: true, ..Setup::of(Role::Leaver) };
    is_detected(Rule::KeptIsApplied, keeps_last, ROUTES);
}

#[test]
fn reading_before_joining_is_detected() {
    is_detected(Rule::ReadBeforeJoin, Setup::of(Role::Leaver), ROUTES);
}

#[test]
fn acknowledging_before_old_workers_shut_down_is_detected() {
    is_detected(Rule::AckAtSignal, Setup::of(Role::Leaver), ROUTES);
    is_detected(Rule::AckAtSignal, Setup::of(Role::Joiner), ROUTES);
}

#[test]
fn not_waiting_for_quiesced_is_detected() {
    is_detected(Rule::StopAtApplied, Setup::of(Role::Leaver), ROUTES);
}

#[test]
fn taking_lost_members_for_departed_is_detected() {
    is_detected(Rule::LostIsGone, Setup::of(Role::Leaver), ROUTES);
}

#[test]
fn the_newest_but_one_is_not_quiesced_and_that_is_detected() {
    is_detected(Rule::QuiescedButOne, Setup::of(Role::Leaver), ROUTES);
}

#[test]
fn counting_acknowledgements_of_an_earlier_instance_is_detected() {
    is_detected(Rule::AckBeforeProof, Setup::of(Role::Leaver), ROUTES);
}

#[test]
fn saying_left_while_old_workers_finish_is_detected() {
    is_detected(Rule::LeftTooSoon, Setup::of(Role::Leaver), ROUTES);
}

#[test]
fn waiting_for_an_older_revision_than_ones_own_is_detected() {
    is_detected(Rule::ReadyTooSoon, Setup::of(Role::Joiner), ROUTES);
}

#[test]
fn not_acknowledging_what_changed_no_file_is_detected() {
    let unused = Setup { used: LEAVER, ..Setup::of(Role::Joiner) };
    is_detected(Rule::NoopsAreSilent, unused, "nothing but the clock");
}
