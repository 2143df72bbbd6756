//! Files that replace others whole: stage beside, check, swap, keep the previous
//! one until the new one is proven, put it back if it is not.
//!
//! ```text
//! StagedFiles ──accept(Proof)──► CheckedFiles ──install──► InstalledFiles ─┬─ commit
//!                                                                    └─ rollback
//! ```
//!
//! Invariants:
//! * bytes that no check has passed cannot be installed: it takes a [`Proof`] of these very bytes,
//!   and the types enforce the order;
//! * a set is swapped as a whole: if one file cannot be, those before it are put back;
//! * a reader of dest, at any moment and after a kill at any moment, reads the old file or the new
//!   one, never a part (the one exception is `in_place`, which an operator must ask for);
//! * after a crash [`recover()`] makes the set whole and finds the previous files, and
//!   [`clean_stale`] removes what an earlier run of ours left, and nothing else;
//! * one dest has one writer, which has its [`DestLock`].
//!
//! Everything here is plain blocking code. A swap costs two fsyncs, some 10 ms, so call it through
//! `tokio::task::spawn_blocking`; a step that has begun is then finished even if the caller is
//! dropped.
//!
//! This module knows nothing of templates, nginx or commands.

use std::time::Duration;

mod digest;
mod error;
mod lock;
mod names;
mod recover;
mod slot;
mod stage;
mod stamp;
mod swap;
mod target;
mod wanted;

pub use digest::{Digest, current};
pub use error::InstallError;
pub use lock::DestLock;
pub use recover::{Recovered, clean_stale, recover};
pub(crate) use stage::StagedPaths;
pub use stage::{Proof, Staged, StagedFiles};
pub use stamp::Stamp;
pub use swap::{CheckedFiles, InstalledFiles};
pub use target::{Candidate, Target, real_path};
pub use wanted::Wanted;

/// How long a file that only the next start reads may stay behind, for each of its lines: thousands
/// of lines are not written anew for each change among them.
const PAUSE_PER_LINE: Duration = Duration::from_micros(400);
/// And at most this long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long such a file of so many lines may stay behind after it was written.
pub(crate) fn write_pause(lines: usize) -> Duration {
    PAUSE_PER_LINE.saturating_mul(u32::try_from(lines).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

pub(crate) use names::{beside, note};
pub(crate) use recover::clean_beside;
pub(crate) use stage::new_beside;

#[cfg(test)]
mod tests;
