//! placeholder

pub mod command;
pub mod install;
pub mod nginx;
