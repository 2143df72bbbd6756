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

pub mod backends;
pub mod belief;
pub mod command;
pub mod confdir;
pub mod doubt;
pub mod guard;
pub mod install;
pub mod ledger;
pub mod members;
pub mod nginx;
//! Renders the proxy's configuration from etcd and proves that the proxy runs it.
pub mod template;
