//! The layout of the files that nginx's workers map. Pure.
//!
//! All numbers are little-endian. Three kinds of files, in one folder for each nginx:
//!
//! ```text
//! workers              0  "CFSYNCW1"   8  u32 columns   16  u32 not counted
//!                     64  columns × { u32 pid, u32 registered for membarrier, 8 unused }
//!                         byte i is locked (OFD) while the worker with column i lives
//!
//! NAME.members         0  "CFSYNCM1"   8  u32 capacity   16  u64 instance
//! (we write)          64  head: u32 sequence, u32 slots in use,
//!                               9 × { u32 members, u32 sum of their weights }, u32 check
//!                   4096  9 × capacity × u32 slot: the members of each class, in any order
//!                         capacity × slot of 128 bytes
//!
//! NAME.counts          0  "CFSYNCC1"   8  u32 capacity  12  u32 columns  16  u64 instance
//! (workers write)     64  columns × u32: how many slots of a column have their pages
//!                   8192  capacity × { f64 failures, f64 last checked, f64 last failed, 8 }
//!                         columns × capacity × { u32 in flight, u32 failures, f64 requests }
//! ```
//!
//! A member's class is the exponent of the highest power of two in its weight. In flight is stored
//! as `count << 8 | 1`, or 0: a reader may see bytes of two values, and the lowest byte alone is
//! then still right.

/// Members of one upstream at a time, those that are leaving included; a table is made larger for
/// an upstream that needs it.
pub const CAPACITY: u32 = 16_384;
/// The most that a table has room for. Its files are sparse: what is not used takes addresses only.
pub const MAX_CAPACITY: u32 = 262_144;
/// How many classes of weights there are: 1, 2–3, 4–7 … 128–255, 256.
pub const CLASSES: usize = 9;
/// The longest host, in bytes.
pub const MAX_HOST: usize = SLOT - HOST_AT - 1;

pub(super) const WORKERS_MAGIC: [u8; 8] = *b"CFSYNCW1";
pub(super) const MEMBERS_MAGIC: [u8; 8] = *b"CFSYNCM1";
pub(super) const COUNTS_MAGIC: [u8; 8] = *b"CFSYNCC1";

pub(super) const HEAD_AT: u64 = 64;
const HEAD_WORDS: usize = 2 + 2 * CLASSES;
pub(super) const HEAD_BYTES: usize = 4 * (HEAD_WORDS + 1);
pub(super) const PAGE: u64 = 4096;
pub(super) const SLOT: usize = 128;
const HOST_AT: usize = 32;
pub(super) const COUNTS_DATA: u64 = 8192;
pub(super) const HEALTH: u64 = 32;
pub(super) const CELL: u64 = 16;
pub(super) const ALLOCATED_AT: u64 = 64;
pub(super) const UNCOUNTED_AT: u64 = 16;
pub(super) const WORKER_DATA: u64 = 64;
pub(super) const WORKER: u64 = 16;
/// What fits between [`ALLOCATED_AT`] and [`COUNTS_DATA`].
pub(super) const MAX_COLUMNS: u32 = 2_032;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Unused: it may be written.
    Free,
    /// It gets new requests.
    Member,
    /// It gets no new requests; some may be in flight.
    Leaving,
}

impl SlotState {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Free => 0,
            Self::Member => 1,
            Self::Leaving => 2,
        }
    }

    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Member,
            2 => Self::Leaving,
            _ => Self::Free,
        }
    }
}

/// Identifies the backend of a slot: a hash of its key, so that another run of confsync finds it
/// again.
pub type MemberId = [u8; 16];

/// One backend as it is written into a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotRecord {
    pub state: SlotState,
    /// Its backend.
    pub id: MemberId,
    /// An IPv4 address, or an IPv6 address in brackets: what nginx takes for a peer.
    pub host: String,
    pub port: u16,
    /// 1 to 256.
    pub weight: u16,
    /// Changes each time the slot is given to another backend.
    pub serial: u32,
    /// When it joined, in seconds since 1970, for a slow start; 0 for none.
    pub joined: f64,
}

impl SlotRecord {
    /// Its bytes in the file.
    pub fn encode(&self) -> [u8; SLOT] {
        let weight = u8::try_from(self.weight.clamp(1, 256) - 1).unwrap_or(u8::MAX);
        let mut bytes = [0; SLOT];
        let host = self.host.as_bytes();
        let fields = [self.state.byte(), weight]
            .into_iter()
            .chain(self.port.to_le_bytes())
            .chain(self.serial.to_le_bytes())
            .chain(self.joined.to_le_bytes())
            .chain(self.id)
            .chain(host.iter().copied().take(MAX_HOST));
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// Reads it from bytes of the file.
    pub fn decode(bytes: &[u8; SLOT]) -> Self {
        let (fixed, host) = bytes.split_at(HOST_AT);
        let host = host.split(|byte| *byte == 0).next().unwrap_or_default();
        let [state, weight, p0, p1, s0, s1, s2, s3, rest @ ..] = fixed else {
            unreachable!("a slot is longer than this")
        };
        let (joined, id) = rest.split_at(8);
        Self {
            state: SlotState::of(*state),
            weight: u16::from(*weight) + 1,
            port: u16::from_le_bytes([*p0, *p1]),
            serial: u32::from_le_bytes([*s0, *s1, *s2, *s3]),
            joined: f64::from_le_bytes(joined.try_into().unwrap_or_default()),
            id: id.try_into().unwrap_or_default(),
            host: String::from_utf8_lossy(host).into_owned(),
        }
    }
}

/// The members of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassHead {
    /// How many.
    pub members: u32,
    /// The sum of their weights.
    pub weight: u32,
}

/// The head of a table: a worker reads it first, and again after it has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Raised by every change.
    pub sequence: u32,
    /// Slots at or above this one were never used.
    pub slots: u32,
    /// The members by class.
    pub classes: [ClassHead; CLASSES],
}

impl Head {
    /// Its bytes in the file, with a checksum.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let classes = self.classes.iter().flat_map(|class| [class.members, class.weight]);
        let words: Vec<u32> = [self.sequence, self.slots].into_iter().chain(classes).collect();
        let mut bytes = [0; HEAD_BYTES];
        let all = words.iter().copied().chain([check(&words)]).flat_map(u32::to_le_bytes);
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        bytes
    }

    /// Reads it from bytes of the file; `None` if it is damaged.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let words: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let (last, words) = words.split_last()?;
        let [sequence, slots, classes @ ..] = words else { return None };
        let mut head = Self { sequence: *sequence, slots: *slots, ..Self::default() };
        for (class, [members, weight]) in head.classes.iter_mut().zip(classes.as_chunks().0) {
            *class = ClassHead { members: *members, weight: *weight };
        }
        (check(words) == *last).then_some(head)
    }
}

/// Detects a head that was read while it was written. The Lua side computes the same.
fn check(words: &[u32]) -> u32 {
    words.iter().fold(0, |check: u32, word| check.rotate_left(5) ^ word)
}

pub fn class_of(weight: u16) -> usize {
    usize::try_from(weight.clamp(1, 256).ilog2()).unwrap_or(0)
}

/// Where entry `position` of `class` is, in the file of members.
pub(super) fn order_at(capacity: u32, class: usize, position: u32) -> u64 {
    PAGE + 4 * (class as u64 * u64::from(capacity) + u64::from(position))
}

/// Where a slot is, in the file of members.
pub(super) fn slot_at(capacity: u32, slot: u32) -> u64 {
    order_at(capacity, CLASSES, 0) + u64::from(slot) * SLOT as u64
}

/// Where the cell of a worker for a slot is, in the file of counts.
pub(super) fn cell_at(capacity: u32, column: u32, slot: u32) -> u64 {
    let (capacity, column) = (u64::from(capacity), u64::from(column));
    COUNTS_DATA + capacity * HEALTH + (column * capacity + u64::from(slot)) * CELL
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slot_is_read_as_it_was_written(
            state in prop_oneof![Just(SlotState::Free), Just(SlotState::Member), Just(SlotState::Leaving)],
            id: MemberId, host in "[0-9a-f.:\\[\\]]{0,95}", port: u16, weight in 1..=256_u16, serial: u32,
            joined in 0.0..1e10,
        ) {
            let record = SlotRecord { state, id, host, port, weight, serial, joined };
            prop_assert_eq!(SlotRecord::decode(&record.encode()), record);
        }

        #[test]
        fn a_head_is_read_as_it_was_written_and_a_torn_one_is_noticed(
            sequence: u32, slots: u32, members: [u32; CLASSES], weight: [u32; CLASSES],
            at in 0..HEAD_BYTES, flip in 1..=255_u8,
        ) {
            let mut head = Head { sequence, slots, ..Head::default() };
            for (class, (members, weight)) in
                head.classes.iter_mut().zip(members.into_iter().zip(weight))
            {
                *class = ClassHead { members, weight };
            }
            let mut bytes = head.encode();
            prop_assert_eq!(Head::decode(&bytes), Some(head));
            bytes[at] ^= flip;
            prop_assert_eq!(Head::decode(&bytes), None);
        }
    }

    #[test]
    fn classes_are_powers_of_two() {
        let classes = [1, 2, 3, 4, 127, 128, 255, 256].map(class_of);
        assert_eq!(classes, [0, 1, 1, 2, 6, 7, 7, 8]);
        assert_eq!([class_of(0), class_of(u16::MAX)], [0, 8]);
    }
}
