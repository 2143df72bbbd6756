//! The members of nginx's upstreams in mapped files, so that a backend joins and leaves
//! without a reload. Debian's `libnginx-mod-http-lua` (or OpenResty) reads them.
//!
//! * [`layout`] defines the files: the contract with `lua/membership.lua`.
//! * [`roster`] decides which writes change a table. Pure.
//! * [`table`] carries them out and reads what the workers count; [`folder`] has all tables, and
//!   counts the requests in flight.
//! * [`claims`] knows which workers are alive, and orders our writes before their reads.
//! * [`nginx_text`] writes the lines of nginx's configuration that use a table, and [`file_writer`]
//!   the files that have them.
//! * [`readings`] reads the traffic of members, for status and metrics.
//! * [`worker_state`] asks a worker what it goes by.
//! * [`nginx_lua`] is the driver: files in, members in, what is in flight out.
//! * [`read_back`] compares what was set with what nginx has.
//! * [`live_upstream`] decides which members join the table of one upstream and which leave it.
//! * [`upstreams`] is all of it for one nginx: set, confirm, and what is still in flight.
//!
//! This module knows nothing of etcd, templates or reloads.
//!
//! Invariants:
//!
//! * A file never shrinks and a mapped page is never removed: the kernel would kill a worker that
//!   touches it.
//! * A backend that left is reported as without requests only when no living worker counts one, and
//!   only after a memory barrier in every worker since it left.
//! * In each state between two writes, a worker picks only members.

pub mod claims;
mod file_writer;
pub mod folder;
pub mod layout;
mod live_upstream;
pub mod nginx_lua;
pub mod nginx_text;
mod read_back;
pub mod readings;
pub mod roster;
pub mod table;
pub mod upstreams;
pub mod worker_state;
