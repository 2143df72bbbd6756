//! Read, then watch, then publish whole: the only module that handles a store's events.
//!
//! What it publishes is a [`View`]: a complete [`Snapshot`](crate::model::Snapshot) and whether it
//! is fresh. A reader never acts on half a list, and learns of compaction, interrupted streams or
//! time-outs only by a view that is stale for a while.
//!
//! Trees are followed by their changes. Where a store cannot tell whether it has delivered all of
//! a revision (several trees, and v2 or a server as old as 3.0), a change only means that all trees
//! are read again at one revision.
//!
//! A value that is put again unchanged, by the same lease holder, is not published.
//!
//! It knows nothing of what the keys mean.

mod follower;
mod published;
#[cfg(test)]
mod tests;
mod view;

pub use follower::follow;
pub use view::{Ignored, Options, Stale, StaleReason, Start, View, WatchLog};
