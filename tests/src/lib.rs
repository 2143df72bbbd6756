//! The harness: real etcd, real nginx, real backends and the real daemons, on
//! private loopback addresses and in private folders, so that any number of
//! scenarios run side by side.
//!
//! * [`lab`] owns a scenario's folder, addresses and processes, and puts all of them
//!   away; when the scenario fails it prints a [`report`].
//! * [`etcd`], [`nginx`], [`backend`], [`load`] are the world around the daemons;
//!   [`daemon`] is a daemon on trial, [`bins`] where its binary comes from.
//! * [`old_etcd`] makes of etcd one of its first years; [`given_etcd`] is the one to be tried.
//! * [`network`] is a network of machines that each run a real systemd; [`images`] are the
//!   container images that a real Docker runs there.
//! * [`faults`] draws faults by a seeded plan and judges whether the promises hold.
//! * [`browser`] is a Chromium that looks at the status page.
//! * [`process`] is the only spawner, [`eventually`] the only way to wait for a
//!   condition: bounded, and with the reason in the failure.
//!
//! The harness knows nothing of how the daemons work inside: it has their command
//! lines, their files and what etcd and nginx say.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness fails its test by panicking, with the place and the reason"
)]

pub mod address;
pub mod backend;
pub mod bins;
pub mod browser;
pub mod cluster;
pub mod confdir;
pub mod daemon;
pub mod etcd;
pub mod eventually;
pub mod faults;
pub mod given_etcd;
pub mod http;
pub mod images;
pub mod lab;
pub mod link;
pub mod load;
pub mod network;
pub mod nginx;
pub mod old_etcd;
pub mod process;
pub mod report;
pub mod skip;
pub mod workdir;

pub use backend::{Backend, Behaviour};
pub use browser::Browser;
pub use cluster::{Cluster, Instance};
pub use confdir::Confdir;
pub use daemon::Daemon;
pub use etcd::{Api, Etcd};
pub use eventually::{eventually, within};
pub use lab::Lab;
pub use link::Link;
pub use load::Load;
pub use network::{Machine, Network};
pub use nginx::Nginx;
pub use process::{Exit, Signal};
