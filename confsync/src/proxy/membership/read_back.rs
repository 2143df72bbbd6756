//! Whether nginx still has what was written last: another process may have changed the files, or
//! a worker may use others.

use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::layout::{HEAD_AT, HEAD_BYTES, SLOT, order_at, slot_at};
use super::table::MemberTable;
use super::upstreams::LiveUpstreams;
use super::worker_state::{self, WorkerStateError};
use crate::proxy::pools::ReadBack;

/// How long a worker may take to answer a check that no step waits for.
const LOOK_DEADLINE: Duration = Duration::from_millis(500);
/// So many looks at the first words of a table are followed by one at all of it.
const WHOLE_LOOK: u64 = 12;

impl LiveUpstreams {
    /// Compares what was set last with the files, and with what a worker goes by. A table that
    /// says something else is read anew by the next [`Self::set`].
    pub async fn read_back(&mut self) -> ReadBack {
        self.looks += 1;
        let is_whole = self.looks.is_multiple_of(WHOLE_LOOK);
        let changed = self.upstreams.iter().find_map(|(name, known)| {
            let same = match is_whole {
                true => known.table.is_as_written(),
                false => known.table.has_own_head(),
            };
            (!known.table.is_in_place() || !same.unwrap_or(false)).then(|| name.clone())
        });
        if let Some(name) = changed {
            self.upstreams.remove(&name);
            return ReadBack::Other(format!("another process changed the table of {name}"));
        }
        self.ask_about_one().await
    }

    /// One upstream a look, one after the other: a worker has all of them or none.
    async fn ask_about_one(&mut self) -> ReadBack {
        let nth = usize::try_from(self.looks).unwrap_or(0) % self.upstreams.len().max(1);
        let Some((name, known)) = self.upstreams.iter().nth(nth) else { return ReadBack::Same };
        let socket = self.folder.path().join("state.sock");
        let state = match worker_state::ask(&socket, name, LOOK_DEADLINE).await {
            Ok(state) => state,
            // It is being reloaded, or ends: then that is seen elsewhere.
            Err(WorkerStateError::NoAnswer { .. }) => return ReadBack::Same,
            Err(error) => return ReadBack::Other(error.to_string()),
        };
        let same = state.instance == known.table.instance()
            && state.sequence == known.table.roster.head().sequence;
        if !same {
            return ReadBack::Other(format!("a worker uses another table of {name}"));
        }
        match self.seen_workers.insert(state.pid) {
            true => ReadBack::NewWorker,
            false => ReadBack::Same,
        }
    }
}

impl MemberTable {
    /// Whether the head says what was written last.
    fn has_own_head(&self) -> io::Result<bool> {
        let mut head = [0; HEAD_BYTES];
        self.members.read_exact_at(&mut head, HEAD_AT)?;
        Ok(head == self.roster.head().encode())
    }

    /// Whether all of it says what was written last.
    fn is_as_written(&self) -> io::Result<bool> {
        let mut same = self.has_own_head()?;
        let mut bytes = vec![0; self.roster.records().count() * SLOT];
        self.members.read_exact_at(&mut bytes, slot_at(self.capacity, 0))?;
        let records = bytes.as_chunks().0.iter().zip(self.roster.records());
        same &= records.into_iter().all(|(found, record)| *found == record.encode());
        for (class, order) in self.roster.order().enumerate() {
            let mut bytes = vec![0; order.len() * 4];
            self.members.read_exact_at(&mut bytes, order_at(self.capacity, class, 0))?;
            let found = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word));
            same &= found.eq(order.iter().copied());
        }
        Ok(same)
    }
}
