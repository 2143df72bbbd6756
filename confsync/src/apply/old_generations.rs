//! What still runs by an older configuration: workers of older generations, requests to members
//! that left, or, where neither can be seen, what an operator's command reports.

use common::model::Revision;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::quiesce_check::QuiesceCheck;
use super::quiescence::{Quiescence, RetiredUntil};
use crate::proxy::Old;
use crate::proxy::nginx::{is_alive, until_ended};
use crate::proxy::pools::DepartedMember;

/// The old generations of one reload group.
#[derive(Debug)]
pub(super) struct OldGenerations {
    group: String,
    quiescence: Quiescence,
    check: QuiesceCheck,
}

impl OldGenerations {
    /// None is known yet.
    pub(super) fn new(group: String) -> Self {
        Self { group, quiescence: Quiescence::default(), check: QuiesceCheck::default() }
    }

    /// What is active knows every change up to `revision`.
    pub(super) fn note_active(&mut self, revision: Revision) {
        self.quiescence.note_active(revision);
    }

    /// A load was proven: these work by what was active before.
    pub(super) fn retire(&mut self, old: Old, now: Instant) {
        self.quiescence.retire(match old {
            Old::Processes(pids) => RetiredUntil::Gone(pids),
            Old::For(span) => RetiredUntil::Instant(now + span),
            Old::Ask(commands) => RetiredUntil::Confirmed(self.check.begin(&self.group, commands)),
        });
    }

    /// Members left without a load: their requests in flight are waited for.
    pub(super) fn retire_members(&mut self, departed: Vec<DepartedMember>) {
        if !departed.is_empty() {
            self.quiescence.retire(RetiredUntil::Drained(departed));
        }
    }

    /// Requests to members that left are not counted any more: their workers are waited for,
    /// which the next load retires.
    pub(super) fn wait_for_next_load(&mut self) {
        self.quiescence.wait_for_next_load();
    }

    /// The members that left and are waited for, each once.
    pub(super) fn departed(&self) -> Vec<DepartedMember> {
        let mut departed: Vec<_> = self.quiescence.departed().cloned().collect();
        departed.sort();
        departed.dedup();
        departed
    }

    /// Nothing is in flight to this member any more.
    pub(super) fn drained(&mut self, member: &DepartedMember) {
        self.quiescence.drained(member);
    }

    /// Resolves when one of the workers has ended, or a command has confirmed that nothing of before
    /// is left.
    pub(super) async fn news(&self) {
        let mut ended: FuturesUnordered<_> = self.quiescence.workers().map(until_ended).collect();
        tokio::select! {
            Some(()) = ended.next() => {}
            () = self.check.answered() => {}
        }
    }

    /// When the wait for those ends that cannot be observed.
    pub(super) fn first_instant(&self) -> Option<Instant> {
        self.quiescence.first_instant()
    }

    /// Whether requests to members that left are waited for.
    pub(super) fn waits_for_requests(&self) -> bool {
        self.quiescence.departed().next().is_some()
    }

    /// Whether workers of an older generation are waited for.
    pub(super) fn waits_for_workers(&self) -> bool {
        self.quiescence.waits_for_workers()
    }

    /// Up to which revision nothing works by an older one. `applied`: up to where what is wanted
    /// is active, if it is.
    pub(super) fn quiesced(&mut self, applied: Option<Revision>, now: Instant) -> Revision {
        self.quiescence.confirmed(self.check.confirmed());
        self.quiescence.look(applied, now, is_alive)
    }

    /// etcd regressed: the revisions of before mean nothing now.
    pub(super) fn forget_revisions(&mut self) {
        self.quiescence.forget();
    }

    /// How many generations are waited for.
    pub(super) fn count(&self) -> usize {
        self.quiescence.retiring()
    }
}
