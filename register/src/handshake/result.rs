//! How a wait for load balancers ended. Pure.

use std::fmt;

use common::runtime::Exit;

use super::state::LoadBalancerState;

/// What each load balancer did, when the wait was over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HandshakeResult {
    /// Those that have proven it.
    pub confirmed: Vec<String>,
    /// Those that finished without proof: they know their proxy by commands alone.
    pub assumed: Vec<String>,
    /// Those that did not, and what they did instead.
    pub unconfirmed: Vec<(String, LoadBalancerState)>,
    /// What else leaves it unconfirmed, and where: there may be load balancers that are not known here.
    pub unknown: Vec<(&'static str, String)>,
}

/// The result of a drain; of several keys the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainResult {
    /// Every load balancer has proven that it is complete.
    Confirmed,
    /// There is no load balancer, so none was waited for.
    NoLoadBalancer,
    /// Some load balancer finished it without proof.
    Assumed,
    /// Some load balancer did not finish it in time, or could not be asked.
    Unconfirmed,
}

impl DrainResult {
    /// All there are, for metrics.
    pub const ALL: [Self; 4] =
        [Self::Confirmed, Self::NoLoadBalancer, Self::Assumed, Self::Unconfirmed];

    /// The name in JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::NoLoadBalancer => "no_load_balancer",
            Self::Assumed => "assumed",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// How the process ends.
    pub fn exit(self) -> Exit {
        match self {
            Self::Confirmed | Self::NoLoadBalancer => Exit::Done,
            Self::Assumed => Exit::Assumed,
            Self::Unconfirmed => Exit::Unconfirmed,
        }
    }
}

impl HandshakeResult {
    /// The result as one word.
    pub fn summary(&self) -> DrainResult {
        if !self.unconfirmed.is_empty() || !self.unknown.is_empty() {
            DrainResult::Unconfirmed
        } else if !self.assumed.is_empty() {
            DrainResult::Assumed
        } else if self.confirmed.is_empty() {
            DrainResult::NoLoadBalancer
        } else {
            DrainResult::Confirmed
        }
    }
}

impl fmt::Display for HandshakeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (confirmed, assumed) = (self.confirmed.join(", "), self.assumed.join(", "));
        match self.summary() {
            DrainResult::NoLoadBalancer => f.write_str("no load balancer is registered"),
            DrainResult::Confirmed => write!(f, "confirmed by {confirmed}"),
            DrainResult::Assumed => {
                write!(f, "assumed for {assumed}, known by commands alone")?;
                if confirmed.is_empty() { Ok(()) } else { write!(f, "; confirmed by {confirmed}") }
            }
            DrainResult::Unconfirmed => {
                let each = self.unconfirmed.iter().map(|(lb, state)| format!("{lb}: {state}"));
                let unknown = self.unknown.iter().map(|(place, why)| format!("{place}: {why}"));
                let each: Vec<String> = each.chain(unknown).collect();
                write!(f, "unconfirmed ({})", each.join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(confirmed: &[&str], assumed: &[&str], unconfirmed: &[&str]) -> HandshakeResult {
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();
        HandshakeResult {
            confirmed: names(confirmed),
            assumed: names(assumed),
            unconfirmed: unconfirmed
                .iter()
                .map(|lb| ((*lb).into(), LoadBalancerState::Unreadable))
                .collect(),
            unknown: Vec::new(),
        }
    }

    #[test]
    fn the_worst_of_all_load_balancers_counts() {
        for (result, summary, text) in [
            (result(&[], &[], &[]), DrainResult::NoLoadBalancer, "no load balancer is registered"),
            (result(&["a", "b"], &[], &[]), DrainResult::Confirmed, "confirmed by a, b"),
            (
                result(&[], &["ha"], &[]),
                DrainResult::Assumed,
                "assumed for ha, known by commands alone",
            ),
            (
                result(&["a"], &["ha"], &[]),
                DrainResult::Assumed,
                "assumed for ha, known by commands alone; confirmed by a",
            ),
            (
                result(&["a"], &["ha"], &["c"]),
                DrainResult::Unconfirmed,
                "unconfirmed (c: its member key cannot be read)",
            ),
        ] {
            assert_eq!(result.summary(), summary);
            assert_eq!(result.to_string(), text);
        }
        assert_eq!(DrainResult::ALL.iter().max(), Some(&DrainResult::Unconfirmed));
    }
}
