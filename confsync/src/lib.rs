//! `confsync`: etcd → backends → render → install → reload → evidence →
//! acknowledgement.
//!
//! ```text
//! etcd ─► watch ─snapshot─► backends ─► guard ─► template ─► ledger.wanted
//!            ┌── install: stage ► check ► swap ── installed ──► ledger
//!            └── reload ► evidence ───────────── live ─► ack ─► ledger
//! ```
//!
//! Pure: [`backends`], [`guard`], [`ledger`], [`template`]. Hands: [`install`],
//! [`command`], [`nginx`]. `agent` alone puts them together, one serial loop for
//! all files of one proxy.

pub mod agent;
pub mod args;
pub mod backends;
pub mod belief;
pub mod cause;
pub mod child;
pub mod command;
pub mod commands;
pub mod confd_toml;
pub mod confd_words;
pub mod confdir;
pub mod daemon;
pub mod doubt;
pub mod fleet;
pub mod format;
pub mod guard;
pub mod install;
pub mod ledger;
pub mod load;
pub mod members;
pub mod memory;
pub mod nginx;
pub mod once;
pub mod pace;
pub mod pipeline;
pub mod proxy;
pub mod quiescence;
pub mod render;
pub mod set;
pub mod settings;
pub mod state;
pub mod surface;
pub mod template;

#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
pub mod skip;
