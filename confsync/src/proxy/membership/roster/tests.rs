use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::proxy::membership::layout::ClassHead;

const CAPACITY: u32 = 8;

/// The files as a worker reads them.
#[derive(Default)]
struct TableReader {
    head: Head,
    slots: BTreeMap<u32, SlotRecord>,
    order: BTreeMap<(usize, u32), u32>,
}

impl TableReader {
    fn write(&mut self, write: &TableWrite) {
        match write {
            TableWrite::Record(slot, record) => {
                let old = self.slots.insert(*slot, record.clone());
                let was_member = old.is_some_and(|old| old.state == SlotState::Member);
                // No worker looks beyond the head's bound, whatever a killed run left there.
                assert!(!was_member || *slot >= self.head.slots, "slot {slot} is in use");
            }
            TableWrite::State(slot, state) => self.slots.get_mut(slot).unwrap().state = *state,
            TableWrite::Weight(slot, weight) => {
                self.slots.get_mut(slot).unwrap().weight = *weight;
            }
            TableWrite::Order { class, position, slot } => {
                self.order.insert((*class, *position), *slot);
            }
            TableWrite::Barrier => {}
            TableWrite::Head(head) => self.head = *head,
        }
    }

    /// Every member that a worker can pick now.
    fn choices(&self) -> BTreeSet<MemberId> {
        let mut ids = BTreeSet::new();
        for (class, ClassHead { members, .. }) in self.head.classes.iter().enumerate() {
            for position in 0..*members {
                let slot = self.order[&(class, position)];
                let record = &self.slots[&slot];
                if record.state == SlotState::Member && slot < self.head.slots {
                    ids.insert(record.id);
                }
            }
        }
        ids
    }
}

#[derive(Debug, Clone)]
enum Act {
    Join(u8, u16),
    Leave(u8),
    ReleaseAll,
    Commit,
    /// confsync is killed after this many writes of a commit, and starts again.
    Kill(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..6_u8, 1..=256_u16).prop_map(|(who, weight)| Act::Join(who, weight)),
        3 => (0..6_u8).prop_map(Act::Leave),
        1 => Just(Act::ReleaseAll),
        3 => Just(Act::Commit),
        1 => (0..12_usize).prop_map(Act::Kill),
    ]
}

fn joining(who: u8, weight: u16) -> Joining {
    let (host, port) = (format!("10.0.0.{who}"), 80);
    Joining { id: [who; 16], host, port, weight, joined: 0.0 }
}

/// Performs the writes of a commit. After each of them only members from before or after it can
/// be picked, and no member of both is unreachable at the end.
fn perform(
    reader: &mut TableReader,
    writes: &[TableWrite],
    wanted: &BTreeMap<u8, u16>,
    before: &BTreeSet<u8>,
) {
    for write in writes {
        reader.write(write);
        for id in reader.choices() {
            assert!(wanted.contains_key(&id[0]) || before.contains(&id[0]), "{id:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_worker_can_choose_members_only_whatever_has_been_written(
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let (mut roster, mut reader) = (Roster::empty(CAPACITY), TableReader::default());
        let mut wanted: BTreeMap<u8, u16> = BTreeMap::new();
        let mut before: BTreeSet<u8> = BTreeSet::new();
        for act in acts {
            match act {
                Act::Join(who, weight) => {
                    if roster.join(joining(who, weight)).is_ok() {
                        wanted.insert(who, weight);
                    }
                }
                Act::Leave(who) => {
                    roster.leave(&[who; 16]);
                    // Until the commit has ended it may be picked, even if it joined a moment
                    // ago.
                    if wanted.remove(&who).is_some() {
                        before.insert(who);
                    }
                }
                Act::ReleaseAll => {
                    // No request is counted to one that left before the last commit.
                    let writes = roster.commit();
                    perform(&mut reader, &writes, &wanted, &before);
                    let leaving: Vec<_> = roster.leaving().map(|(_, slot)| slot).collect();
                    leaving.into_iter().for_each(|slot| roster.release(slot));
                    before = wanted.keys().copied().collect();
                }
                Act::Commit => {
                    let writes = roster.commit();
                    perform(&mut reader, &writes, &wanted, &before);
                    before = wanted.keys().copied().collect();
                    let all = before.iter().map(|who| [*who; 16]).collect();
                    prop_assert_eq!(reader.choices(), all);
                    let weight: u32 = wanted.values().map(|w| u32::from(*w)).sum();
                    let sum: u32 = reader.head.classes.iter().map(|c| c.weight).sum();
                    prop_assert_eq!(weight, sum);
                }
                Act::Kill(after) => {
                    let writes = roster.commit();
                    let done = writes.len().min(after);
                    perform(&mut reader, &writes[..done], &wanted, &before);
                    let head = reader.head;
                    let records = (0..head.slots).map(|slot| reader.slots[&slot].clone());
                    roster = Roster::recover(CAPACITY, head.sequence, records.collect());
                    // The new run gets the whole set, as the old one did.
                    let known: Vec<_> = roster.members().map(|(id, _)| *id).collect();
                    for id in known.iter().filter(|id| !wanted.contains_key(&id[0])) {
                        roster.leave(id);
                    }
                    wanted.retain(|who, weight| roster.join(joining(*who, *weight)).is_ok());
                    let writes = roster.commit();
                    before.extend(known.iter().map(|id| id[0]));
                    perform(&mut reader, &writes, &wanted, &before);
                    before = wanted.keys().copied().collect();
                    let all = before.iter().map(|who| [*who; 16]).collect();
                    prop_assert_eq!(reader.choices(), all);
                }
            }
        }
    }
}

#[test]
fn a_change_writes_as_much_in_a_small_upstream_as_in_a_large_one() {
    let writes = |size: u16| {
        let mut roster = Roster::empty(10_000);
        for who in 0..size {
            let id = [who.to_le_bytes(); 8].concat().try_into().unwrap();
            let host = format!("10.0.{}.{}", who / 256, who % 256);
            roster.join(Joining { id, host, port: 80, weight: 1, joined: 0.0 }).unwrap();
        }
        roster.commit();
        let first = [0_u16.to_le_bytes(); 8].concat().try_into().unwrap();
        roster.leave(&first);
        roster.commit().len()
    };
    assert_eq!(writes(10), writes(5_000));
}

#[test]
fn a_slot_is_not_given_away_before_it_is_released() {
    let mut roster = Roster::empty(1);
    roster.join(joining(1, 1)).unwrap();
    roster.leave(&[1; 16]);
    roster.commit();
    assert_eq!(roster.join(joining(2, 1)), Err(TableFull { capacity: 1 }));
    roster.release(0);
    assert_eq!(roster.join(joining(2, 1)), Ok(()));
}
