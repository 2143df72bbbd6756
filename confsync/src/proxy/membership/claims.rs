//! Which workers are alive, and the order between our writes and their reads.
//!
//! A worker has a column in every file of counts. It locks the column's byte in the file `workers`
//! for its lifetime, so a column whose byte is not locked counts nothing, however the worker ended
//! and whatever its pid is reused for.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::thread::{MembarrierCommand, membarrier};

use super::layout::{MAX_COLUMNS, UNCOUNTED_AT, WORKER, WORKER_DATA};

/// The file `workers` of one nginx.
#[derive(Debug)]
pub struct WorkerColumns {
    file: File,
    columns: u32,
}

impl WorkerColumns {
    pub(super) fn new(file: File, columns: u32) -> Self {
        Self { file, columns: columns.min(MAX_COLUMNS) }
    }

    /// How many workers can count at a time.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// Whether the worker with this column is alive.
    ///
    /// # Errors
    /// When the system does not report it.
    pub fn is_alive(&self, column: u32) -> io::Result<bool> {
        let mut lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: libc::off_t::from(column),
            l_len: 1,
            l_pid: 0,
        };
        fcntl(self.file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))?;
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }

    /// Columns that were ever taken, and whether the worker registered for barriers.
    fn taken(&self) -> io::Result<Vec<(u32, bool)>> {
        let mut bytes = vec![0; (u64::from(self.columns) * WORKER) as usize];
        self.file.read_exact_at(&mut bytes, WORKER_DATA)?;
        let word = |record: &[u8], at: usize| {
            record.get(at..at + 4).is_some_and(|word| word.iter().any(|byte| *byte != 0))
        };
        let records = bytes.chunks(WORKER as usize).zip(0..);
        Ok(records
            .filter(|(record, _)| word(record, 0))
            .map(|(record, column)| (column, word(record, 4)))
            .collect())
    }

    /// Whether every request is counted: no worker lacked a column, and no page was missing.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn is_exact(&self) -> io::Result<bool> {
        let mut word = [0; 4];
        self.file.read_exact_at(&mut word, UNCOUNTED_AT)?;
        Ok(word == [0; 4])
    }

    /// Counting is exact again: the workers that did not count have ended.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_exact(&self) -> io::Result<()> {
        self.file.write_all_at(&[0; 4], UNCOUNTED_AT)
    }

    /// When it returns, every worker sees what was written before, and we see what every worker
    /// counted before.
    ///
    /// The workers need no barrier of their own for this: the kernel runs one on every processor
    /// that is running one of them. For workers that could not register for the fast form (an old
    /// kernel, a system call filter) the slow one is used, which takes some milliseconds.
    ///
    /// # Errors
    /// When the kernel refuses: then there is no guarantee.
    pub fn barrier(&self) -> io::Result<()> {
        membarrier(MembarrierCommand::GlobalExpedited)?;
        if self.taken()?.iter().any(|(_, registered)| !registered) {
            membarrier(MembarrierCommand::Global)?;
        }
        Ok(())
    }
}
