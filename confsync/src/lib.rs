//! `confsync`: etcd → backends → render → install → reload → evidence →
//! acknowledgement.
//!
//! ```text
//! etcd ─► watch ─snapshot─► backends ─► loss policy ─► template ─► ledger.wanted
//!            ┌── install: stage ► check ► swap ── installed ──► ledger
//!            └── reload ► evidence ───────────── live ─► ack ─► ledger
//! ```
//!
//! The modules are listed from the bottom up: each may import those above its line in this
//! list, never one below. `tests/scenarios/architecture.rs` enforces that.

pub mod template;

pub mod local;

pub mod install;

pub mod backends;

pub mod config;

pub mod proxy;

pub mod apply;

pub mod acks;

pub mod status;

pub mod agent;

pub mod daemon;

pub mod fuzz;

pub mod cli;

#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
pub mod skip;
