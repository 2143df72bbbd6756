//! The command line: arguments, settings from three sources, subcommands.

mod accept;
pub mod args;
pub mod commands;
pub mod completion;
mod confd_flag_table;
pub mod confd_flags;
pub mod confd_toml;
mod host;
mod proxy_check;
mod retries;
pub mod settings;
