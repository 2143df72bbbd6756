//! placeholder
pub mod drain;
