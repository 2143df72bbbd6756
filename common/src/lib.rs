//! What `register` and `confsync` share: the model of keys and values, the etcd
//! clients, the watch, the claim on keys of our own, and the run-time frame.
//!
//! * [`model`] is pure: no clock, no I/O. Everything below may use it.
//! * [`store`] speaks to etcd (v3, v2) or to memory, through one trait.
//! * [`watch`] turns a store into whole, consistent snapshots.
//! * [`claim`] knows what the store has confirmed that we hold, and what is owed;
//!   [`registrar`] carries it out.
//! * [`handshake`] is the wire format of members and acknowledgements.
//! * [`table`] aligns what a person reads at a terminal.
//! * [`trust`] says which certificates of servers are believed.
//! * [`settings`] makes command lines and reads flags, environment and files.
//! * [`runtime`] is signals, logs, readiness, exit codes, the status server.
//!
//! This crate knows nothing of probes, templates or nginx.

pub mod backoff;
pub mod claim;
pub mod handshake;
pub mod model;
pub mod reach;
pub mod registrar;
pub mod runtime;
pub mod settings;
pub mod store;
pub mod table;
pub mod trust;
pub mod watch;

/// For `--version`: the version, and in a release the commit it was built from.
pub const VERSION: &str = env!("VERSION");

/// The commit alone; empty where it is not known.
pub const COMMIT: &str = env!("COMMIT");
