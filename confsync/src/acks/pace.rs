//! Limits how often acknowledgements are written: at once after a quiet time, and in a storm of
//! changes less often, the more load balancers there are, because all of them share what etcd can
//! write. The newest always gets through; one that is overtaken while it waits is not written.

use std::time::Duration;

use common::claim::Wants;
use common::model::Tree;
use common::store::{Store, read_deadline};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The average interval between two writes, however few load balancers there are.
const EVERY: Duration = Duration::from_millis(100);
/// The burst that may follow a quiet time: a drain needs two writes of each load balancer.
const BURST: u32 = 8;
const MIN_BURST: u32 = 2;
/// What all load balancers together write in a second at most, in the long run. Three members on
/// one small machine take 400 writes a second (`docs/scale.md`).
const FLEET_RATE: u32 = 200;
/// What all of them write at once after quiet, if each may write [`MIN_BURST`].
const FLEET_BURST: u32 = 400;
/// How long a count of the members is good enough.
const COUNT_AGAIN: Duration = Duration::from_secs(300);

/// The values of `from`, at a limited rate. `members` is where the load balancers' member keys
/// are; they are counted when so much is to be written that their number matters.
pub fn paced<S: Store>(
    mut from: watch::Receiver<Wants>,
    store: S,
    members: Tree,
) -> watch::Receiver<Wants> {
    let (to, paced) = watch::channel(from.borrow_and_update().clone());
    tokio::spawn(async move {
        let mut pace = TokenBucket::new(Instant::now());
        let mut counted: Option<Instant> = None;
        while from.changed().await.is_ok() {
            let at = pace.next(Instant::now());
            let is_counted = counted.is_some_and(|then| then.elapsed() < COUNT_AGAIN);
            if at > Instant::now() && !is_counted {
                counted = Some(Instant::now());
                // Where they cannot be read, the pace stays as it is.
                if let Ok(there) = store.read(std::slice::from_ref(&members), read_deadline()).await
                {
                    pace.share(there.entries.len());
                }
            }
            sleep_until(at).await;
            let wants = from.borrow_and_update().clone();
            if to.send(wants).is_err() {
                return;
            }
        }
    });
    paced
}

/// A bucket of `burst` that gains one in the time `every`.
struct TokenBucket {
    /// When it would be full again.
    full_at: Instant,
    every: Duration,
    burst: u32,
}

impl TokenBucket {
    fn new(now: Instant) -> Self {
        Self { full_at: now, every: EVERY, burst: BURST }
    }

    /// Leaves to each of so many load balancers its share of what etcd can write.
    fn share(&mut self, members: usize) {
        let members = u32::try_from(members).unwrap_or(u32::MAX).max(1);
        self.every = EVERY.max(Duration::from_secs(1) * members / FLEET_RATE);
        self.burst = (FLEET_BURST / members).clamp(MIN_BURST, BURST);
    }

    /// Takes one token; returns the instant from which it may be used.
    fn next(&mut self, now: Instant) -> Instant {
        self.full_at = self.full_at.max(now) + self.every;
        let at = self.full_at.checked_sub(self.every * self.burst).unwrap_or(now);
        at.max(now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use common::claim::{Aim, Takeover, Want};
    use common::model::Ttl;
    use common::store::{Guard, Memory, default_deadline};

    use super::*;

    fn wants(n: u32) -> Wants {
        let want = Want { value: n.to_string().into(), takeover: Takeover::Any, aim: Aim::Present };
        Wants::new(BTreeMap::from([("/confsync/acks/web/lb-1".parse().unwrap(), want)]))
    }

    /// The moments at which something was written, of changes every 2 ms for this long.
    async fn written(members: u32, span: Duration) -> Vec<Duration> {
        let store = Memory::default();
        let ttl: Ttl = "3600s".parse().unwrap();
        let lease = store.grant(ttl, default_deadline()).await.unwrap();
        for nth in 0..members {
            let key = format!("/confsync/members/lb-{nth}").parse().unwrap();
            let put = store.put(&key, b"{}", lease, &Guard::Absent, default_deadline());
            put.await.unwrap();
        }
        let (from, receiver) = watch::channel(wants(0));
        let mut paced = paced(receiver, store, "/confsync/members".parse().unwrap());
        let begun = Instant::now();
        let last = u32::try_from(span.as_millis() / 2).unwrap();
        let writer = tokio::spawn(async move {
            for n in 1..=last {
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
            if newest == wants(last) {
                break;
            }
        }
        drop(writer.await.unwrap());
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_at_once_then_ten_a_second_and_the_newest_at_last() {
        let seen = written(3, Duration::from_secs(2)).await;
        assert_eq!(seen[0], Duration::ZERO);
        assert!(seen[7] < Duration::from_millis(20), "{seen:?}");
        assert!((20..32).contains(&seen.len()), "in two seconds: {}", seen.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_load_balancers_write_two_hundred_a_second_together() {
        let seen = written(1000, Duration::from_secs(60)).await;
        // The first ones before anybody was counted.
        assert!((12..24).contains(&seen.len()), "in a minute: {}", seen.len());
    }
}
