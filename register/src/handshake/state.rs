//! What one load balancer has done about a change, as far as its keys show. Pure.

use std::fmt;

use tokio::time::Instant;

/// What is known of one load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LoadBalancerState {
    /// It has acknowledged nothing that covers the change.
    Silent,
    /// The same, and it says why: it cannot load the change yet, and tries again.
    Failing(String),
    /// The same, while etcd accepts no writes: it may have done it and cannot say so.
    CannotAcknowledge,
    /// Its member key cannot be read, so it is unknown what it routes.
    Unreadable,
    /// New requests are routed by the change.
    Applied {
        /// By the success of commands, not by evidence.
        assumed: bool,
    },
    /// And no older worker is left.
    Quiesced {
        /// By a span of time, not by evidence.
        assumed: bool,
    },
    /// It routes on to this backend, because it does not accept the loss; it looks again.
    Retaining,
    /// It routes on to this backend until there is another one.
    TooFew(String),
    /// A definite no.
    Rejected(String),
    /// It left in order, or renders this key no more: it routes nothing by it.
    Gone,
    /// Its lease ended at this instant; its proxy may still route.
    Lost(Instant),
}

impl LoadBalancerState {
    /// Whether new requests may still be routed without the change.
    pub(super) fn may_route_as_before(&self) -> bool {
        match self {
            Self::Silent
            | Self::Failing(_)
            | Self::CannotAcknowledge
            | Self::Unreadable
            | Self::Retaining
            | Self::TooFew(_) => true,
            Self::Rejected(_)
            | Self::Lost(_)
            | Self::Applied { .. }
            | Self::Quiesced { .. }
            | Self::Gone => false,
        }
    }

    /// From the furthest behind on.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Silent | Self::Failing(_) | Self::CannotAcknowledge => 0,
            Self::Unreadable => 1,
            Self::Retaining => 2,
            Self::TooFew(_) => 3,
            Self::Rejected(_) => 4,
            Self::Lost(_) => 5,
            Self::Applied { .. } => 6,
            Self::Quiesced { assumed: true } => 7,
            Self::Quiesced { assumed: false } => 8,
            Self::Gone => 9,
        }
    }
}

impl fmt::Display for LoadBalancerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("has not applied the change"),
            Self::Failing(why) => write!(f, "has not applied the change, and tries again: {why}"),
            Self::CannotAcknowledge => {
                f.write_str("cannot acknowledge while etcd accepts no writes")
            }
            Self::Unreadable => f.write_str("its member key cannot be read"),
            Self::Applied { .. } => f.write_str("old workers still finish requests"),
            Self::Quiesced { assumed: false } => f.write_str("confirmed"),
            Self::Quiesced { assumed: true } => f.write_str("assumed"),
            Self::Retaining => f.write_str("retains this backend, because too many left at once"),
            Self::TooFew(why) => write!(f, "needs another backend first: {why}"),
            Self::Rejected(why) => write!(f, "rejected: {why}"),
            Self::Gone => f.write_str("left"),
            Self::Lost(_) => f.write_str("lost: its lease ended"),
        }
    }
}
