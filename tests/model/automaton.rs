//! All that one load balancer can be and do, whatever the others do, as tables of
//! numbers; what backends have written is part of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use crate::balancer::{Balancer, FAULTS, Keys, Name};
use crate::setup::{Etcd, Role, Setup};

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
        !FAULTS.contains(&self.name)
    }
}

impl Situation {
    /// Nothing is left to do unless something breaks.
    pub(crate) fn is_settled(&self) -> bool {
        !self.moves.iter().any(Move::is_certain)
    }
}

impl Automaton {
    pub(crate) fn of(setup: &Setup) -> Self {
        let mut interner = Interner::default();
        let first = [Balancer::steady(), Balancer::starting()];
        let first = first.map(|balancer| interner.number((balancer, Etcd::FIRST)));
        let mut all = Vec::new();
        while let Some((balancer, etcd)) = interner.at(all.len()) {
            let moves = balancer.steps(setup, etcd);
            let moves = moves.map(|(name, to)| Move { name, to: interner.number((to, etcd)) });
            all.push(Situation {
                keys: balancer.keys,
                etcd,
                routes_as_before: balancer.routes_as_before(setup),
                moves: moves.collect(),
                looked_at: interner.number((balancer.looked_at(), etcd)),
                written: Role::BOTH.map(|role| {
                    interner.number((balancer.clone(), etcd.write(role).unwrap_or(etcd)))
                }),
            });
        }
        Self { first, all }
    }

    pub(crate) fn get(&self, number: Number) -> &Situation {
        &self.all[number as usize]
    }
}

/// Each distinct value once, by number.
pub(crate) struct Interner<T> {
    numbers: HashMap<Rc<T>, Number>,
    all: Vec<Rc<T>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), all: Vec::new() }
    }
}

impl<T: Eq + Hash + Clone> Interner<T> {
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
