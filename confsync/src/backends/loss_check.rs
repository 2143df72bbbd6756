//! Evidence about backends that vanished: who said that it leaves, who still
//! accepts connections.
//!
//! Asks etcd once and every backend once, all at the same time, within a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::handshake::{Bookkeeping, LeaveMarker};
use common::model::Endpoint;
use common::store::Store;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::backends::ParsedKeys;
use crate::backends::known::{KnownBackends, MissingBackends};
use crate::backends::loss_policy::{LossEvidence, LossPolicy};

/// How long a backend may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(1000);
/// How many are asked at once.
const AT_ONCE: usize = 256;

/// Gathers the evidence. etcd's silence about who leaves is no evidence against
/// anybody: those who answer are then held.
pub async fn gather<S: Store>(
    store: &S,
    bookkeeping: &Bookkeeping,
    doubt: &MissingBackends,
) -> BTreeMap<String, LossEvidence> {
    let leaving = leaving(store, bookkeeping).await;
    let mut evidence = BTreeMap::new();
    let mut asking = JoinSet::new();
    for (key, addr) in doubt.missing.clone() {
        if leaving.contains(&key) {
            evidence.insert(key, LossEvidence::Leaving);
            continue;
        }
        if asking.len() >= AT_ONCE {
            evidence.extend(asking.join_next().await.and_then(Result::ok));
        }
        asking.spawn(async move {
            let found = ask(&addr).await;
            (key, found)
        });
    }
    while let Some(asked) = asking.join_next().await {
        evidence.extend(asked.ok());
    }
    evidence
}

/// Looks into the losses of `seen`, and adds to it what is held; the keys held are
/// returned.
pub async fn hold<S: Store>(
    store: &S,
    bookkeeping: &Bookkeeping,
    name: &str,
    policy: &LossPolicy,
    belief: &KnownBackends,
    seen: &mut ParsedKeys,
    regressed: bool,
) -> BTreeSet<String> {
    let Some(doubt) = belief.doubt(policy, seen, regressed) else {
        return BTreeSet::new();
    };
    let evidence = gather(store, bookkeeping, &doubt).await;
    let held = belief.hold(seen, &evidence, &doubt);
    if &held != belief.held() {
        tracing::warn!(
            resource = name,
            held = held.len(),
            gone = doubt.missing.len() - held.len(),
            "{}: who still answers is held",
            doubt.why
        );
    }
    held
}

async fn leaving<S: Store>(store: &S, bookkeeping: &Bookkeeping) -> BTreeSet<String> {
    let deadline = Instant::now() + CONNECT;
    let Ok(marks) = store.read(&[bookkeeping.leave_markers()], deadline).await else {
        tracing::warn!("cannot read who leaves on purpose; whoever still answers is held");
        return BTreeSet::new();
    };
    let key = |value: &[u8]| Some(serde_json::from_slice::<LeaveMarker>(value).ok()?.key);
    marks.entries.values().filter_map(|entry| key(&entry.value)).collect()
}

async fn ask(addr: &Endpoint) -> LossEvidence {
    match timeout(CONNECT, TcpStream::connect((addr.host().to_string(), addr.port()))).await {
        Ok(Ok(_)) => LossEvidence::Answers,
        _ => LossEvidence::Silent,
    }
}
