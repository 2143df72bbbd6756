//! The HTTP statuses that count as healthy: `200`, `200-299,304`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of final HTTP statuses (200–599).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

/// Why a text is not a set of statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a set of HTTP statuses from 200 to 599; write `200`, or `200-299,304`", .0.escape_debug())]
pub struct StatusError(String);

impl Statuses {
    /// Whether this status is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    /// 200–399, what `curl -f` takes and what the old shell units lived with.
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

fn status(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && (200..=599).contains(n))
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = status(first.trim())?..=status(last.trim())?;
    (!range.is_empty()).then_some(range)
}

impl FromStr for Statuses {
    type Err = StatusError;
    fn from_str(text: &str) -> Result<Self, StatusError> {
        let ranges: Option<Vec<_>> = text.split(',').map(|part| range(part.trim())).collect();
        ranges.map(Self).ok_or_else(|| StatusError(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_read_and_printed() {
        let set: Statuses = "200-299, 304".parse().unwrap();
        assert_eq!(set.to_string(), "200-299,304");
        for (code, within) in [(200, true), (299, true), (300, false), (304, true), (500, false)] {
            assert_eq!(set.contains(code), within, "{code}");
        }
        let usual = Statuses::default();
        assert!(usual.contains(301) && usual.contains(204));
        assert!(!usual.contains(404) && !usual.contains(101));
    }

    #[test]
    fn an_invalid_set_is_rejected() {
        for text in ["", "20", "2xx", "100", "600", "299-200", "200-", "200,,304", "+200", "200;"] {
            assert!(text.parse::<Statuses>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "[0-9,\\- ]{0,20}") {
            if let Ok(set) = text.parse::<Statuses>() {
                prop_assert_eq!(set.to_string().parse::<Statuses>(), Ok(set));
            }
        }
    }
}
