//! The table of one upstream: what is written into its files, and what the workers have counted
//! there.
//!
//! All access is by `pread` and `pwrite`, which work on the same pages that the workers have
//! mapped. A write may be seen half done; `layout` and `roster` are designed for that.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use super::claims::WorkerColumns;
use super::layout::{ALLOCATED_AT, CELL, COUNTS_DATA, HEAD_AT, HEALTH, cell_at, order_at, slot_at};
use super::roster::{Roster, TableWrite};

/// The requests of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// In flight, in living workers.
    pub in_flight: u64,
    /// Sent there since the table was made.
    pub requests: f64,
    /// Tries that failed.
    pub failures: u64,
}

/// What all workers have done with each of the first slots of a file of counts.
pub(super) fn traffic_of(
    counts: &File,
    capacity: u32,
    slots: u32,
    workers: &WorkerColumns,
) -> io::Result<Vec<Traffic>> {
    let mut all = vec![Traffic::default(); slots as usize];
    for (column, known) in allocated(counts, workers.columns())? {
        let known = known.min(slots);
        let mut bytes = vec![0; (u64::from(known) * CELL) as usize];
        counts.read_exact_at(&mut bytes, cell_at(capacity, column, 0))?;
        let alive = workers.is_alive(column)?;
        for (sum, cell) in all.iter_mut().zip(bytes.as_chunks().0) {
            let cell = Traffic::decode(cell);
            sum.in_flight += if alive { cell.in_flight } else { 0 };
            sum.requests += cell.requests;
            sum.failures += cell.failures;
        }
    }
    Ok(all)
}

/// The columns that were ever counted in, and how many of their slots have pages.
pub(super) fn allocated(counts: &File, columns: u32) -> io::Result<Vec<(u32, u32)>> {
    let mut bytes = vec![0; 4 * columns as usize];
    counts.read_exact_at(&mut bytes, ALLOCATED_AT)?;
    let known = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
    Ok((0..).zip(known).filter(|(_, known)| *known > 0).collect())
}

/// The table of one upstream.
#[derive(Debug)]
pub struct MemberTable {
    /// Its members.
    pub roster: Roster,
    pub(super) members: File,
    pub(super) counts: File,
    pub(super) capacity: u32,
    pub(super) columns: u32,
    pub(super) instance: u64,
    /// Whether it was created since nginx last loaded its files.
    pub(super) is_new: bool,
}

impl MemberTable {
    /// Distinguishes this table from one that was created anew.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Whether its files are still in the folder, so that a worker that starts maps the same ones.
    pub fn is_in_place(&self) -> bool {
        let linked = |file: &File| file.metadata().is_ok_and(|meta| meta.nlink() > 0);
        linked(&self.members) && linked(&self.counts)
    }

    pub(super) fn write(&self, write: &TableWrite) -> io::Result<()> {
        let slot_at = |slot: u32| slot_at(self.capacity, slot);
        match write {
            TableWrite::Record(slot, record) => {
                // Also allocates the page for failures, which the workers write.
                let health = COUNTS_DATA + u64::from(*slot) * HEALTH;
                self.counts.write_all_at(&[0; HEALTH as usize], health)?;
                self.forget_totals(*slot)?;
                self.members.write_all_at(&record.encode(), slot_at(*slot))
            }
            TableWrite::State(slot, state) => {
                self.members.write_all_at(&[state.byte()], slot_at(*slot))
            }
            TableWrite::Weight(slot, weight) => {
                let byte = u8::try_from(weight.saturating_sub(1)).unwrap_or(u8::MAX);
                self.members.write_all_at(&[byte], slot_at(*slot) + 1)
            }
            TableWrite::Order { class, position, slot } => {
                let at = order_at(self.capacity, *class, *position);
                self.members.write_all_at(&slot.to_le_bytes(), at)
            }
            TableWrite::Head(head) => self.members.write_all_at(&head.encode(), HEAD_AT),
            TableWrite::Barrier => Ok(()),
        }
    }

    /// What the slot's last backend has had is not the new one's. No worker counts there: the
    /// slot was released.
    fn forget_totals(&self, slot: u32) -> io::Result<()> {
        for (column, known) in allocated(&self.counts, self.columns)? {
            if slot < known {
                let totals = cell_at(self.capacity, column, slot) + 4;
                self.counts.write_all_at(&[0; CELL as usize - 4], totals)?;
            }
        }
        Ok(())
    }

    pub(super) fn cell(&self, column: u32, slot: u32) -> io::Result<Traffic> {
        let mut bytes = [0; CELL as usize];
        self.counts.read_exact_at(&mut bytes, cell_at(self.capacity, column, slot))?;
        Ok(Traffic::decode(&bytes))
    }
}

impl Traffic {
    fn decode(bytes: &[u8; CELL as usize]) -> Self {
        let [f0, f1, f2, f3, g0, g1, g2, g3, requests @ ..] = bytes;
        let word = u32::from_le_bytes([*f0, *f1, *f2, *f3]);
        // The lowest byte is never half written; the others may be, while the count decreases.
        let in_flight = if *f0 == 0 { 0 } else { u64::from(word >> 8).max(1) };
        let failures = u64::from(u32::from_le_bytes([*g0, *g1, *g2, *g3]));
        Self { in_flight, requests: f64::from_le_bytes(*requests), failures }
    }
}
