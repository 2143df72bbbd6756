//! Waiting for a condition, bounded. Instead of sleeps.
//!
//! Bounds are what a quiet machine never needs; `TEST_PATIENCE=3` makes all of them
//! three times as long for a slow one. Ask [`eventually`] for what *will* become true.
//! It cannot show that something never happens: for that, find an event which comes
//! after it and wait for that.

use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The time span, stretched by `TEST_PATIENCE`.
#[must_use]
pub fn patience(span: Duration) -> Duration {
    let factor = std::env::var("TEST_PATIENCE")
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .filter(|factor| factor.is_finite() && *factor > 0.0)
        .unwrap_or(1.0);
    span.mul_f64(factor)
}

/// Asks again and again until the answer is `Ok`, for 15 s (times the patience).
///
/// # Panics
/// When the time is over, with the last `Err`.
#[track_caller]
pub fn eventually<T, E, F, Fut>(what: impl Into<String>, ask: F) -> impl Future<Output = T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    wait(Location::caller(), BOUND, what.into(), ask)
}

/// As [`eventually`], with a bound of one's own (times the patience).
///
/// # Panics
/// When the time is over, with the last `Err`.
#[track_caller]
pub fn within<T, E, F, Fut>(
    bound: Duration,
    what: impl Into<String>,
    ask: F,
) -> impl Future<Output = T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    wait(Location::caller(), bound, what.into(), ask)
}

async fn wait<T, E, F, Fut>(place: &Location<'_>, bound: Duration, what: String, mut ask: F) -> T
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let bound = patience(bound);
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    while start.elapsed() < bound {
        let left = bound.saturating_sub(start.elapsed());
        match tokio::time::timeout(left, ask()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(why)) => last = Some(why.to_string()),
            Err(_) => break,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
    let last = last.unwrap_or_else(|| "nothing, the question itself hung".to_owned());
    panic!("{place}: not within {bound:?}: {what}\n  last answer: {last}");
}

/// `Ok` when `condition` holds, else the reason; for use in [`eventually`].
///
/// # Errors
/// The reason, when the condition does not hold.
pub fn check(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}
