//! `confsync accept`: an operator confirms that a loss which load balancers withhold is intended.
//! The acceptance is written to etcd for as long as this command runs, names the keys that are
//! retained now, and each load balancer acts on it once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use common::handshake::{Acceptance, Ack, Bookkeeping, Member};
use common::model::{Key, Snapshot, Ttl, plural};
use common::runtime::{Exit, print};
use common::store::{Guard, Lease, PutOutcome, Store, default_deadline, read_deadline};
use common::watch::{Options, WatchLog, follow};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::status::load_balancers::{self, Fleet};

/// How long the load balancers may take: they check every two seconds, and then reload.
const PATIENCE: Duration = Duration::from_secs(30);
/// The lease of the acceptance, in case the command is killed.
const ACCEPTANCE_TTL: Duration = Duration::from_secs(45);

/// What one load balancer does about the loss.
#[derive(Debug, PartialEq, Eq)]
enum LossAcceptance {
    /// It retains nothing.
    Done,
    /// It still retains the lost backends.
    Withholds,
    /// It has accepted the loss, but cannot apply it.
    Rejected(String),
}

/// Lets all load balancers that withhold a loss of `resource` accept it.
pub(super) async fn accept<S: Store>(
    store: &S,
    bookkeeping: &Bookkeeping,
    resource: &str,
) -> anyhow::Result<Exit> {
    let trees = [bookkeeping.members(), bookkeeping.acks()];
    let found = store.read(&trees, read_deadline()).await?;
    let fleet = load_balancers::read(&found, bookkeeping);
    let withholding = withholding(&fleet, resource)?;
    if withholding.is_empty() {
        print(format_args!("nothing to accept: no load balancer withholds a loss of {resource}\n"));
        return Ok(Exit::Done);
    }
    let keys: BTreeSet<String> =
        withholding.iter().flat_map(|(_, ack)| ack.retained.iter().cloned()).collect();
    for (lb, ack) in &withholding {
        let (count, keys) = (plural(ack.retained.len(), "backend"), ack.retained.join(", "));
        print(format_args!("{lb}: accepting the loss of {count} {keys}\n"));
    }
    let names: BTreeSet<String> = withholding.iter().map(|(lb, _)| (*lb).to_owned()).collect();
    let id = format!("{:08x}{:08x}", fastrand::u32(..), fastrand::u32(..));
    let value = serde_json::to_vec(&Acceptance { id, keys })?;
    let key = bookkeeping.acceptance(resource)?;
    let lease = write(store, &key, &value).await.with_context(|| format!("cannot write {key}"))?;
    let exit = wait_until_accepted(store, bookkeeping, resource, names).await;
    // It expires by itself in any case.
    let _ = store.delete(&key, &Guard::Value(value), default_deadline()).await;
    let _ = store.revoke(lease, default_deadline()).await;
    exit
}

/// The load balancers that withhold a loss of `resource`.
fn withholding<'f>(fleet: &'f Fleet, resource: &str) -> anyhow::Result<Vec<(&'f str, &'f Ack)>> {
    let resources = fleet.values().flat_map(|(member, _)| &member.resources);
    let names: BTreeSet<&str> = resources.map(|consumes| consumes.name.as_str()).collect();
    if !names.contains(resource) {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        match &*names {
            "" => bail!("no load balancer is registered, so none withholds a loss of `{resource}`"),
            names => bail!("no load balancer renders `{resource}`; they render: {names}"),
        }
    }
    let of = |(lb, (member, acks)): (&'f String, &'f (Member, BTreeMap<String, Ack>))| {
        let ack = acks.get(resource).filter(|ack| ack.instance_id == member.instance_id)?;
        (state(ack) == LossAcceptance::Withholds).then_some((lb.as_str(), ack))
    };
    Ok(fleet.iter().filter_map(of).collect())
}

fn state(ack: &Ack) -> LossAcceptance {
    match &ack.rejected {
        Some(rejection) if rejection.too_few_backends => LossAcceptance::Withholds,
        Some(rejection) => LossAcceptance::Rejected(rejection.reason.clone()),
        None if ack.retained.is_empty() => LossAcceptance::Done,
        None => LossAcceptance::Withholds,
    }
}

/// Writes the acceptance, in place of an earlier one.
async fn write<S: Store>(store: &S, key: &Key, value: &[u8]) -> anyhow::Result<Lease> {
    let lease = store.grant(Ttl::new(ACCEPTANCE_TTL)?, default_deadline()).await?;
    let mut guard = Guard::Absent;
    for _ in 0..3 {
        match store.put(key, value, lease, &guard, default_deadline()).await? {
            PutOutcome::Written(_) => return Ok(lease),
            PutOutcome::Taken { by, .. } => guard = Guard::Value(by.value.to_vec()),
            PutOutcome::Missing { .. } => guard = Guard::Absent,
            PutOutcome::LeaseLost => bail!("etcd does not know the lease that it granted"),
        }
    }
    bail!("another process wrote it at the same time; try again")
}

/// Waits until none of `names` withholds the loss, and reports how each ended.
async fn wait_until_accepted<S: Store>(
    store: &S,
    bookkeeping: &Bookkeeping,
    resource: &str,
    mut names: BTreeSet<String>,
) -> anyhow::Result<Exit> {
    let (trees, end) = (vec![bookkeeping.members(), bookkeeping.acks()], CancellationToken::new());
    let _ended = end.clone().drop_guard();
    let options = Options { log: WatchLog::Trouble, ..Options::default() };
    let mut view = follow(store.clone(), trees, options, end);
    let mut exit = Exit::Done;
    let all = async {
        while !names.is_empty() && view.changed().await.is_ok() {
            let Some(snapshot) = view.borrow_and_update().snapshot.clone() else { continue };
            names.retain(|lb| {
                let outcome = match state_of(&snapshot, bookkeeping, resource, lb) {
                    Some(LossAcceptance::Withholds) => return true,
                    Some(LossAcceptance::Done) => "accepted".to_owned(),
                    Some(LossAcceptance::Rejected(why)) => {
                        exit = Exit::Failed;
                        format!("accepted, but the last files stay: {why}")
                    }
                    None => "no longer registered".to_owned(),
                };
                print(format_args!("{lb}: {outcome}\n"));
                false
            });
        }
    };
    let _ = timeout(PATIENCE, all).await;
    for lb in &names {
        print(format_args!(
            "{lb}: still withholds the loss; more backends may be lost by now: try again\n"
        ));
        exit = Exit::Failed;
    }
    Ok(exit)
}

fn state_of(
    snapshot: &Snapshot,
    bookkeeping: &Bookkeeping,
    resource: &str,
    lb: &str,
) -> Option<LossAcceptance> {
    let fleet = load_balancers::read(snapshot, bookkeeping);
    Some(fleet.get(lb)?.1.get(resource).map_or(LossAcceptance::Withholds, state))
}
