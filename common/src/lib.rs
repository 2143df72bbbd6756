//! What `register` and `confsync` share: the model of keys and values, the etcd clients, the
//! watch, the claim on keys of our own, child processes, and what any daemon needs.
//!
//! * [`model`] is pure: no clock, no I/O. Everything below may use it.
//! * [`store`] is etcd (v3, v2) or memory, behind one trait.
//! * [`watch`] turns a store into whole, consistent snapshots.
//! * [`claim`] knows which keys etcd has confirmed to be ours, and the next step;
//!   [`registrar`] carries it out, for one lease; [`leases`] has as many of them as the keys need.
//! * [`handshake`] is the wire format of members and acknowledgements.
//! * [`dns`] finds SRV records.
//! * [`startup`] waits for etcd; [`rights`] says what etcd will not allow.
//! * [`other_api`] says what is in the API of etcd that was not asked.
//! * [`table`] aligns columns for a terminal.
//! * [`tls`] is TLS as a client, with files that are read again.
//! * [`mod@settings`] makes command lines and reads flags, environment and files.
//! * [`fuzz`] is what a fuzzer may give to the readers of all this.
//! * [`metrics`] is what the metrics of both daemons have alike.
//! * [`runtime`] is signals, logs, readiness, exit codes, the status server.
//!
//! This crate knows nothing of probes, templates or nginx, and no flag but those in [`mod@settings`].

pub mod backoff;
pub mod claim;
pub mod dns;
pub mod fuzz;
pub mod handshake;
pub mod leases;
pub mod metrics;
pub mod model;
pub mod other_api;
pub mod registrar;
mod request_time;
pub mod rights;
pub mod runtime;
pub mod settings;
pub mod startup;
pub mod store;
pub mod table;
pub mod tls;
pub mod watch;

/// For `--version`: the version, and in a release the commit it was built from.
pub const VERSION: &str = env!("VERSION");

/// The commit alone; empty where it is not known.
pub const COMMIT: &str = env!("COMMIT");
