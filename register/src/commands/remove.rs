//! `register remove`: removes an instance's key, and waits until every load balancer has
//! drained it if asked to; for an `ExecStop=` or a deploy script.

use std::time::Duration;

use clap::ArgMatches;
use common::handshake::{Bookkeeping, DrainTimes};
use common::model::{Backend, Entry, Key, Revision, Tree};
use common::runtime::{Exit, Signals, print, print_error};
use common::settings::{Layer, Mistakes, Reader, Setting};
use common::startup::connect_within;
use common::store::{DeleteOutcome, Etcd, Guard, Store, default_deadline};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::setup::{sources, start, variable};
use crate::config::Removal;
use crate::handshake::{
    DrainResult, Goal, HandshakeResult, LoadBalancerWait, MissingLoadBalancer, WaitBounds,
    WaitsEnd, names_or_all, wait_for_all,
};
use crate::settings::{FORCE, REMOVAL, WAIT};

/// How long it tries to connect to etcd: it stops a unit.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes an instance's key, if it has its address.
///
/// # Errors
/// Wrong usage; etcd does not answer; or the key has another address.
pub(super) async fn remove(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let key = matches.get_one::<String>("key").map(String::as_str);
    let removal = sources(matches).removal(key, is_set(matches, &FORCE));
    let (removal, connection) = start(matches, removal)?;
    let store = connect_within(&connection, PATIENCE).await?;
    let key = &removal.key;
    let found = store.read(&[Tree::from(key)], default_deadline()).await?;
    let Some(entry) = found.entries.get(key.as_str()) else {
        print(format_args!("{key} is not registered\n"));
        return Ok(Exit::Done);
    };
    check_owner(&removal, entry)?;
    if let Err(error) = write_leave_marker(&store, &removal).await {
        tracing::warn!("cannot write the leave marker: {error:#}");
    }
    let at = delete(&store, key, &entry.value).await?;
    print(format_args!("{key} removed\n"));
    if !is_set(matches, &WAIT) {
        return Ok(Exit::Done);
    }
    let signals = Signals::listen()?;
    let bookkeeping = Bookkeeping::below(&removal.process.bookkeeping)?;
    let removed = Removed { key, value: &entry.value, at };
    wait(&store, removed, &bookkeeping, &removal.process.bounds(), &signals.drain).await
}

fn check_owner(removal: &Removal, entry: &Entry) -> anyhow::Result<()> {
    let (key, Some(addr)) = (&removal.key, &removal.owner) else { return Ok(()) };
    if Backend::parse(&entry.value).is_ok_and(|backend| backend.addr == *addr) {
        return Ok(());
    }
    let value = String::from_utf8_lossy(&entry.value);
    anyhow::bail!("{key} has the value `{}`, not {addr}: not removed", value.escape_debug())
}

fn is_set(matches: &ArgMatches, switch: &Setting) -> bool {
    let layer = Layer::from_matches(matches, REMOVAL.settings, &variable);
    Reader::new(&layer, "", &mut Mistakes::default()).yes(switch)
}

/// The key goes on purpose: a load balancer that does not accept a sudden loss would retain
/// the backend while it answers. The marker ends by itself.
async fn write_leave_marker(store: &Etcd, removal: &Removal) -> anyhow::Result<()> {
    let bookkeeping = Bookkeeping::below(&removal.process.bookkeeping)?;
    let times = DrainTimes::from_now(removal.process.drain.longest());
    if let Some((key, value)) = bookkeeping.leave_marker(&removal.key, times) {
        let lease = store.grant(removal.process.ttl, default_deadline()).await?;
        store.put(&key, &value, lease, &Guard::Absent, default_deadline()).await?;
    }
    Ok(())
}

/// What was removed, and when.
struct Removed<'a> {
    key: &'a Key,
    value: &'a [u8],
    at: Revision,
}

/// As the drain of a sidekick; once more if the store is restored meanwhile and the key
/// comes back.
async fn wait(
    store: &impl Store,
    mut removed: Removed<'_>,
    bookkeeping: &Bookkeeping,
    bounds: &WaitBounds,
    abort: &CancellationToken,
) -> anyhow::Result<Exit> {
    let mut last = String::new();
    for _ in 0..2 {
        let (key, now) = (removed.key.clone(), Instant::now());
        let wait = LoadBalancerWait::new(key, removed.at, Goal::Drained, bounds.clone(), now);
        let report = |missing: &[MissingLoadBalancer]| {
            let missing = names_or_all(missing);
            if last != missing {
                print_error(format_args!("waiting for {missing}"));
                last = missing;
            }
        };
        match wait_for_all(store, bookkeeping, vec![wait], None, report, abort).await {
            WaitsEnd::Results(results) => {
                results.iter().for_each(|result| print(format_args!("{result}\n")));
                let worst = results.iter().map(HandshakeResult::summary).max();
                return Ok(worst.map_or(Exit::Done, DrainResult::exit));
            }
            WaitsEnd::Aborted => {
                print("unconfirmed: interrupted by a signal\n");
                return Ok(Exit::Unconfirmed);
            }
            WaitsEnd::Regressed(to) => {
                tracing::warn!(%to, "etcd has regressed during the drain: removing the keys again");
                removed.at = delete(store, removed.key, removed.value).await?;
            }
        }
    }
    print("unconfirmed: etcd has regressed, and the key may be back\n");
    Ok(Exit::Unconfirmed)
}

/// Removes the key if it has this value; the revision at which it was removed.
async fn delete(store: &impl Store, key: &Key, value: &[u8]) -> anyhow::Result<Revision> {
    match store.delete(key, &Guard::Value(value.to_vec()), default_deadline()).await? {
        DeleteOutcome::Deleted(revision) | DeleteOutcome::Missing(revision) => Ok(revision),
        DeleteOutcome::Taken { .. } => {
            anyhow::bail!("{key} was written by another process just now: not removed")
        }
    }
}

#[cfg(test)]
mod tests {
    use common::handshake::{Consumes, Member};
    use common::store::Memory;

    use super::*;

    /// A load balancer that never acknowledges anything.
    fn silent() -> Vec<u8> {
        let member = Member {
            host: "lb-1".into(),
            version: "1".into(),
            instance_id: "b1".into(),
            advertise: None,
            status: None,
            resources: vec![Consumes { name: "web".into(), trees: vec!["/services".into()] }],
            left: false,
        };
        serde_json::to_vec(&member).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_a_restored_store_has_again_is_removed_again() {
        let store = Memory::new();
        let bookkeeping = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        let key: Key = "/services/apache/10.0.0.1".parse().unwrap();
        store.set(&bookkeeping.member("lb-1").unwrap(), silent());
        store.set(&key, "10.0.0.1:80");
        let saved = store.save();
        store.set(&"/elsewhere".parse().unwrap(), "x");
        let at = delete(&store, &key, b"10.0.0.1:80").await.unwrap();

        let (abort, bounds) = (CancellationToken::new(), WaitBounds::default());
        let removed = Removed { key: &key, value: b"10.0.0.1:80", at };
        let waiting = wait(&store, removed, &bookkeeping, &bounds, &abort);
        let restored = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            store.restore(&saved);
            assert!(store.value(&key).is_some());
        };
        let (exit, ()) = tokio::join!(waiting, restored);
        assert_eq!(exit.unwrap(), Exit::Unconfirmed);
        assert_eq!(store.value(&key), None);
    }
}
