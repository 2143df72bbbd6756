//! The lifetime of a key, and what follows from it: when to refresh, how long one attempt may
//! take.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::span::parse_span;

/// How long a key outlives its last refresh. At least 2 s: etcd v3 itself raises
/// less to one and a half election time-outs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(Duration);

/// Why a span cannot be a TTL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// Not a time span.
    #[error(transparent)]
    Span(#[from] super::span::SpanError),
    /// Below 2 s or above one day, or not whole seconds.
    #[error("a TTL is whole seconds, from 2s to 24h")]
    Range,
}

impl Ttl {
    /// 30 s.
    pub const DEFAULT: Ttl = Ttl(Duration::from_secs(30));

    /// A TTL of this span.
    ///
    /// # Errors
    /// When it is not whole seconds, which is all that etcd can keep, or outside 2 s to 24 h.
    pub fn new(span: Duration) -> Result<Self, TtlError> {
        let fits = (2..=86_400).contains(&span.as_secs()) && span.subsec_nanos() == 0;
        if fits { Ok(Self(span)) } else { Err(TtlError::Range) }
    }

    /// The whole span.
    pub fn span(self) -> Duration {
        self.0
    }

    /// In seconds, as etcd takes it.
    pub fn secs(self) -> u64 {
        self.0.as_secs()
    }

    /// Time between refreshes: a third, so two of them may fail.
    pub fn refresh(self) -> Duration {
        self.0 / 3
    }

    /// How long one request may take before it is repeated: a ninth, so that a third of the TTL
    /// holds three attempts.
    pub fn attempt(self) -> Duration {
        (self.0 / 9).max(Duration::from_millis(250))
    }
}

impl FromStr for Ttl {
    type Err = TtlError;
    fn from_str(text: &str) -> Result<Self, TtlError> {
        Self::new(parse_span(text)?)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_attempts_fit_between_refreshes_and_three_refreshes_into_the_ttl() {
        for secs in [2, 3, 5, 30, 3600] {
            let ttl = Ttl::new(Duration::from_secs(secs)).unwrap();
            assert!(ttl.refresh() * 3 <= ttl.span());
            assert!(ttl.attempt() * 2 <= ttl.refresh());
        }
    }

    #[test]
    fn what_etcd_cannot_keep_is_rejected() {
        for text in ["1s", "2500ms", "25h", "0s", "1"] {
            assert!(text.parse::<Ttl>().is_err(), "{text}");
        }
    }
}
