//! Moments as the JSON documents have them: milliseconds of Unix time.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// Milliseconds of Unix time.
pub(super) fn unix(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn millis<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(unix(*at))
}

#[expect(clippy::ref_option, reason = "serde's signature")]
pub(super) fn maybe_millis<S: Serializer>(
    at: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    at.map(unix).serialize(serializer)
}
