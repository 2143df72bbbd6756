//! What confsync does: it writes the table, reads the counts and acknowledges; it may die between
//! any two writes, and another run goes on from the table.

use confsync::proxy::membership::layout::{SlotRecord, SlotState};
use confsync::proxy::membership::roster::{Roster, TableWrite};

use super::worker::Worker;
use super::{Exploration, LEAVER, MembershipRule, Moment, STAYER, Stored, WORKERS};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Writer {
    /// It performs these writes, and is at this one.
    Writing {
        program: usize,
        at: usize,
    },
    /// It reads the counts.
    Reading {
        worker: usize,
    },
    /// It has acknowledged: the leaver is dead.
    Acknowledged,
    Dead,
}

impl Exploration {
    pub(super) fn of_writer(&mut self, moment: &Moment, steps: &mut Vec<(String, Moment)>) {
        let mut next = moment.clone();
        let what = match moment.writer {
            Writer::Writing { program, at } => {
                let write = self.programs[program].get(at).cloned();
                let too_soon = self.breaks(MembershipRule::ReadTooSoon)
                    && matches!(write, Some(TableWrite::Head(_)));
                next.writer = Writer::Writing { program, at: at + 1 };
                match write {
                    None => next.writer = Writer::Reading { worker: 0 },
                    Some(_) if too_soon => next.writer = Writer::Reading { worker: 0 },
                    Some(TableWrite::Barrier) if self.breaks(MembershipRule::NoBarrier) => {}
                    Some(TableWrite::Barrier) => {
                        for queue in [WORKERS, 0, 1] {
                            while let Some(stored) = next.kept[queue].pop_front() {
                                self.store(&mut next.memory, stored);
                            }
                        }
                    }
                    Some(_) => next.kept[WORKERS].push_back(Stored::Table(program, at)),
                }
                format!("confsync: {write:?}")
            }
            Writer::Reading { worker } if worker == WORKERS => {
                next.writer = Writer::Acknowledged;
                "confsync acknowledges, and the leaver dies".to_owned()
            }
            Writer::Reading { worker } => {
                let counts = moment.memory.counts[worker] > 0;
                let alive = moment.workers[worker] != Worker::Gone
                    || self.breaks(MembershipRule::CountsOfTheDead);
                next.writer =
                    Writer::Reading { worker: if counts && alive { 0 } else { worker + 1 } };
                format!("confsync reads the count of worker {worker}")
            }
            Writer::Acknowledged => return,
            Writer::Dead => {
                self.recover(&mut next);
                "confsync starts again".to_owned()
            }
        };
        steps.push((what, next));
        let alive = !matches!(moment.writer, Writer::Dead | Writer::Acknowledged);
        if alive && !moment.died {
            let mut next = moment.clone();
            next.died = true;
            // The system has every store of a process that has ended.
            while let Some(stored) = next.kept[WORKERS].pop_front() {
                self.store(&mut next.memory, stored);
            }
            next.writer = Writer::Dead;
            steps.push(("confsync dies".to_owned(), next));
        }
    }

    /// Another run finds the table as it is, and gets the same members.
    fn recover(&mut self, moment: &mut Moment) {
        let head = Self::head(moment);
        let records = (0..head.slots).map(|slot| {
            let state = [SlotState::Free, SlotState::Member, SlotState::Leaving];
            let state = state[usize::from(moment.memory.states[&slot])];
            let id = if slot == self.leaver { LEAVER } else { STAYER };
            let (host, port) = ("10.0.0.1".to_owned(), 80);
            SlotRecord { state, id, host, port, weight: 1, serial: slot + 1, joined: 0.0 }
        });
        let mut roster = Roster::recover(4, head.sequence, records.collect());
        roster.leave(&LEAVER);
        let program = roster.commit();
        let known = self.programs.iter().position(|known| *known == program);
        let program = known.unwrap_or_else(|| {
            self.programs.push(program);
            self.programs.len() - 1
        });
        moment.writer = Writer::Writing { program, at: 0 };
    }
}
