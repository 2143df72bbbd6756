//! What an operator configures: the confdir with its resources, compiled templates,
//! and which files are loaded together.
//!
//! Knows nothing of etcd's state or of running processes.

pub mod confdir;
pub mod last_render;
pub mod load;
pub mod output_format;
pub mod program;
pub mod reload_group;
pub mod rendered;
pub mod run;
#[cfg(test)]
pub(crate) mod sample;
pub mod substitute;
pub mod written;
