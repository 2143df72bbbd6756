//! The table of members that nginx's workers map, explored to its end: a backend leaves while
//! two workers choose, count and look again, of which one may start late (a reload) and each
//! may be killed; confsync may die between any two writes and starts again.
//!
//! The writes are those of `confsync`'s own roster. Processors keep stores back, ours and the
//! workers', until a barrier or until it pleases them. A rule broken on purpose must be
//! detected: [`MembershipRule`].

mod worker;
mod writer;

use std::collections::{BTreeMap, VecDeque};

use confsync::proxy::membership::layout::{Head, MemberId, SlotState};
use confsync::proxy::membership::roster::{Joining, Roster, TableWrite};

use crate::exhaustive::{self, Explore};
use worker::Worker;
use writer::Writer;

const LEAVER: MemberId = [1; 16];
const STAYER: MemberId = [2; 16];
const WORKERS: usize = 2;
/// A processor keeps back so many stores at most: two show every order that more would.
const KEPT: usize = 2;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MembershipRule {
    /// A worker does not look again after it has counted.
    LookOnce,
    /// A worker looks again, and counts then.
    CountLast,
    /// confsync has no barrier run.
    NoBarrier,
    /// confsync reads the counts before the head is written.
    ReadTooSoon,
    /// What a killed worker had counted goes on to count.
    CountsOfTheDead,
    /// A worker takes whatever a list names, also one that is marked as leaving, and does
    /// not look at the sequence again.
    OldLists,
}

/// The mapped files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Memory {
    head: Vec<u8>,
    states: BTreeMap<u32, u8>,
    order: BTreeMap<(usize, u32), u32>,
    /// What each worker has in flight to the leaver, as others see it.
    counts: [u8; WORKERS],
}

/// A store that others do not see yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stored {
    /// This write of this run.
    Table(usize, usize),
    /// What a worker has in flight.
    Count(usize, u8),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Moment {
    memory: Memory,
    workers: [Worker; WORKERS],
    /// Stores kept back: those of each worker, and ours.
    kept: [VecDeque<Stored>; WORKERS + 1],
    writer: Writer,
    /// How many workers were killed, and started, so far.
    killed: u8,
    started: u8,
    /// confsync died once.
    died: bool,
}

struct Exploration {
    broken: Option<MembershipRule>,
    /// The writes of each run of confsync.
    programs: Vec<Vec<TableWrite>>,
    leaver: u32,
}

fn record(who: u8) -> Joining {
    let (host, port) = (format!("10.0.0.{who}"), 80);
    Joining { id: [who; 16], host, port, weight: 1, joined: 0.0 }
}

impl Exploration {
    fn new(broken: Option<MembershipRule>) -> (Self, Moment) {
        let mut roster = Roster::empty(4);
        roster.join(record(1)).unwrap();
        roster.join(record(2)).unwrap();
        let first = roster.commit();
        let leaver = roster.slot_of(&LEAVER).unwrap();
        let mut all = Self { broken, programs: vec![first], leaver };
        let mut memory = Memory::default();
        for at in 0..all.programs[0].len() {
            all.store(&mut memory, Stored::Table(0, at));
        }
        roster.leave(&LEAVER);
        all.programs.push(roster.commit());
        let writer = Writer::Writing { program: 1, at: 0 };
        let workers = [Worker::Idle, Worker::Gone];
        let moment = Moment {
            memory,
            workers,
            kept: Default::default(),
            writer,
            killed: 0,
            started: 0,
            died: false,
        };
        (all, moment)
    }

    fn store(&self, memory: &mut Memory, stored: Stored) {
        match stored {
            Stored::Count(worker, count) => memory.counts[worker] = count,
            Stored::Table(program, at) => match &self.programs[program][at] {
                TableWrite::Record(slot, _) => drop(memory.states.insert(*slot, 0)),
                TableWrite::State(slot, state) => {
                    let byte = [SlotState::Free, SlotState::Member, SlotState::Leaving];
                    let byte = byte.iter().position(|known| known == state).unwrap();
                    memory.states.insert(*slot, u8::try_from(byte).unwrap());
                }
                TableWrite::Order { class, position, slot } => {
                    memory.order.insert((*class, *position), *slot);
                }
                TableWrite::Head(head) => memory.head = head.encode().to_vec(),
                TableWrite::Weight(..) | TableWrite::Barrier => {}
            },
        }
    }

    fn breaks(&self, rule: MembershipRule) -> bool {
        self.broken == Some(rule)
    }

    fn head(moment: &Moment) -> Head {
        Head::decode(&moment.memory.head.clone().try_into().unwrap()).unwrap()
    }

    /// Everything that may happen next.
    fn all_steps(&mut self, moment: &Moment) -> Vec<(String, Moment)> {
        let mut steps = Vec::new();
        for worker in 0..WORKERS {
            self.of_worker(moment, worker, &mut steps);
        }
        self.of_writer(moment, &mut steps);
        for queue in 0..=WORKERS {
            let mut next = moment.clone();
            if let Some(stored) = next.kept[queue].pop_front() {
                self.store(&mut next.memory, stored);
                steps.push((format!("a store of {queue} is seen: {stored:?}"), next));
            }
        }
        steps
    }

    /// What must not be.
    fn must_not_be(&self, moment: &Moment) -> Result<(), String> {
        let sent = moment.workers.contains(&Worker::Sent);
        if moment.writer == Writer::Acknowledged && sent {
            return Err("the leaver is dead, and has a request".to_owned());
        }
        Ok(())
    }
}

impl Explore for Exploration {
    type Moment = Moment;

    fn steps(&mut self, moment: &Moment) -> Vec<(String, Moment)> {
        self.all_steps(moment)
    }

    fn judge(&self, moment: &Moment) -> Result<(), String> {
        self.must_not_be(moment)
    }

    fn has_ended(&self, moment: &Moment) -> bool {
        moment.writer == Writer::Acknowledged
    }
}

fn explore(broken: Option<MembershipRule>) -> Result<usize, String> {
    let (all, first) = Exploration::new(broken);
    exhaustive::explore(all, first)
}

#[track_caller]
fn is_detected(rule: MembershipRule, wrong: &str) {
    match explore(Some(rule)) {
        Ok(moments) => panic!("{rule:?} is broken, and {moments} moments show nothing"),
        Err(why) => {
            println!("{rule:?}: {why}");
            assert!(why.starts_with(wrong), "another thing is wrong: {why}");
        }
    }
}

const HAS_A_REQUEST: &str = "the leaver is dead, and has a request";

#[test]
fn a_backend_that_was_reported_drained_never_has_a_request_and_every_drain_can_end() {
    let moments = explore(None).unwrap();
    println!("{moments} moments");
    assert!(moments > 1_000, "{moments} moments are too few to mean anything");
}

#[test]
fn a_worker_that_does_not_look_again_is_detected() {
    is_detected(MembershipRule::LookOnce, HAS_A_REQUEST);
    is_detected(MembershipRule::OldLists, HAS_A_REQUEST);
}

#[test]
fn counting_after_the_last_look_is_detected() {
    is_detected(MembershipRule::CountLast, HAS_A_REQUEST);
}

#[test]
fn doing_without_the_barrier_is_detected() {
    is_detected(MembershipRule::NoBarrier, HAS_A_REQUEST);
}

#[test]
fn reading_the_counts_before_the_head_is_written_is_detected() {
    is_detected(MembershipRule::ReadTooSoon, HAS_A_REQUEST);
}

#[test]
fn counts_of_killed_workers_hold_a_drain_up_and_that_is_detected() {
    is_detected(MembershipRule::CountsOfTheDead, "the drain is stuck");
}
