//! `register`: the sidekick of a backend. It probes it and keeps its key in etcd.
//!
//! * [`args`] is the command line as written; [`config`] is what it means, with
//!   all complaints at once.
//! * [`probe`] asks a backend once; [`health`] decides what the answers mean and
//!   when to ask next (pure); [`prober`] does both for one service and publishes.
//! * [`supervise`] runs the backend as a child, for `register run … -- COMMAND`.
//! * [`check`], [`list`] and [`remove`] are the subcommands of that name.

pub mod agent;
pub mod args;
pub mod check;
pub mod commands;
pub mod config;
pub mod drain;
pub mod handshake;
pub mod health;
pub mod list;
pub mod probe;
pub mod prober;
pub mod remove;
pub mod status;
pub mod supervise;
