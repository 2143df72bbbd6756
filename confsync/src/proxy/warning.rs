//! What a proxy's check has to say about files that pass.

use std::path::PathBuf;

/// A warning about a set that passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// No include of nginx's configuration reaches this file, so the check does not cover it. That
    /// is right for a key or a password file, else a mistake.
    #[error(
        "{} does not include {}: nginx would never read it as configuration",
        conf.display(), dest.display()
    )]
    NotIncluded {
        /// The file.
        dest: PathBuf,
        /// The main file.
        conf: PathBuf,
    },
    /// A warning of the proxy itself, or about it.
    #[error("{0}")]
    Proxy(String),
}
