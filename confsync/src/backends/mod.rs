//! The registered backends: how keys are parsed, and whether a loss of them is real.

pub mod known;
pub mod loss_check;
pub mod loss_policy;
mod parse;
pub mod saved;
mod selection;

pub use parse::*;
pub use selection::{KeySelection, Values};
