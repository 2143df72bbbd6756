//! The wait that is looked at: `register`'s own, shown pictures of etcd.

use std::sync::Arc;

use common::handshake::{self, Bookkeeping, Consumes, Rejection};
use common::model::{Entry, Revision, Snapshot};
use register::handshake::{
    DrainResult, Goal, HandshakeResult, LoadBalancerWait, WaitBounds, WaitProgress,
};
use tokio::time::Instant;

use crate::balancer::Keys;
use crate::setup::{Etcd, Role, Rule, Setup};

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Waiter {
    /// It has not written to etcd.
    Before,
    Waiting(Box<Waiting>),
    /// It has stopped, or reported that it is ready. What is left to know of one load
    /// balancer: whether it was named as one that did not confirm.
    Over {
        named: bool,
    },
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Waiting {
    pub(crate) wait: LoadBalancerWait,
    began: Instant,
    now: Instant,
}

impl Waiting {
    /// From the write on, which the revision is of.
    pub(crate) fn begin(setup: &Setup, etcd: Etcd, now: Instant) -> Self {
        let (key, goal) = match setup.role {
            Role::Leaver if setup.breaks(Rule::StopAtApplied) => ("leaver", Goal::Served),
            Role::Leaver => ("leaver", Goal::Drained),
            Role::Joiner => ("joiner", Goal::Served),
        };
        let change = etcd.revision - u64::from(setup.breaks(Rule::ReadyTooSoon));
        let key = format!("/services/apache/{key}").parse().unwrap();
        let wait = LoadBalancerWait::new(key, Revision(change), goal, WaitBounds::default(), now);
        Self { wait, began: now, now }
    }

    /// Reads members and acknowledgements. `Some`: that ended the wait.
    pub(crate) fn look(&mut self, keys: [Keys; 2]) -> Option<HandshakeResult> {
        let book = Bookkeeping::below(&"/confsync".parse().unwrap()).unwrap();
        self.wait.observe(&snapshot(keys), &book, self.now);
        self.verdict()
    }

    /// The clock jumps to the next bound.
    pub(crate) fn time_passes(&mut self) -> Option<HandshakeResult> {
        if let WaitProgress::Waiting { until } = self.wait.progress(self.now) {
            self.now = until;
        }
        self.verdict()
    }

    fn verdict(&self) -> Option<HandshakeResult> {
        match self.wait.progress(self.now) {
            WaitProgress::Over(verdict) => Some(verdict),
            WaitProgress::Waiting { .. } => None,
        }
    }

    /// No wait is without a bound, and no load balancer is given up at once.
    pub(crate) fn judge(&self) -> Result<(), String> {
        match self.wait.progress(self.now) {
            WaitProgress::Waiting { until }
                if until <= self.now || until > self.wait.deadline() =>
            {
                Err("a wait without bound".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Who is named was waited for.
    pub(crate) fn judge_end(&self, verdict: &HandshakeResult) -> Result<(), String> {
        let waited = self.now - self.began;
        if verdict.summary() == DrainResult::Unconfirmed && waited < WaitBounds::default().lost {
            return Err(format!("`{verdict}` after {waited:?}"));
        }
        Ok(())
    }
}

/// Whether the verdict says that load balancer `which` may not have followed. Without
/// a look at etcd no load balancer is known, and the verdict names etcd.
pub(crate) fn names(verdict: &HandshakeResult, which: usize) -> bool {
    let is_meant = |name: &str| name == name_of(which);
    verdict.unconfirmed.iter().any(|(name, _)| is_meant(name))
        || verdict.unknown.iter().any(|(place, _)| *place == "etcd")
        || verdict.assumed.iter().any(|name| is_meant(name))
}

fn name_of(which: usize) -> String {
    format!("lb-{which}")
}

fn snapshot(keys: [Keys; 2]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (which, keys) in keys.iter().enumerate() {
        if let Some(member) = keys.member {
            let trees = vec!["/services/apache".to_owned()];
            let member = handshake::Member {
                host: "host".into(),
                version: "1".into(),
                instance_id: member.boot.to_string(),
                advertise: None,
                status: None,
                resources: vec![Consumes { name: "web".into(), trees }],
                left: member.left,
            };
            add(&mut snapshot, format!("/confsync/members/{}", name_of(which)), &member, 0);
        }
        if let Some(ack) = keys.ack {
            let ack = handshake::Ack {
                instance_id: ack.boot.to_string(),
                applied: Revision(ack.applied),
                quiesced: Revision(ack.quiesced),
                retained: vec![],
                assumed: ack.assumed,
                rejected: ack.too_few.map(|revision| Rejection {
                    revision: Revision(revision),
                    reason: "no backend is registered".into(),
                    too_few_backends: true,
                }),
                trouble: None,
                rejected_values: 0,
                driver: None,
            };
            add(
                &mut snapshot,
                format!("/confsync/acks/web/{}", name_of(which)),
                &ack,
                ack.applied.0,
            );
        }
    }
    snapshot
}

/// A key that was written after this revision.
fn add(snapshot: &mut Snapshot, key: String, value: &impl serde::Serialize, after: u64) {
    let value = serde_json::to_string(value).unwrap();
    let entry = Entry { lease: 1, ..Entry::new(key, value.as_str(), Revision(after + 1)) };
    snapshot.entries.insert(Arc::clone(&entry.key), entry);
}
