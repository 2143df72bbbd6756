//! The members of one upstream, and the writes that make its table say so. Pure.
//!
//! Workers read while we write, so every state on the way must be one they may use. New
//! members are written whole into free slots; only then do the lists of members name them.
//! A member that leaves is marked first, so that no list that still names it brings it
//! back. The head comes last, and says how much of the lists counts.

use std::collections::{BTreeSet, HashMap};

use super::layout::{CLASSES, ClassHead, Head, MemberId, SlotRecord, SlotState, class_of};

/// One write to the table, or a barrier between writes.
#[derive(Debug, Clone, PartialEq)]
pub enum TableWrite {
    /// A whole slot, while it is free. Its failures are forgotten as well.
    Record(u32, SlotRecord),
    /// What a slot is.
    State(u32, SlotState),
    /// A member's weight.
    Weight(u32, u16),
    /// A place in the list of one class.
    Order {
        /// The class.
        class: usize,
        /// The place.
        position: u32,
        /// The member there.
        slot: u32,
    },
    /// What was written before is seen by every worker that sees anything written after.
    Barrier,
    /// The head.
    Head(Head),
}

/// A backend that is to join.
#[derive(Debug, Clone, PartialEq)]
pub struct Joining {
    /// Which.
    pub id: MemberId,
    /// Its address, as nginx takes it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// 1 to 256.
    pub weight: u16,
    /// Seconds since 1970, or 0 for one that starts with its whole weight.
    pub joined: f64,
}

/// The table has no free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an upstream has room for {capacity} backends, those included that still have requests in \
     flight; more of them need a reload for every change (`live = \"off\"`)"
)]
pub struct TableFull {
    /// How many fit.
    pub capacity: u32,
}

#[derive(Debug, Clone)]
struct OccupiedSlot {
    record: SlotRecord,
    position: u32,
}

/// The members of one upstream.
#[derive(Debug, Clone)]
pub struct Roster {
    capacity: u32,
    sequence: u32,
    serial: u32,
    slots: Vec<OccupiedSlot>,
    order: [Vec<u32>; CLASSES],
    weights: [u32; CLASSES],
    free: BTreeSet<u32>,
    members: HashMap<MemberId, u32>,
    leaving: BTreeSet<u32>,
    first: Vec<TableWrite>,
    then: Vec<TableWrite>,
    is_recovered: bool,
}

impl Roster {
    /// No member.
    #[must_use]
    pub fn empty(capacity: u32) -> Self {
        Self {
            capacity,
            sequence: 0,
            serial: 0,
            slots: Vec::new(),
            order: std::array::from_fn(|_| Vec::new()),
            weights: [0; CLASSES],
            free: BTreeSet::new(),
            members: HashMap::new(),
            leaving: BTreeSet::new(),
            first: Vec::new(),
            then: Vec::new(),
            is_recovered: false,
        }
    }

    /// What an earlier run left in the table. Its last change may be half done: the first
    /// [`Self::commit`] writes all lists again.
    #[must_use]
    pub fn recover(capacity: u32, sequence: u32, records: Vec<SlotRecord>) -> Self {
        let mut roster = Self { sequence, is_recovered: true, ..Self::empty(capacity) };
        for (slot, record) in (0..).zip(records) {
            roster.serial = roster.serial.max(record.serial);
            let (state, id, weight) = (record.state, record.id, record.weight);
            roster.slots.push(OccupiedSlot { record, position: 0 });
            match state {
                SlotState::Member if roster.members.insert(id, slot).is_none() => {
                    roster.enlist(slot, weight);
                }
                SlotState::Member => {
                    // One backend twice; cannot come from us, and one of them is enough.
                    roster.then.push(TableWrite::State(slot, SlotState::Leaving));
                    roster.leaving.insert(slot);
                }
                SlotState::Leaving => {
                    roster.leaving.insert(slot);
                }
                SlotState::Free => {
                    roster.free.insert(slot);
                }
            }
        }
        roster
    }

    /// Takes a backend in. One that is in already gets this weight.
    ///
    /// # Errors
    /// When all slots are in use.
    pub fn join(&mut self, joining: Joining) -> Result<(), TableFull> {
        if let Some(slot) = self.members.get(&joining.id).copied() {
            let same = self.slots.get(slot as usize).is_some_and(|known| {
                known.record.host == joining.host && known.record.port == joining.port
            });
            if same {
                self.set_weight(slot, joining.weight);
                return Ok(());
            }
            self.leave(&joining.id);
        }
        let slot = self.take_slot()?;
        self.serial = self.serial.wrapping_add(1);
        let Joining { id, host, port, weight, joined } = joining;
        let state = SlotState::Free;
        let record = SlotRecord { state, id, host, port, weight, serial: self.serial, joined };
        self.first.push(TableWrite::Record(slot, record.clone()));
        self.then.push(TableWrite::State(slot, SlotState::Member));
        let known =
            OccupiedSlot { record: SlotRecord { state: SlotState::Member, ..record }, position: 0 };
        match self.slots.get_mut(slot as usize) {
            Some(old) => *old = known,
            None => self.slots.push(known),
        }
        self.members.insert(id, slot);
        self.enlist(slot, weight);
        Ok(())
    }

    /// Lets a backend go: no new request is sent to it after the next commit.
    pub fn leave(&mut self, id: &MemberId) {
        let Some(slot) = self.members.remove(id) else { return };
        self.then.push(TableWrite::State(slot, SlotState::Leaving));
        self.strike(slot);
        self.leaving.insert(slot);
        if let Some(known) = self.slots.get_mut(slot as usize) {
            known.record.state = SlotState::Leaving;
        }
    }

    /// Nothing is in flight to it any more: its slot may be given away.
    pub fn release(&mut self, slot: u32) {
        if self.leaving.remove(&slot) {
            self.free.insert(slot);
            self.then.push(TableWrite::State(slot, SlotState::Free));
            if let Some(known) = self.slots.get_mut(slot as usize) {
                known.record.state = SlotState::Free;
            }
        }
    }

    /// The writes since the last commit, in the order in which they must be done. Empty if
    /// nothing has changed.
    pub fn commit(&mut self) -> Vec<TableWrite> {
        let is_recovered = std::mem::take(&mut self.is_recovered);
        if self.first.is_empty() && self.then.is_empty() && !is_recovered {
            return Vec::new();
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut writes = std::mem::take(&mut self.first);
        writes.push(TableWrite::Barrier);
        writes.append(&mut self.then);
        writes.extend([TableWrite::Barrier, TableWrite::Head(self.head()), TableWrite::Barrier]);
        writes
    }

    /// What the head says after the last commit.
    #[must_use]
    pub fn head(&self) -> Head {
        let mut head = Head {
            sequence: self.sequence,
            slots: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
            ..Head::default()
        };
        let lists = self.order.iter().zip(self.weights);
        for (class, (list, weight)) in head.classes.iter_mut().zip(lists) {
            let members = u32::try_from(list.len()).unwrap_or(u32::MAX);
            *class = ClassHead { members, weight };
        }
        head
    }

    /// What each slot in use says after the last commit.
    pub fn records(&self) -> impl Iterator<Item = &SlotRecord> {
        self.slots.iter().map(|slot| &slot.record)
    }

    /// The slots of the members of each class, as they are listed after the last commit.
    pub fn order(&self) -> impl Iterator<Item = &[u32]> {
        self.order.iter().map(Vec::as_slice)
    }

    /// The slot of a member.
    #[must_use]
    pub fn slot_of(&self, id: &MemberId) -> Option<u32> {
        self.members.get(id).copied()
    }

    /// The members.
    pub fn members(&self) -> impl Iterator<Item = (&MemberId, u32)> {
        self.members.iter().map(|(id, slot)| (id, *slot))
    }

    /// Those that left and may have requests in flight: their ids and slots.
    pub fn leaving(&self) -> impl Iterator<Item = (MemberId, u32)> {
        let record = |slot: &u32| Some((self.slots.get(*slot as usize)?.record.id, *slot));
        self.leaving.iter().filter_map(record)
    }

    fn take_slot(&mut self) -> Result<u32, TableFull> {
        if let Some(slot) = self.free.pop_first() {
            return Ok(slot);
        }
        let next = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        if next < self.capacity { Ok(next) } else { Err(TableFull { capacity: self.capacity }) }
    }

    fn set_weight(&mut self, slot: u32, weight: u16) {
        let Some(known) = self.slots.get(slot as usize) else { return };
        if known.record.weight == weight {
            return;
        }
        self.then.push(TableWrite::Weight(slot, weight));
        self.strike(slot);
        if let Some(known) = self.slots.get_mut(slot as usize) {
            known.record.weight = weight;
        }
        self.enlist(slot, weight);
    }

    fn enlist(&mut self, slot: u32, weight: u16) {
        let class = class_of(weight);
        let (Some(list), Some(sum)) = (self.order.get_mut(class), self.weights.get_mut(class))
        else {
            return;
        };
        let position = u32::try_from(list.len()).unwrap_or(u32::MAX);
        list.push(slot);
        *sum += u32::from(weight);
        if let Some(known) = self.slots.get_mut(slot as usize) {
            known.position = position;
        }
        self.then.push(TableWrite::Order { class, position, slot });
    }

    /// Takes a member off its list; the last of the list takes its place.
    fn strike(&mut self, slot: u32) {
        let Some(known) = self.slots.get(slot as usize) else { return };
        let (position, weight) = (known.position, known.record.weight);
        let class = class_of(weight);
        let (Some(list), Some(sum)) = (self.order.get_mut(class), self.weights.get_mut(class))
        else {
            return;
        };
        *sum = sum.saturating_sub(u32::from(weight));
        let Some(last) = list.pop().filter(|last| *last != slot) else { return };
        if let Some(place) = list.get_mut(position as usize) {
            *place = last;
        }
        if let Some(moved) = self.slots.get_mut(last as usize) {
            moved.position = position;
        }
        self.then.push(TableWrite::Order { class, position, slot: last });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::proxy::membership::layout::ClassHead;

    const CAPACITY: u32 = 8;

    /// The files, as far as a worker reads them.
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
                    // Above the head's bound no worker looks, whatever a killed run left.
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

        /// Everybody whom a worker can choose now.
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
        /// confsync is killed after so many writes of a commit, and starts again.
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

    /// Performs the writes of a commit; after each of them only members before or after
    /// it can be chosen, and nobody who is in both is out of reach at the end.
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
                        // Until the commit has ended it may be chosen, also if it joined
                        // a moment ago.
                        if wanted.remove(&who).is_some() {
                            before.insert(who);
                        }
                    }
                    Act::ReleaseAll => {
                        // Nobody counts a request to one that left before the last commit.
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
                        // The new run is told the whole set, as the old one was.
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
}
