//! `register remove`: takes an instance's key away, and has every load balancer let go if
//! asked to; for an `ExecStop=` or a deploy script.

use std::time::Duration;

use clap::ArgMatches;
use common::handshake::Bookkeeping;
use common::model::{Backend, Key, Revision, Tree};
use common::runtime::{Exit, Signals, print, print_error};
use common::settings::{Layer, Mistakes, Reader};
use common::startup::connect_within;
use common::store::{DeleteOutcome, Etcd, Guard, Store, default_deadline};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::setup::{sources, start, variable};
use crate::config::Removal;
use crate::drain::{Bounds, Goal, Wait};
use crate::handshake::{Ending, wait_for_all, who};
use crate::settings::{REMOVAL, WAIT};

/// How long it tries to connect to etcd: it stops a unit.
const PATIENCE: Duration = Duration::from_secs(5);

/// `register remove`: take this instance's key away, if it is ours.
///
/// # Errors
/// Bad usage, etcd away, or a key that is somebody else's.
pub(super) async fn remove(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let (removal, connection) = start(matches, sources(matches).removal())?;
    let store = connect_within(&connection, PATIENCE).await?;
    let key = &removal.target.key;
    let found = store.read(&[Tree::from(key)], default_deadline()).await?;
    let Some(entry) = found.entries.get(key.as_str()) else {
        print(format_args!("{key} is not registered\n"));
        return Ok(Exit::Done);
    };
    let ours = Backend::parse(&entry.value).is_ok_and(|b| b.addr == removal.target.addr);
    if !ours {
        let value = String::from_utf8_lossy(&entry.value);
        anyhow::bail!(
            "{key} holds `{}`, not {}: left alone",
            value.escape_debug(),
            removal.target.addr
        );
    }
    if let Err(error) = mark(&store, &removal).await {
        tracing::warn!(%error, "a load balancer that loses most of its backends may hold this one");
    }
    let revision = take_away(&store, key, &entry.value).await?;
    print(format_args!("{key} removed\n"));
    if waits(matches) {
        let signals = Signals::listen()?;
        let process = &removal.process;
        let bounds = process.bounds();
        let bookkeeping = Bookkeeping::below(&process.bookkeeping)?;
        let removed = Removed { key, value: &entry.value, at: revision };
        wait(&store, removed, &bookkeeping, &bounds, &signals.drain).await
    } else {
        Ok(Exit::Done)
    }
}

fn waits(matches: &ArgMatches) -> bool {
    let layer = Layer::from_matches(matches, REMOVAL.settings, &variable);
    Reader::new(&layer, "", &mut Mistakes::default()).yes(&WAIT)
}

/// Says that the key goes on purpose. Whoever doubts a sudden loss would hold it
/// while its backend answers. The mark lapses by itself.
async fn mark(store: &Etcd, removal: &Removal) -> anyhow::Result<()> {
    let bookkeeping = Bookkeeping::below(&removal.process.bookkeeping)?;
    if let Some((key, value)) = bookkeeping.leave_marker(&removal.target.key) {
        let lease = store.grant(removal.process.ttl, default_deadline()).await?;
        store.put(&key, &value, lease, &Guard::Absent, default_deadline()).await?;
    }
    Ok(())
}

/// What was taken away, and when.
struct Removed<'a> {
    key: &'a Key,
    value: &'a [u8],
    at: Revision,
}

/// Waits as `run` does; twice, if the store is restored meanwhile and has the key again.
async fn wait(
    store: &impl Store,
    mut removed: Removed<'_>,
    bookkeeping: &Bookkeeping,
    bounds: &Bounds,
    abort: &CancellationToken,
) -> anyhow::Result<Exit> {
    let mut last = String::new();
    for _ in 0..2 {
        let (key, now) = (removed.key.clone(), Instant::now());
        let wait = Wait::new(key, removed.at, Goal::Left, bounds.clone(), now);
        let tell = |missing: &[String]| {
            let missing = who(missing);
            if last != missing {
                print_error(format_args!("waiting for {missing}"));
                last = missing;
            }
        };
        match wait_for_all(store, bookkeeping, vec![wait], tell, abort).await {
            Ending::Verdicts(verdicts) => {
                verdicts.iter().for_each(|verdict| print(format_args!("{verdict}\n")));
                let confirmed = verdicts.iter().all(|verdict| verdict.confirmed);
                return Ok(if confirmed { Exit::Done } else { Exit::Unconfirmed });
            }
            Ending::Aborted => {
                print("unconfirmed: told to leave now\n");
                return Ok(Exit::Unconfirmed);
            }
            Ending::Regressed(to) => {
                tracing::warn!(%to, "etcd went backwards meanwhile: removing again");
                removed.at = take_away(store, removed.key, removed.value).await?;
            }
        }
    }
    print("unconfirmed: etcd went backwards, and the key may be back\n");
    Ok(Exit::Unconfirmed)
}

/// Removes the key if it has this value; the revision at which it is gone.
async fn take_away(store: &impl Store, key: &Key, value: &[u8]) -> anyhow::Result<Revision> {
    match store.delete(key, &Guard::Value(value.to_vec()), default_deadline()).await? {
        DeleteOutcome::Deleted(revision) | DeleteOutcome::Missing(revision) => Ok(revision),
        DeleteOutcome::Taken { .. } => {
            anyhow::bail!("{key} was written by somebody else just now: left alone")
        }
    }
}

#[cfg(test)]
mod tests {
    use common::handshake::{Consumes, Member};
    use common::store::Memory;

    use super::*;

    /// A load balancer that never says a word.
    fn silent() -> Vec<u8> {
        let member = Member {
            host: "lb-1".into(),
            version: "1".into(),
            instance_id: "b1".into(),
            advertise: None,
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
        let at = take_away(&store, &key, b"10.0.0.1:80").await.unwrap();

        let (abort, bounds) = (CancellationToken::new(), Bounds::default());
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
