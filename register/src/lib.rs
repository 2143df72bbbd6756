//! `register`: the sidekick of a backend. It probes it and keeps its key in etcd.
//!
//! * [`settings`] is the table of settings, [`cli`] the command line made of it;
//!   [`config`] is what they mean, with all mistakes at once.
//! * [`probe`] asks a backend once; [`health`] decides what the answers mean and
//!   when to ask next (pure); [`prober`] does both for one service and publishes.
//! * [`sidekick`] is the loop of `register run`: health becomes keys, and a signal a drain.
//! * [`handshake`] waits for load balancers, which [`status`] shows with all the rest.
//! * [`connection_drain`] waits for the connections to a backend, as the kernel lists them.
//! * [`supervise`] runs the backend as a child, for `register run … -- COMMAND`.
//! * [`commands`] are the subcommands.
//! * [`fuzz`] is what a fuzzer may give to the readers of all this.

pub mod cli;
pub mod commands;
pub mod config;
pub mod connection_drain;
pub mod fuzz;
pub mod handshake;
pub mod health;
pub mod probe;
pub mod prober;
pub mod settings;
pub mod sidekick;
pub mod status;
pub mod supervise;
