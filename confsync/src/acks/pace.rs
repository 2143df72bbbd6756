//! A bound on how often acknowledgements are written: at once after quiet, and in a
//! storm of changes some ten a second. The newest always gets through; what was
//! overtaken while waiting is not written.

use std::time::Duration;

use common::claim::Wants;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// In the long run one write in this time.
const EVERY: Duration = Duration::from_millis(100);
/// So many at once after quiet: a drain needs two of each load balancer.
const BURST: u32 = 8;

/// What `from` says, paced.
#[must_use]
pub fn paced(mut from: watch::Receiver<Wants>) -> watch::Receiver<Wants> {
    let (to, paced) = watch::channel(from.borrow_and_update().clone());
    tokio::spawn(async move {
        let mut pace = TokenBucket { full_at: Instant::now() };
        while from.changed().await.is_ok() {
            sleep_until(pace.next(Instant::now())).await;
            let wants = from.borrow_and_update().clone();
            if to.send(wants).is_err() {
                return;
            }
        }
    });
    paced
}

/// A bucket of [`BURST`] that gains one every [`EVERY`].
struct TokenBucket {
    /// When it would be full again.
    full_at: Instant,
}

impl TokenBucket {
    /// Takes one; when it may be used.
    fn next(&mut self, now: Instant) -> Instant {
        self.full_at = self.full_at.max(now) + EVERY;
        let at = self.full_at.checked_sub(EVERY * BURST).unwrap_or(now);
        at.max(now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use common::claim::{Aim, Takeover, Want};

    use super::*;

    fn wants(n: u32) -> Wants {
        let want = Want { value: n.to_string().into(), takeover: Takeover::Any, aim: Aim::Present };
        Wants::new(BTreeMap::from([("/confsync/acks/web/lb-1".parse().unwrap(), want)]))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_at_once_then_ten_a_second_and_the_newest_at_last() {
        let (from, receiver) = watch::channel(wants(0));
        let mut paced = paced(receiver);
        let begun = Instant::now();
        let writer = tokio::spawn(async move {
            for n in 1..=1000 {
                from.send_replace(wants(n));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            from
        });
        let mut seen = Vec::new();
        loop {
            paced.changed().await.unwrap();
            let newest = paced.borrow_and_update().clone();
            seen.push(begun.elapsed());
            if newest == wants(1000) {
                break;
            }
        }
        assert_eq!(seen[0], Duration::ZERO);
        assert!(seen[7] < Duration::from_millis(20), "{seen:?}");
        assert!((20..32).contains(&seen.len()), "in two seconds: {}", seen.len());
        drop(writer.await.unwrap());
    }
}
