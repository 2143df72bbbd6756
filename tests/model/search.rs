//! Breadth first through every interleaving; each state is looked at once.

use foldhash::{HashSet, HashSetExt};

use crate::automaton::Automaton;
use crate::setup::Setup;
use crate::world::{State, World};

pub(crate) enum Found {
    /// All states were seen; so many of them, and so often a wait was confirmed.
    Nothing { states: usize, confirmed: usize },
    /// The shortest trace to a state that must not be.
    Violation { why: String, steps: Vec<String> },
}

/// More states than this are a mistake in the model.
const MOST: usize = 50_000_000;

pub(crate) fn explore(setup: Setup, lbs: Automaton) -> Found {
    let (mut world, first) = World::new(setup, lbs);
    let mut seen = HashSet::new();
    seen.insert(first);
    let mut steps = Vec::new();
    // In the order of the search, and where each came from, to reconstruct the trace.
    let (mut all, mut from) = (vec![first], vec![0]);
    let mut at = 0;
    while at < all.len() {
        if let Err(why) = world.steps(all[at], &mut steps) {
            return Found::Violation { why, steps: trace(&mut world, &all, &from, at) };
        }
        for (_, next) in steps.drain(..) {
            if seen.insert(next) {
                all.push(next);
                from.push(u32::try_from(at).unwrap());
            }
        }
        assert!(all.len() < MOST, "the model does not end");
        at += 1;
    }
    Found::Nothing { states: all.len(), confirmed: world.confirmed }
}

fn trace(world: &mut World, all: &[State], from: &[u32], mut at: usize) -> Vec<String> {
    let mut trace = Vec::new();
    while at != 0 {
        let before = from[at] as usize;
        let mut steps = Vec::new();
        // What led on from there was found without a fault.
        let _ = world.steps(all[before], &mut steps);
        let step = steps.into_iter().find(|(_, next)| *next == all[at]);
        trace.extend(step.map(|(step, _)| step.to_string()));
        at = before;
    }
    trace.reverse();
    trace
}
