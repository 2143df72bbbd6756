//! From rendered files to files that a proxy has been proven to run.

pub mod ledger;
pub mod named_line;
pub mod pipeline;
pub mod quiescence;
pub mod record;
pub mod step;

mod group_files;
mod load_pacing;
mod members;
mod old_generations;
mod quiesce_check;
mod wanted_files;

pub use load_pacing::LoadLimits;
