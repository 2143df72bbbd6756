//! Evidence about backends that vanished: who said that it leaves, who still
//! accepts connections.
//!
//! Asks etcd once and every backend once, all at the same time, within a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use common::handshake::{Acceptance, Bookkeeping, LeaveMarker};
use common::model::Endpoint;
use common::store::{Store, StoreError};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::backends::ParsedKeys;
use crate::backends::known::{KnownBackends, MissingBackends};
use crate::backends::loss_policy::{LossEvidence, LossPolicy, RenderDecision};

/// How long a backend may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(1000);
/// How many are asked at once.
const AT_ONCE: usize = 256;

/// What others say of losses, in etcd.
#[derive(Debug, Default)]
struct Statements {
    /// Keys that are removed on purpose.
    leaving: BTreeSet<String>,
    /// The losses that an operator accepts, by resource.
    accepted: BTreeMap<String, Acceptance>,
}

/// One look at one resource's losses.
#[derive(Debug)]
pub struct LossCheck<'a, S> {
    /// Where others say what they know.
    pub store: &'a S,
    /// Below which keys.
    pub bookkeeping: &'a Bookkeeping,
    /// The resource.
    pub name: &'a str,
    /// What it says about losses.
    pub policy: &'a LossPolicy,
    /// The store went backwards less than the grace ago.
    pub regressed: bool,
    /// Somebody looks again when the grace is over; a single run has no later, and renders.
    pub may_wait: bool,
    /// There is a file that can be kept.
    pub in_place: bool,
    /// The resource has a file only for its backends, so that none at all is a loss.
    pub is_about_backends: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct LossOutcome {
    /// The keys that were added to what is seen: absent, and routed to all the same.
    pub retained: BTreeSet<String>,
    /// Why too few backends are left for them to be all; the retained are then the rest.
    pub too_few: Option<String>,
}

impl<S: Store> LossCheck<'_, S> {
    /// Looks into the losses of `seen`, and adds to it what is retained.
    pub async fn look(&self, belief: &mut KnownBackends, seen: &mut ParsedKeys) -> LossOutcome {
        let doubt = belief.doubt(self.policy, seen, self.regressed);
        if doubt.is_none() && self.too_few(belief, seen.backend_count()).is_none() {
            return LossOutcome::default();
        }
        let said = self.read_statements().await;
        belief.hear_leaving(&said.leaving);
        let word = said.accepted.get(self.name);
        if let Some(word) = word.filter(|word| belief.accept(word, seen)) {
            let (name, keys) = (self.name, word.keys.len());
            tracing::info!(resource = name, keys, "an operator accepted the loss");
            return LossOutcome::default();
        }
        let retained = match doubt {
            Some(doubt) => self.ask_around(belief, seen, &doubt).await,
            None => BTreeSet::new(),
        };
        let too_few = self.too_few(belief, seen.backend_count());
        let retained = if too_few.is_some() { belief.hold_all(seen) } else { retained };
        LossOutcome { retained, too_few }
    }

    /// Why `count` backends are too few to be rendered.
    fn too_few(&self, belief: &mut KnownBackends, count: usize) -> Option<String> {
        let had = belief.backends().next().is_some();
        // With nothing in place there is nothing to keep.
        let may_keep = self.in_place && (had || count > 0 || self.is_about_backends);
        match self.policy.weigh(count, self.regressed && self.may_wait) {
            RenderDecision::Render => {
                belief.end_acceptance();
                None
            }
            RenderDecision::Keep { why } => (may_keep && !belief.is_accepted(count)).then_some(why),
        }
    }

    /// What still answers, and what nobody could be asked about, is retained.
    async fn ask_around(
        &self,
        belief: &KnownBackends,
        seen: &mut ParsedKeys,
        doubt: &MissingBackends,
    ) -> BTreeSet<String> {
        let evidence = gather(belief, doubt).await;
        let held = belief.hold(seen, &evidence, doubt);
        if !held.is_subset(belief.held()) {
            tracing::warn!(
                resource = self.name,
                held = held.len(),
                gone = doubt.missing.len() - held.len(),
                "{}: who still answers is held",
                doubt.why
            );
        }
        held
    }

    /// etcd's silence about who leaves is no evidence against anybody: those who answer are
    /// then retained.
    async fn read_statements(&self) -> Statements {
        let deadline = Instant::now() + CONNECT;
        let both = [self.bookkeeping.leave_markers(), self.bookkeeping.acceptances()];
        let found = match self.store.read(&both, deadline).await {
            // Who may read no acceptances has none.
            Err(StoreError::Denied(_)) => {
                let deadline = Instant::now() + CONNECT;
                self.store.read(&[self.bookkeeping.leave_markers()], deadline).await
            }
            found => found,
        };
        let Ok(found) = found else {
            tracing::warn!("cannot read who leaves on purpose; whoever still answers is held");
            return Statements::default();
        };
        let mut said = Statements::default();
        for entry in found.entries.values() {
            if let Some(resource) = self.bookkeeping.accepted_resource(&entry.key) {
                let word = serde_json::from_slice(&entry.value);
                said.accepted.extend(word.ok().map(|word| (resource.to_owned(), word)));
            } else if let Ok(LeaveMarker { key, .. }) = serde_json::from_slice(&entry.value) {
                said.leaving.insert(key);
            }
        }
        said
    }
}

/// Asks every backend that may be lost. One whose address belongs to somebody who leaves on
/// purpose leaves with them, whatever its own key is.
async fn gather(belief: &KnownBackends, doubt: &MissingBackends) -> BTreeMap<String, LossEvidence> {
    let leaving = belief.left_addresses();
    let mut evidence = BTreeMap::new();
    let mut asking = JoinSet::new();
    for (key, addr) in doubt.missing.clone() {
        if leaving.contains(&addr) {
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

/// Which of these refuse connections. Who is silent is not in the answer: it may be us who
/// cannot reach anybody.
pub async fn refusing<K: Ord + Send + 'static>(asked: Vec<(K, Endpoint)>) -> BTreeMap<K, bool> {
    let (mut answers, mut asking) = (BTreeMap::new(), JoinSet::new());
    for (key, addr) in asked {
        if asking.len() >= AT_ONCE {
            answers.extend(asking.join_next().await.and_then(Result::ok).flatten());
        }
        asking.spawn(async move {
            let place = (addr.host().to_string(), addr.port());
            match timeout(CONNECT, TcpStream::connect(place)).await {
                Ok(Ok(_)) => Some((key, false)),
                Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Some((key, true)),
                _ => None,
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        answers.extend(asked.ok().flatten());
    }
    answers
}

async fn ask(addr: &Endpoint) -> LossEvidence {
    match timeout(CONNECT, TcpStream::connect((addr.host().to_string(), addr.port()))).await {
        Ok(Ok(_)) => LossEvidence::Answers,
        _ => LossEvidence::Silent,
    }
}
