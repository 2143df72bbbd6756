//! Up to which revision no worker is left that began before it.
//!
//! Pure: the caller reports loads, and says which processes are alive.

use common::model::Revision;
use tokio::time::Instant;

use crate::proxy::nginx::ProcessId;
use crate::proxy::pools::DepartedMember;

/// What is known of older generations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Quiescence {
    /// The newest revision that is active: what a load retires knows all up to here.
    active: Revision,
    retiring: Vec<Retiring>,
    reached: Revision,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Retiring {
    /// Its workers serve by every change up to here, and by no later one: a load may carry many
    /// changes at once.
    knows: Revision,
    until: RetiredUntil,
}

/// How long an older generation may serve requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RetiredUntil {
    /// Until these are gone.
    Gone(Vec<ProcessId>),
    /// Until nothing is in flight to these, which the running workers send nothing new to.
    Drained(Vec<DepartedMember>),
    /// It cannot be observed; until this instant.
    Instant(Instant),
    /// Until a command has confirmed it for the load of this number, or a later one.
    Confirmed(u64),
    /// As long as those that the next load retires.
    NextLoad,
}

impl Quiescence {
    /// What is active knows every change up to `revision`, without another load.
    pub fn note_active(&mut self, revision: Revision) {
        self.active = revision;
    }

    /// A load retired workers.
    pub fn retire(&mut self, until: RetiredUntil) {
        if !matches!(until, RetiredUntil::Drained(_)) {
            let waiting = self.retiring.iter_mut().filter(|r| r.until == RetiredUntil::NextLoad);
            waiting.for_each(|waiting| waiting.until = until.clone());
        }
        self.retiring.push(Retiring { knows: self.active, until });
    }

    /// A command has confirmed that nothing of before the load of this number is left.
    pub fn confirmed(&mut self, number: u64) {
        self.retiring
            .retain(|r| !matches!(r.until, RetiredUntil::Confirmed(load) if load <= number));
    }

    /// Looks again. `applied`: up to where what is wanted is active, if it is.
    pub fn look(
        &mut self,
        applied: Option<Revision>,
        now: Instant,
        is_alive: impl Fn(ProcessId) -> bool,
    ) -> Revision {
        self.retiring.retain_mut(|retiring| match &mut retiring.until {
            RetiredUntil::Gone(pids) => {
                pids.retain(|id| is_alive(*id));
                !pids.is_empty()
            }
            RetiredUntil::Drained(members) => !members.is_empty(),
            RetiredUntil::Instant(at) => *at > now,
            RetiredUntil::Confirmed(_) | RetiredUntil::NextLoad => true,
        });
        if let Some(applied) = applied {
            let bound = self.retiring.iter().map(|retiring| retiring.knows).min();
            let to = bound.map_or(applied, |bound| bound.min(applied));
            self.reached = self.reached.max(to);
        }
        self.reached
    }

    /// The workers that are waited for.
    pub fn workers(&self) -> impl Iterator<Item = ProcessId> {
        self.retiring
            .iter()
            .flat_map(|retiring| match &retiring.until {
                RetiredUntil::Gone(pids) => pids.as_slice(),
                _ => &[],
            })
            .copied()
    }

    /// When the first of those has to be over of which no more is known.
    pub fn first_instant(&self) -> Option<Instant> {
        let instants = self.retiring.iter().filter_map(|retiring| match retiring.until {
            RetiredUntil::Instant(at) => Some(at),
            _ => None,
        });
        instants.min()
    }

    /// The members that left and are waited for.
    pub fn departed(&self) -> impl Iterator<Item = &DepartedMember> {
        self.retiring.iter().flat_map(|retiring| match &retiring.until {
            RetiredUntil::Drained(members) => members.as_slice(),
            _ => &[],
        })
    }

    /// Whether workers of an older generation are waited for.
    pub fn waits_for_workers(&self) -> bool {
        self.workers().next().is_some()
    }

    /// What members that left have in flight is not counted any more: the workers that may have
    /// it are waited for, which the next load retires.
    pub fn wait_for_next_load(&mut self) {
        for retiring in &mut self.retiring {
            if matches!(retiring.until, RetiredUntil::Drained(_)) {
                retiring.until = RetiredUntil::NextLoad;
            }
        }
    }

    /// Nothing is in flight to this one any more.
    pub fn drained(&mut self, member: &DepartedMember) {
        for retiring in &mut self.retiring {
            if let RetiredUntil::Drained(members) = &mut retiring.until {
                members.retain(|waited| waited != member);
            }
        }
    }

    /// etcd regressed: the revisions of before mean nothing now.
    pub fn forget(&mut self) {
        (self.active, self.reached) = (Revision::default(), Revision::default());
        self.retiring.iter_mut().for_each(|retiring| retiring.knows = Revision::default());
    }

    /// How many old generations are waited for. The workers that finish requests to members that
    /// left are those of now.
    pub fn retiring(&self) -> usize {
        let is_older = |retiring: &&Retiring| !matches!(retiring.until, RetiredUntil::Drained(_));
        self.retiring.iter().filter(is_older).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(pid: i32) -> ProcessId {
        ProcessId { pid, start: 1 }
    }

    #[tokio::test]
    async fn a_load_that_carries_many_changes_is_quiesced_for_none_of_them_before_its_end() {
        let now = Instant::now();
        let mut quiescence = Quiescence::default();
        quiescence.note_active(Revision(5));
        assert_eq!(quiescence.look(Some(Revision(5)), now, |_| false), Revision(5));
        // One load for the changes 6, 7 and 8: the old worker knows neither.
        quiescence.retire(RetiredUntil::Gone(vec![pid(1)]));
        quiescence.note_active(Revision(8));
        assert_eq!(quiescence.look(Some(Revision(8)), now, |_| true), Revision(5));
        // A no-op behind it changes nothing for that worker.
        quiescence.note_active(Revision(9));
        assert_eq!(quiescence.look(Some(Revision(9)), now, |_| true), Revision(5));
        assert_eq!(quiescence.look(Some(Revision(9)), now, |_| false), Revision(9));
    }

    #[tokio::test]
    async fn a_member_that_left_is_waited_for_and_nobody_else() {
        let now = Instant::now();
        let mut quiescence = Quiescence::default();
        quiescence.note_active(Revision(5));
        let [a, b] = [1, 2].map(|slot| DepartedMember { pool: "app".into(), slot });
        quiescence.retire(RetiredUntil::Drained(vec![a.clone()]));
        quiescence.note_active(Revision(6));
        quiescence.retire(RetiredUntil::Drained(vec![a.clone(), b.clone()]));
        quiescence.note_active(Revision(7));
        let look = |q: &mut Quiescence| q.look(Some(Revision(7)), now, |_| true);
        assert_eq!(look(&mut quiescence), Revision(5));
        quiescence.drained(&a);
        assert_eq!(look(&mut quiescence), Revision(6));
        assert_eq!(quiescence.departed().collect::<Vec<_>>(), [&b]);
        assert_eq!(quiescence.retiring(), 0, "no generation is old");
        quiescence.drained(&b);
        assert_eq!(look(&mut quiescence), Revision(7));
    }

    #[tokio::test]
    async fn a_member_that_is_not_counted_any_more_is_waited_for_with_its_workers() {
        let now = Instant::now();
        let mut quiescence = Quiescence::default();
        quiescence.note_active(Revision(5));
        let member = DepartedMember { pool: "app".into(), slot: 1 };
        quiescence.retire(RetiredUntil::Drained(vec![member.clone()]));
        quiescence.note_active(Revision(6));
        quiescence.wait_for_next_load();
        quiescence.drained(&member);
        let look = |q: &mut Quiescence, old| q.look(Some(Revision(6)), now, |_| old);
        assert_eq!(look(&mut quiescence, false), Revision(5));
        quiescence.retire(RetiredUntil::Gone(vec![pid(1)]));
        assert_eq!(look(&mut quiescence, true), Revision(5));
        assert_eq!(look(&mut quiescence, false), Revision(6));
    }

    #[tokio::test]
    async fn what_a_command_confirms_counts_for_the_loads_before() {
        let now = Instant::now();
        let mut quiescence = Quiescence::default();
        for load in 1..=3 {
            quiescence.retire(RetiredUntil::Confirmed(load));
            quiescence.note_active(Revision(load));
        }
        let mut reached = |number| {
            quiescence.confirmed(number);
            quiescence.look(Some(Revision(3)), now, |_| false).0
        };
        assert_eq!([reached(0), reached(2), reached(3)], [0, 2, 3]);
    }

    #[tokio::test]
    async fn the_oldest_worker_decides_and_what_was_reached_stays() {
        let now = Instant::now();
        let mut quiescence = Quiescence::default();
        quiescence.note_active(Revision(3));
        assert_eq!(quiescence.look(Some(Revision(3)), now, |_| false), Revision(3));
        quiescence.retire(RetiredUntil::Gone(vec![pid(1)]));
        quiescence.note_active(Revision(4));
        quiescence.retire(RetiredUntil::Gone(vec![pid(2)]));
        quiescence.note_active(Revision(5));
        let old = |id: ProcessId| id == pid(2);
        assert_eq!(quiescence.look(Some(Revision(5)), now, |_| true), Revision(3));
        assert_eq!(quiescence.look(Some(Revision(5)), now, old), Revision(4));
        assert_eq!(quiescence.look(None, now, old), Revision(4));
        quiescence.forget();
        assert_eq!(quiescence.look(Some(Revision(2)), now, old), Revision(0));
        assert_eq!(quiescence.retiring(), 1);
    }
}
