//! The members of one upstream, and the writes that bring its table up to date. Pure.
//!
//! Workers read while we write, so every intermediate state must be usable. New members are written
//! completely into free slots; only then do the lists of members name them. A member that leaves is
//! marked first, so that no list that still names it brings it back. The head comes last, and
//! limits how much of the lists counts.

use std::collections::{BTreeSet, HashMap};

use super::layout::{CLASSES, ClassHead, Head, MemberId, SlotRecord, SlotState, class_of};

/// One write to the table, or a barrier between writes.
#[derive(Debug, Clone, PartialEq)]
pub enum TableWrite {
    /// A whole slot, while it is free. Its failures are cleared too.
    Record(u32, SlotRecord),
    State(u32, SlotState),
    /// A member's weight.
    Weight(u32, u16),
    /// A position in the list of one class.
    Order {
        class: usize,
        position: u32,
        /// The member there.
        slot: u32,
    },
    /// Everything written before is visible to every worker that sees anything written after.
    Barrier,
    Head(Head),
}

/// A backend that is to join.
#[derive(Debug, Clone, PartialEq)]
pub struct Joining {
    pub id: MemberId,
    /// Its address, in the form that nginx takes.
    pub host: String,
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

    /// Takes over a table from an earlier run. That run's last change may be half done: the first
    /// [`Self::commit`] writes all lists again.
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
                    // One backend twice: we never write that, and one of them is enough.
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

    /// Adds a backend, or updates the weight of one that is already in.
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

    /// Removes a backend: after the next commit it gets no new requests.
    pub fn leave(&mut self, id: &MemberId) {
        let Some(slot) = self.members.remove(id) else { return };
        self.then.push(TableWrite::State(slot, SlotState::Leaving));
        self.strike(slot);
        self.leaving.insert(slot);
        if let Some(known) = self.slots.get_mut(slot as usize) {
            known.record.state = SlotState::Leaving;
        }
    }

    /// Nothing is in flight to it any more: frees its slot.
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

    /// The head after the last commit.
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

    pub fn slot_of(&self, id: &MemberId) -> Option<u32> {
        self.members.get(id).copied()
    }

    pub fn members(&self) -> impl Iterator<Item = (&MemberId, u32)> {
        self.members.iter().map(|(id, slot)| (id, *slot))
    }

    /// Members that left and may have requests in flight: their ids and slots.
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

    /// Removes a member from its list; the last of the list takes its position.
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
mod tests;
