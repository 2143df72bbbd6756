//! The members of nginx's upstreams in mapped files, so that a backend joins and leaves
//! without a reload. Debian's `libnginx-mod-http-lua` (or OpenResty) reads them.
//!
//! * [`layout`] says what is where in the files: the contract with `lua/membership.lua`.
//! * [`roster`] decides which writes make a table say something else. Pure.
//! * [`table`] carries them out, and counts what is in flight.
//! * [`claims`] knows which workers live, and orders our writes before their reads.
//! * [`nginx_text`] writes the lines of nginx's configuration that use a table.
//! * [`readings`] says what members have had and have, for whoever watches.
//! * [`worker_state`] asks a worker what it goes by.
//! * [`nginx_lua`] is the driver: files in, members in, what is in flight out.
//! * [`read_back`] compares what was set with what nginx has.
//! * [`upstreams`] is all of it for one nginx: set, confirm, and what is still in flight.
//!
//! This module knows nothing of etcd, templates or reloads.
//!
//! What must hold:
//!
//! * A file never shrinks and a mapped page is never taken away: a worker that touches one
//!   that is not there is killed by the kernel.
//! * A backend that left is reported as quiet only when no living worker counts a request
//!   to it, and only after a memory barrier in every worker since it left.
//! * Each state between two writes is one that a worker may use: its picks are members.

pub mod claims;
pub mod layout;
pub mod nginx_lua;
pub mod nginx_text;
mod read_back;
pub mod readings;
pub mod roster;
pub mod table;
pub mod upstreams;
pub mod worker_state;
