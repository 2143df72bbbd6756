//! Gathers the evidence about lost backends: which ones deregistered on purpose, and which still
//! accept connections.
//!
//! Reads etcd once and probes every backend once, concurrently and in bounded time.

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

/// The timeout of one connection attempt.
const CONNECT: Duration = Duration::from_millis(1000);
/// How many backends are probed concurrently.
const AT_ONCE: usize = 256;

/// What etcd has about losses.
#[derive(Debug, Default)]
struct Statements {
    /// Keys with a leave marker.
    leaving: BTreeSet<String>,
    /// Acceptances of a loss by an operator, by resource.
    accepted: BTreeMap<String, Acceptance>,
}

/// The check of one resource's losses.
#[derive(Debug)]
pub struct LossCheck<'a, S> {
    /// The store with leave markers and acceptances.
    pub store: &'a S,
    /// Their prefix.
    pub bookkeeping: &'a Bookkeeping,
    /// The name of the resource.
    pub name: &'a str,
    /// Its policy on losses.
    pub policy: &'a LossPolicy,
    /// The store has regressed less than the grace ago.
    pub regressed: bool,
    /// The losses are checked again when the grace is over; a single run has no later, and renders.
    pub may_wait: bool,
    /// A file is in place that can be kept.
    pub in_place: bool,
    /// The resource's file exists only for its backends, so that having none at all is a loss.
    pub is_about_backends: bool,
}

/// The result of a check.
#[derive(Debug, Default)]
pub struct LossOutcome {
    /// The keys that were added to `seen`: absent from etcd and still routed to.
    pub retained: BTreeSet<String>,
    /// Why the backends that are left are too few; the retained ones make up for it.
    pub too_few: Option<String>,
}

impl<S: Store> LossCheck<'_, S> {
    /// Verifies the losses of `seen`, and adds the retained backends to it.
    pub async fn look(&self, known: &mut KnownBackends, seen: &mut ParsedKeys) -> LossOutcome {
        let losses = known.unverified_losses(self.policy, seen, self.regressed);
        if losses.is_none() && self.too_few(known, seen).is_none() {
            return LossOutcome::default();
        }
        let statements = self.read_statements().await;
        known.note_leaving(&statements.leaving);
        let word = statements.accepted.get(self.name);
        if let Some(word) = word.filter(|word| known.accept(word, seen)) {
            let (name, keys) = (self.name, word.keys.len());
            tracing::info!(resource = name, keys, "an operator accepted the loss");
            return LossOutcome::default();
        }
        let retained = match losses {
            Some(losses) => self.verify(known, seen, &losses).await,
            None => BTreeSet::new(),
        };
        let too_few = self.too_few(known, seen);
        let retained = if too_few.is_some() { known.retain_all_lost(seen) } else { retained };
        LossOutcome { retained, too_few }
    }

    /// Why the backends of `seen` are too few to be rendered, if they are.
    fn too_few(&self, known: &mut KnownBackends, seen: &ParsedKeys) -> Option<String> {
        let had = !known.backends().is_empty();
        // A folder of foreign values is not empty; but beside backends that were there, one such
        // value does not make up for the loss of them.
        let foreign = if had { 0 } else { seen.foreign_count() };
        let count = seen.backend_count() + foreign;
        // Without a file in place there is nothing to keep.
        let may_keep = self.in_place && (had || count > 0 || self.is_about_backends);
        match self.policy.weigh(count, self.regressed && self.may_wait) {
            RenderDecision::Render => {
                known.end_acceptance();
                None
            }
            RenderDecision::Keep { why } => (may_keep && !known.is_accepted(count)).then_some(why),
        }
    }

    /// Retains every missing backend that accepts connections or could not be probed.
    async fn verify(
        &self,
        known: &KnownBackends,
        seen: &mut ParsedKeys,
        losses: &MissingBackends,
    ) -> BTreeSet<String> {
        let evidence = gather(known, losses).await;
        let retained = known.retain_lost(seen, &evidence, losses);
        if !retained.is_subset(known.retained()) {
            tracing::warn!(
                resource = self.name,
                retained = retained.len(),
                gone = losses.missing.len() - retained.len(),
                "{}: retaining unregistered backends that still accept connections; if they are \
                 meant to be gone: confsync accept {}",
                losses.why,
                self.name
            );
        }
        retained
    }

    /// Leave markers that cannot be read are no evidence that a backend failed: those that accept
    /// connections are retained.
    async fn read_statements(&self) -> Statements {
        let deadline = Instant::now() + CONNECT;
        let both = [self.bookkeeping.leave_markers(), self.bookkeeping.acceptances()];
        let found = match self.store.read(&both, deadline).await {
            // Without the right to read acceptances, there are none.
            Err(StoreError::Denied(_)) => {
                let deadline = Instant::now() + CONNECT;
                self.store.read(&[self.bookkeeping.leave_markers()], deadline).await
            }
            found => found,
        };
        let Ok(found) = found else {
            tracing::warn!(
                "cannot read leave markers; retaining every backend that still accepts connections"
            );
            return Statements::default();
        };
        let mut statements = Statements::default();
        for entry in found.entries.values() {
            if let Some(resource) = self.bookkeeping.accepted_resource(&entry.key) {
                let word = serde_json::from_slice(&entry.value);
                statements.accepted.extend(word.ok().map(|word| (resource.to_owned(), word)));
            } else if let Ok(LeaveMarker { key, .. }) = serde_json::from_slice(&entry.value) {
                statements.leaving.insert(key);
            }
        }
        statements
    }
}

/// Probes every backend that may be lost. One whose address belongs to a backend that deregisters
/// on purpose counts as leaving too, whatever its own key.
async fn gather(known: &KnownBackends, losses: &MissingBackends) -> BTreeMap<String, LossEvidence> {
    let leaving = known.left_addresses();
    let mut evidence = BTreeMap::new();
    let mut asking = JoinSet::new();
    for (key, addr) in losses.missing.clone() {
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

/// Which of these refuse connections. One that does not answer at all is left out: the fault may be
/// on our side.
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
