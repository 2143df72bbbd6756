//! What a worker of nginx does: it looks at the table, chooses, counts, looks again, and sends.

use super::{Exploration, KEPT, MembershipRule, Moment, Stored};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Worker {
    /// Not started, or killed.
    Gone,
    Idle,
    /// It has looked at the head.
    Looked {
        sequence: u32,
        members: u32,
    },
    /// It has chosen the leaver.
    Chosen {
        sequence: u32,
    },
    Counted {
        sequence: u32,
    },
    /// It has looked again, and has not counted yet: only if that rule is broken.
    Checked,
    /// The leaver has its request.
    Sent,
}

impl Exploration {
    pub(super) fn of_worker(&self, moment: &Moment, me: usize, steps: &mut Vec<(String, Moment)>) {
        let mut step = |what: &str, worker: Worker, count: Option<u8>| {
            if count.is_some() && moment.kept[me].len() == KEPT {
                return; // until one of them is seen
            }
            let mut next = moment.clone();
            next.workers[me] = worker;
            next.kept[me].extend(count.map(|count| Stored::Count(me, count)));
            steps.push((format!("worker {me} {what}"), next));
        };
        let count_first = !self.breaks(MembershipRule::CountLast);
        match moment.workers[me] {
            Worker::Gone if moment.started < 1 => {
                let mut next = moment.clone();
                next.workers[me] = Worker::Idle;
                next.started += 1;
                // It clears its column when it takes it, before anything else.
                next.memory.counts[me] = 0;
                steps.push((format!("worker {me} starts"), next));
            }
            Worker::Gone => {}
            Worker::Idle => {
                let head = Self::head(moment);
                let members = head.classes[0].members;
                step("looks", Worker::Looked { sequence: head.sequence, members }, None);
            }
            Worker::Looked { sequence, members } => {
                for position in 0..members {
                    let slot = moment.memory.order[&(0, position)];
                    let member =
                        moment.memory.states[&slot] == 1 || self.breaks(MembershipRule::OldLists);
                    // A request to the other one is nobody's concern here.
                    if slot == self.leaver && member {
                        step("chooses the leaver", Worker::Chosen { sequence }, None);
                    }
                }
                step("chooses another", Worker::Idle, None);
            }
            Worker::Chosen { sequence } if count_first => {
                step("counts", Worker::Counted { sequence }, Some(1));
            }
            Worker::Chosen { sequence } => match Self::head(moment).sequence == sequence {
                true => step("looks again", Worker::Checked, None),
                false => step("looks again, in vain", Worker::Idle, None),
            },
            Worker::Checked => step("counts, and sends the request", Worker::Sent, Some(1)),
            Worker::Counted { sequence } => {
                let same = Self::head(moment).sequence == sequence;
                let once =
                    self.breaks(MembershipRule::LookOnce) || self.breaks(MembershipRule::OldLists);
                match same || once {
                    true => step("sends the request", Worker::Sent, None),
                    false => step("takes its count back", Worker::Idle, Some(0)),
                }
            }
            Worker::Sent => step("has its answer", Worker::Idle, Some(0)),
        }
        if moment.workers[me] != Worker::Gone && moment.killed < 1 {
            let mut next = moment.clone();
            next.workers[me] = Worker::Gone;
            next.killed += 1;
            // The system sees to what it has stored before it gives up its lock.
            while let Some(stored) = next.kept[me].pop_front() {
                self.store(&mut next.memory, stored);
            }
            steps.push((format!("worker {me} is killed"), next));
        }
    }
}
