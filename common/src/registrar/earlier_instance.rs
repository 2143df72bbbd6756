//! What an earlier instance of this process left in etcd: a lease that can be used where none is
//! granted, and keys that were taken over from a lease holder that should have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::claim::{Aim, Wants};
use crate::model::{Entry, Key, Tree, Ttl};
use crate::store::{Lease, RefreshOutcome, Store, StoreError, default_deadline};

const SECOND: Duration = Duration::from_secs(1);

/// A lease of an earlier instance, refreshed by a request that was sent at `sent`.
pub(super) struct EarlierLease {
    pub(super) lease: Lease,
    /// The keys that are bound to it and have the wanted values.
    pub(super) entries: Vec<(Key, Entry)>,
    pub(super) sent: Instant,
}

/// Looks for a lease with keys that are wanted as they are, and refreshes the one with the most.
/// `None`: there is none, it is about to end, or etcd cannot say what is left of it.
///
/// # Errors
/// Those of the requests, each of which has the deadline of a call of `begin_request`.
pub(super) async fn find_lease<S: Store>(
    store: &S,
    wants: &Wants,
    ttl: Ttl,
    begin_request: impl Fn() -> Instant,
) -> Result<Option<EarlierLease>, StoreError> {
    let present: Vec<_> = wants.iter().filter(|(_, want)| want.aim == Aim::Present).collect();
    let trees: Vec<Tree> = present.iter().map(|(key, _)| Tree::from(*key)).collect();
    let there = store.read(&trees, begin_request()).await?;
    let mut by_lease: BTreeMap<i64, Vec<(Key, Entry)>> = BTreeMap::new();
    for (key, want) in present {
        let Some(entry) = there.entries.get(key.as_str()) else { continue };
        if entry.lease != 0 && *want.value == *entry.value {
            by_lease.entry(entry.lease).or_default().push((key.clone(), entry.clone()));
        }
    }
    let most = by_lease.into_iter().max_by_key(|(_, entries)| entries.len());
    let Some((id, entries)) = most else { return Ok(None) };
    let Some((_, entry)) = entries.first() else { return Ok(None) };
    let sent = Instant::now();
    let lease = Lease { id, ttl: ttl.span() };
    let refreshed = store.refresh(lease, &[], begin_request()).await?;
    let left = match store.time_left(entry, begin_request()).await {
        Err(StoreError::Unsupported(_)) => None,
        left => left?,
    };
    let lives = matches!(refreshed, RefreshOutcome::Refreshed { .. });
    let left = left.filter(|left| lives && *left >= SECOND);
    Ok(left.map(|ttl| EarlierLease { lease: Lease { id, ttl }, entries, sent }))
}

/// After a takeover, checks that the lease of the former holder ends. (v2 has no leases: there, a
/// former holder that still runs fails to refresh its key and logs that itself.)
pub(super) async fn watch_former_holder<S: Store>(store: S, before: Entry) {
    if before.lease == 0 {
        return;
    }
    let Ok(Some(at_first)) = store.time_left(&before, default_deadline()).await else { return };
    tokio::time::sleep(at_first + SECOND).await;
    let left = store.time_left(&before, default_deadline()).await;
    if left.is_ok_and(|left| left.is_some_and(|left| !left.is_zero())) {
        tracing::warn!(
            key = %before.key,
            "the former lease holder of a key that was taken over still refreshes its lease: two \
             instances run under one name; stop one, or give each its own name"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::{Takeover, Want};
    use crate::store::{Guard, Memory};

    fn key(id: &str) -> Key {
        format!("/services/web/{id}").parse().unwrap()
    }

    fn wants(values: &[(&str, &str)]) -> Wants {
        let want = |value: &str| Want {
            value: value.into(),
            takeover: Takeover::SameValue,
            aim: Aim::Present,
        };
        Wants::new(values.iter().map(|(id, value)| (key(id), want(value))).collect())
    }

    async fn leave(store: &Memory, keys: &[(&str, &str)]) -> Lease {
        let lease = store.grant(Ttl::DEFAULT, default_deadline()).await.unwrap();
        for (id, value) in keys {
            let (key, deadline) = (key(id), default_deadline());
            store.put(&key, value.as_bytes(), lease, &Guard::Absent, deadline).await.unwrap();
        }
        lease
    }

    async fn find(store: &Memory, wants: &Wants) -> Option<(i64, usize)> {
        let found = find_lease(store, wants, Ttl::DEFAULT, default_deadline).await.unwrap();
        found.map(|found| (found.lease.id, found.entries.len()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_with_the_most_keys_as_they_are_wanted_is_found_while_it_lives() {
        let store = Memory::default();
        let wanted = wants(&[("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")]);
        assert_eq!(find(&store, &wanted).await, None, "nothing is left");
        store.set(&key("a"), "x");
        assert_eq!(find(&store, &wanted).await, None, "a key without a lease");
        leave(&store, &[("b", "other")]).await;
        assert_eq!(find(&store, &wanted).await, None, "another value is another instance's");
        let most = leave(&store, &[("c", "x"), ("d", "x")]).await;
        assert_eq!(find(&store, &wanted).await, Some((most.id, 2)));
        store.advance(Ttl::DEFAULT.span() * 2);
        assert_eq!(find(&store, &wanted).await, None, "it has ended");
    }
}
