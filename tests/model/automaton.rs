//! All that one load balancer can be and do, whatever the others do, as tables of
//! numbers; what backends have written is part of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use crate::balancer::{Balancer, HARM, Keys, Name};
use crate::scene::{Etcd, Scene, Whose};

/// Few enough that many of them fit; one more is a panic.
pub(crate) type Number = u16;

#[derive(Default)]
pub(crate) struct Automaton {
    /// The steady load balancer and the starting one.
    pub(crate) first: [Number; 2],
    pub(crate) all: Vec<Situation>,
}

/// What one load balancer is like, and what becomes of it.
#[derive(Clone)]
pub(crate) struct Situation {
    pub(crate) keys: Keys,
    pub(crate) etcd: Etcd,
    pub(crate) routes_as_before: bool,
    /// Its own steps.
    pub(crate) moves: Vec<Move>,
    /// When the one who waits looks at it.
    pub(crate) looked_at: Number,
    /// When the leaver, or the joiner, writes; itself if that was.
    pub(crate) written: [Number; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Move {
    pub(crate) name: Name,
    pub(crate) to: Number,
}

impl Move {
    /// Whether it comes without being helped, sooner or later.
    pub(crate) fn is_certain(&self) -> bool {
        !HARM.contains(&self.name)
    }
}

impl Situation {
    /// Nothing is left to do unless something breaks.
    pub(crate) fn is_settled(&self) -> bool {
        !self.moves.iter().any(Move::is_certain)
    }
}

impl Automaton {
    pub(crate) fn of(scene: &Scene) -> Self {
        let mut met = Met::default();
        let first = [Balancer::steady(), Balancer::starting()];
        let first = first.map(|balancer| met.number((balancer, Etcd::FIRST)));
        let mut all = Vec::new();
        while let Some((balancer, etcd)) = met.at(all.len()) {
            let moves = balancer.steps(scene, etcd);
            let moves = moves.map(|(name, to)| Move { name, to: met.number((to, etcd)) });
            all.push(Situation {
                keys: balancer.keys,
                etcd,
                routes_as_before: balancer.routes_as_before(scene),
                moves: moves.collect(),
                looked_at: met.number((balancer.looked_at(), etcd)),
                written: Whose::BOTH
                    .map(|whose| met.number((balancer.clone(), etcd.write(whose).unwrap_or(etcd)))),
            });
        }
        Self { first, all }
    }

    pub(crate) fn get(&self, number: Number) -> &Situation {
        &self.all[number as usize]
    }
}

/// Everything of one kind that was met, by number.
pub(crate) struct Met<T> {
    numbers: HashMap<Rc<T>, Number>,
    all: Vec<Rc<T>>,
}

impl<T> Default for Met<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), all: Vec::new() }
    }
}

impl<T: Eq + Hash + Clone> Met<T> {
    pub(crate) fn number(&mut self, what: T) -> Number {
        if let Some(number) = self.numbers.get(&what) {
            return *number;
        }
        let number = Number::try_from(self.all.len()).unwrap();
        let what = Rc::new(what);
        self.numbers.insert(Rc::clone(&what), number);
        self.all.push(what);
        number
    }

    fn at(&self, index: usize) -> Option<T> {
        self.all.get(index).map(|what| T::clone(what))
    }

    pub(crate) fn get(&self, number: Number) -> &T {
        &self.all[number as usize]
    }
}
