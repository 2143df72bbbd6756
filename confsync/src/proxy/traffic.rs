//! The traffic of the members of a running proxy, for status and metrics. It is read beside the
//! driver, changes nothing, and decides nothing.

use std::path::PathBuf;

use crate::proxy::haproxy::{self, Haproxy};
use crate::proxy::membership::readings;
pub use crate::proxy::pools::{Ejection, MemberTraffic};

/// Where the traffic of one reload group is read.
#[derive(Debug, Clone)]
pub enum TrafficReader {
    /// The tables that nginx's workers write.
    NginxLua {
        folder: PathBuf,
        /// What the balancer was configured with.
        ejection: Ejection,
    },
    /// HAProxy's statistics.
    Haproxy(Box<Haproxy>),
}

impl TrafficReader {
    /// What there is now, in the order of pools and addresses; nothing where it cannot be had.
    pub async fn read(&self) -> Vec<MemberTraffic> {
        let mut found = match self {
            Self::NginxLua { folder, ejection } => {
                readings::read(folder, *ejection).unwrap_or_default()
            }
            Self::Haproxy(haproxy) => haproxy::traffic(haproxy).await.unwrap_or_default(),
        };
        found.sort_by(|a, b| (&a.pool, &a.addr).cmp(&(&b.pool, &b.addr)));
        found
    }
}
