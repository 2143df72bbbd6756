//! Two load balancers, etcd and one who waits, put together. The parts are tables, so
//! that a [`State`] is three numbers, and millions of them fit.

use std::rc::Rc;

use foldhash::{HashMap, HashMapExt};
use register::handshake::{DrainResult, HandshakeResult};
use tokio::time::Instant;

use crate::automaton::{Automaton, Interner, Number, Situation};
use crate::setup::{Role, Setup};
use crate::waiter::{Waiter, Waiting, names};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    waiter: Number,
    lbs: [Number; 2],
}

/// When the wait is over the load balancers have nothing in common any more, and each
/// is looked at alone.
const NOBODY: Number = Number::MAX;

pub(crate) struct World {
    setup: Setup,
    start: Instant,
    lbs: Automaton,
    /// The keys of each situation, numbered.
    keys: Vec<Number>,
    waiters: Interner<Waiter>,
    /// Where a look at these keys, or the clock, leads.
    known: HashMap<(Number, Option<[Number; 2]>), After>,
    pub(crate) confirmed: usize,
}

/// Where a step of the wait leads.
#[derive(Clone)]
enum After {
    Waiting(Number),
    Over(Rc<HandshakeResult>),
}

pub(crate) type Steps = Vec<(Step, State)>;

/// What happened, of which load balancer or of none; and how the wait ended by it.
pub(crate) struct Step {
    which: Option<usize>,
    name: &'static str,
    verdict: Option<Rc<HandshakeResult>>,
}

impl World {
    pub(crate) fn new(setup: Setup, lbs: Automaton) -> (Self, State) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let start = runtime.block_on(async { Instant::now() });
        let mut waiters = Interner::default();
        let first = State { waiter: waiters.number(Waiter::Before), lbs: lbs.first };
        let mut keys = Interner::default();
        let keys = lbs.all.iter().map(|lb| keys.number(lb.keys)).collect();
        let known = HashMap::new();
        (Self { setup, start, lbs, keys, waiters, known, confirmed: 0 }, first)
    }

    /// Everything that may happen next, or what must not be.
    pub(crate) fn steps(&mut self, state: State, steps: &mut Steps) -> Result<(), String> {
        self.of_load_balancers(state, steps);
        self.of_backends(state, steps)?;
        if let Waiter::Waiting(_) = self.waiters.get(state.waiter) {
            let (looked, ends) = self.look(state, steps)?;
            // Without another backend, who keeps its last file waits for the clock.
            let no_backend = self.here(state).any(|(_, lb)| lb.etcd.backends == 0);
            let alone = self.setup.keeps_last && no_backend;
            let settled = self.here(state).all(|(_, lb)| lb.is_settled());
            if looked == state && !ends && settled && !alone {
                return Err("nothing but the clock can end this wait".to_owned());
            }
            self.time_passes(state, steps)?;
        }
        self.judge(state)
    }

    fn here(&self, state: State) -> impl Iterator<Item = (usize, &Situation)> {
        let lbs = state.lbs.into_iter().enumerate().filter(|(_, lb)| *lb != NOBODY);
        lbs.map(|(which, lb)| (which, self.lbs.get(lb)))
    }

    fn of_load_balancers(&self, state: State, steps: &mut Steps) {
        for (which, lb) in self.here(state) {
            for own in &lb.moves {
                let mut after = state;
                after.lbs[which] = own.to;
                let step = Step { which: Some(which), name: own.name, verdict: None };
                steps.push((step, after));
            }
        }
    }

    fn of_backends(&mut self, state: State, steps: &mut Steps) -> Result<(), String> {
        let Some((_, lb)) = self.here(state).next() else { return Ok(()) };
        let etcd = lb.etcd;
        for (by, role) in Role::BOTH.into_iter().enumerate() {
            let Some(etcd) = etcd.write(role) else { continue };
            let written = |lb| if lb == NOBODY { lb } else { self.lbs.get(lb).written[by] };
            let mut after = State { lbs: state.lbs.map(written), ..state };
            if role == self.setup.role {
                let waiting = Waiting::begin(&self.setup, etcd, self.start);
                waiting.judge()?;
                after.waiter = self.waiters.number(Waiter::Waiting(Box::new(waiting)));
            }
            let name = ["the leaver removes its key", "the joiner registers"][by];
            steps.push((Step { which: None, name, verdict: None }, after));
        }
        Ok(())
    }

    /// What is seen then, and whether that ends the wait.
    fn look(&mut self, state: State, steps: &mut Steps) -> Result<(State, bool), String> {
        let lbs = state.lbs.map(|lb| self.lbs.get(lb).looked_at);
        let keys = state.lbs.map(|lb| self.lbs.get(lb).keys);
        let numbers = state.lbs.map(|lb| self.keys[lb as usize]);
        let after = self.wait((state.waiter, Some(numbers)), |waiting| waiting.look(keys))?;
        let ends = matches!(after, After::Over(_));
        let name = "the one who waits looks at members and acknowledgements";
        Ok((self.go_on(name, State { lbs, ..state }, after, steps), ends))
    }

    fn time_passes(&mut self, state: State, steps: &mut Steps) -> Result<(), String> {
        let after = self.wait((state.waiter, None), Waiting::time_passes)?;
        self.go_on("time passes to the next bound", state, after, steps);
        Ok(())
    }

    fn wait(
        &mut self,
        at: (Number, Option<[Number; 2]>),
        step: impl FnOnce(&mut Waiting) -> Option<HandshakeResult>,
    ) -> Result<After, String> {
        if let Some(known) = self.known.get(&at) {
            return Ok(known.clone());
        }
        let Waiter::Waiting(waiting) = self.waiters.get(at.0) else {
            return Err("who does not wait was asked".to_owned());
        };
        let mut waiting = Waiting::clone(waiting);
        let after = if let Some(verdict) = step(&mut waiting) {
            waiting.judge_end(&verdict)?;
            After::Over(Rc::new(verdict))
        } else {
            waiting.judge()?;
            After::Waiting(self.waiters.number(Waiter::Waiting(Box::new(waiting))))
        };
        self.known.insert(at, after.clone());
        Ok(after)
    }

    fn go_on(
        &mut self,
        name: &'static str,
        state: State,
        after: After,
        steps: &mut Steps,
    ) -> State {
        let verdict = match after {
            After::Over(verdict) => verdict,
            After::Waiting(waiter) => {
                let next = State { waiter, ..state };
                steps.push((Step { which: None, name, verdict: None }, next));
                return next;
            }
        };
        self.confirmed += usize::from(verdict.summary() == DrainResult::Confirmed);
        for which in [0, 1] {
            let named = names(&verdict, which);
            let mut alone = State { waiter: self.waiters.number(Waiter::Over { named }), ..state };
            alone.lbs[1 - which] = NOBODY;
            steps.push((Step { which: None, name, verdict: Some(Rc::clone(&verdict)) }, alone));
        }
        state
    }

    /// A load balancer that was not named has dropped the leaver, or has taken the joiner.
    fn judge(&self, state: State) -> Result<(), String> {
        let Waiter::Over { named: false } = self.waiters.get(state.waiter) else { return Ok(()) };
        match self.here(state).find(|(_, lb)| lb.routes_as_before) {
            Some((which, _)) => Err(format!("lb-{which} was not named, and it routes as before")),
            None => Ok(()),
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(which) = self.which {
            write!(f, "lb-{which} ")?;
        }
        f.write_str(self.name)?;
        match &self.verdict {
            Some(verdict) => write!(f, ": `{verdict}`"),
            None => Ok(()),
        }
    }
}
