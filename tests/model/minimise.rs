//! Situations of a load balancer that no outside observer can distinguish, now or ever,
//! are made one: what it does inside between two things that show is not interleaved
//! with what the other does.
//!
//! This is branching bisimulation, found by refining a partition until it is stable.
//! Put together with anything, the smaller automaton reaches what the large one does.
//! What shows: the keys in etcd, whom it routes to, what befalls it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::automaton::{Automaton, Move, Number, Situation};
use crate::balancer::Name;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Action {
    Own,
    Fault(Name),
    LookedAt,
    Written(usize),
}

/// What can be done from a situation, perhaps after steps that do not show, and to which
/// block it leads.
type Signature = BTreeSet<(Action, Number)>;

impl Automaton {
    pub(crate) fn minimised(&self) -> Self {
        let mut blocks = self.observable();
        loop {
            let signatures = self.signatures(&blocks);
            let refined = number(blocks.iter().zip(signatures));
            if count(&refined) == count(&blocks) {
                return self.quotient(&blocks);
            }
            blocks = refined;
        }
    }

    fn observable(&self) -> Vec<Number> {
        number(self.all.iter().map(|s| (s.keys, s.etcd, s.routes_as_before)))
    }

    fn signatures(&self, blocks: &[Number]) -> Vec<Signature> {
        let mut known = vec![None; self.all.len()];
        for at in 0..self.all.len() {
            self.signature(at, blocks, &mut known);
        }
        known.into_iter().flatten().collect()
    }

    /// Own steps lead to no circle: each uses up something.
    fn signature(
        &self,
        at: usize,
        blocks: &[Number],
        known: &mut [Option<Signature>],
    ) -> Signature {
        if let Some(signature) = &known[at] {
            return signature.clone();
        }
        let block = |to: Number| blocks[to as usize];
        let situation = &self.all[at];
        let mut signature = Signature::from([(Action::LookedAt, block(situation.looked_at))]);
        let written = situation.written.iter().enumerate();
        signature.extend(written.map(|(by, to)| (Action::Written(by), block(*to))));
        for step in &situation.moves {
            match action(step) {
                Action::Own if block(step.to) == blocks[at] => {
                    signature.extend(self.signature(step.to as usize, blocks, known));
                }
                action => {
                    signature.insert((action, block(step.to)));
                }
            }
        }
        known[at] = Some(signature.clone());
        signature
    }

    fn quotient(&self, blocks: &[Number]) -> Self {
        let block = |to: Number| blocks[to as usize];
        let mut all: BTreeMap<Number, Situation> = BTreeMap::new();
        for (situation, number) in self.all.iter().zip(blocks) {
            let shows = |step: &Move| step.is_certain().then_some(step.to) != Some(*number);
            let moves = situation.moves.iter().map(|step| Move { to: block(step.to), ..*step });
            let moves: Vec<Move> = moves.filter(shows).collect();
            let class = all.entry(*number).or_insert_with(|| Situation {
                moves: Vec::new(),
                looked_at: block(situation.looked_at),
                written: situation.written.map(block),
                ..situation.clone()
            });
            class.moves.extend(moves);
        }
        for class in all.values_mut() {
            class.moves.sort_unstable_by_key(|step| (action(step), step.to));
            class.moves.dedup_by_key(|step| (action(step), step.to));
        }
        Self { first: self.first.map(block), all: all.into_values().collect() }
    }
}

fn action(step: &Move) -> Action {
    if step.is_certain() { Action::Own } else { Action::Fault(step.name) }
}

/// The same number for what is the same, from zero on.
fn number<T: Eq + std::hash::Hash>(all: impl Iterator<Item = T>) -> Vec<Number> {
    let mut numbers = HashMap::new();
    let numbered = all.map(|what| {
        let next = Number::try_from(numbers.len()).unwrap();
        *numbers.entry(what).or_insert(next)
    });
    numbered.collect()
}

fn count(blocks: &[Number]) -> usize {
    blocks.iter().max().map_or(0, |most| *most as usize + 1)
}
