//! Breadth first through every interleaving; each state is looked at once.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::world::{Rule, World};

pub(crate) enum Found {
    /// All states were seen; so many of them, and so many with a confirmed drain.
    Nothing { states: usize, confirmed: usize },
    /// The shortest way to a state that must not be.
    Violation { why: String, steps: Vec<String> },
}

/// More states than this are a mistake in the model.
const MOST: usize = 3_000_000;

pub(crate) fn explore(rule: Option<Rule>, crashes: [u8; 2]) -> Found {
    let first = World::new(rule, crashes);
    let mut seen = HashSet::from([digest(&first)]);
    // Where each state came from, to tell the way.
    let mut from: Vec<(usize, String)> = vec![(0, "at the start".to_owned())];
    let mut queue = VecDeque::from([(0, first)]);
    let mut confirmed = 0;
    while let Some((at, world)) = queue.pop_front() {
        if let Err(why) = world.judge() {
            return Found::Violation { why, steps: way(&from, at) };
        }
        confirmed += usize::from(world.is_confirmed());
        for (step, next) in world.steps() {
            if seen.insert(digest(&next)) {
                assert!(seen.len() < MOST, "the model does not end");
                from.push((at, step));
                queue.push_back((from.len() - 1, next));
            }
        }
    }
    Found::Nothing { states: seen.len(), confirmed }
}

fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn way(from: &[(usize, String)], mut at: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while at != 0 {
        let (before, step) = &from[at];
        steps.push(step.clone());
        at = *before;
    }
    steps.reverse();
    steps
}
