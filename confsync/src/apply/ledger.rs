//! What is wanted, what is installed, what is active, what was rejected; and the one step that
//! is pending.
//!
//! Pure. Only facts move it: a written file, a proven generation, a rejection. A reload stays
//! pending until it is proven, across failures and restarts: what is active is unknown at the
//! start.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::install::Digest;

/// The ledger of the files of one reload group.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    wanted: Option<Digest>,
    /// What of it needs a reload to be active.
    wanted_structure: Option<Digest>,
    installed: Option<Digest>,
    active: Option<Digest>,
    active_structure: Option<Digest>,
    /// What is active was never in the files: its members were changed in the running proxy.
    is_file_behind: bool,
    rejected: Option<RejectedFiles>,
    /// No step before this instant: a pause after a failure, or the minimum
    /// interval between reloads. It delays, it never drops.
    not_before: Option<Instant>,
    /// What is active is not written to the files before this instant.
    no_write_before: Option<Instant>,
}

/// Files that the proxy, or a check, did not take.
#[derive(Debug, Clone)]
pub struct RejectedFiles {
    pub digest: Digest,
    /// In the words of who rejected it.
    pub why: String,
    /// How often, in a row.
    pub times: u32,
    /// When it is tried again though nothing changed: the cause may lie in another
    /// file.
    pub again: Instant,
}

/// The step that is pending, and why; `Display` says the latter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingStep {
    /// What is wanted is active.
    Nothing,
    /// The wanted files are to be checked, installed and loaded.
    Install,
    /// The installed files are to be loaded.
    Reload,
    /// Only members differ from what is active: they are to be changed in the running proxy.
    Publish,
    /// What is active is to be written to the files, without a reload.
    Write,
    /// Something, but not before this instant.
    NotBefore(Instant),
}

impl fmt::Display for PendingStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "what is wanted is active",
            Self::Install => "the wanted files are not in place",
            Self::Reload => "the files in place are not proven to be active",
            Self::Publish => "only members differ from what is active",
            Self::Write => "the active members are not in the files",
            Self::NotBefore(_) => "the last step failed, or loads are limited",
        })
    }
}

/// How long a rejected group rests before it is tried again unchanged: what was wrong may
/// have been something else. Doubled each time up to [`LONGEST_REST`].
pub const FIRST_REST: Duration = Duration::from_secs(2);
/// The longest rest of a rejected set.
pub const LONGEST_REST: Duration = Duration::from_secs(60);

impl Ledger {
    /// A ledger at the start: the files on disk are known, what runs is not.
    pub fn new(installed: Option<Digest>) -> Self {
        Self { installed, ..Self::default() }
    }

    /// The step that is pending.
    pub fn pending(&self, now: Instant) -> PendingStep {
        let Some(wanted) = &self.wanted else { return PendingStep::Nothing };
        let is_active = self.active.as_ref() == Some(wanted);
        let is_installed = self.installed.as_ref() == Some(wanted);
        let step = match (is_active, is_installed) {
            (true, true) => return PendingStep::Nothing,
            (true, false) if self.is_file_behind => PendingStep::Write,
            (false, _) if self.is_structure_active() => PendingStep::Publish,
            (_, false) => PendingStep::Install,
            (false, true) => PendingStep::Reload,
        };
        let rest = self.rejection().map(|rejection| rejection.again);
        let no_write = self.no_write_before.filter(|_| step == PendingStep::Write);
        match rest.max(self.not_before).max(no_write) {
            Some(until) if until > now => PendingStep::NotBefore(until),
            _ => step,
        }
    }

    /// This is wanted from now on. A pause after a failure of something else ends.
    pub fn want(&mut self, digest: Digest) {
        self.want_parts(digest, digest);
    }

    /// As [`Self::want`]; only `structure` needs a reload to be active.
    pub fn want_parts(&mut self, digest: Digest, structure: Digest) {
        if self.wanted.as_ref() != Some(&digest) {
            self.wanted = Some(digest);
            self.not_before = None;
        }
        self.wanted_structure = Some(structure);
    }

    fn is_structure_active(&self) -> bool {
        self.active.is_some() && self.active_structure == self.wanted_structure
    }

    /// These are the files on disk now.
    pub fn note_installed(&mut self, digest: Option<Digest>) {
        self.installed = digest;
        self.is_file_behind = false;
    }

    /// The installed files are proven to be active.
    pub fn note_active(&mut self) {
        self.active = self.installed;
        let is_wanted = self.active == self.wanted;
        self.active_structure = if is_wanted { self.wanted_structure } else { self.active };
        self.is_file_behind = false;
        if self.rejected.as_ref().map(|r| &r.digest) == self.active.as_ref() {
            self.rejected = None;
        }
    }

    /// The proxy has confirmed the members that are wanted, and had their structure before.
    pub fn note_published(&mut self) {
        (self.active, self.active_structure) = (self.wanted, self.wanted_structure);
        self.is_file_behind = true;
    }

    /// Whether what is live is not in the files yet.
    pub fn is_file_behind(&self) -> bool {
        self.is_file_behind
    }

    /// What runs is not known any more: a reload failed or timed out, the process
    /// was replaced.
    pub fn note_active_unknown(&mut self) {
        self.active = None;
    }

    /// These files were rejected: they are tried again after a pause, which doubles each time.
    pub fn reject(&mut self, digest: Digest, why: String, now: Instant) {
        let before = self.rejected.as_ref().filter(|r| r.digest == digest).map_or(0, |r| r.times);
        let rest = FIRST_REST.saturating_mul(1 << before.min(10)).min(LONGEST_REST);
        self.rejected = Some(RejectedFiles { digest, why, times: before + 1, again: now + rest });
    }

    /// No step before `until`.
    pub fn pause(&mut self, until: Instant) {
        self.not_before = self.not_before.max(Some(until));
    }

    /// What is active is not written to the files before `until`. Other steps do not wait for that.
    pub fn pause_writes(&mut self, until: Instant) {
        self.no_write_before = Some(until);
    }

    /// A rejection may be looked at again at once: the operator asked (SIGHUP).
    pub fn forget_rejection(&mut self) {
        self.rejected = None;
        self.not_before = None;
    }

    /// Why what is wanted is not active, if it was rejected.
    pub fn rejection(&self) -> Option<&RejectedFiles> {
        self.rejected.as_ref().filter(|r| Some(&r.digest) == self.wanted.as_ref())
    }

    /// Whether what is wanted is active.
    pub fn in_sync(&self) -> bool {
        self.wanted.is_some() && self.active == self.wanted
    }

    pub fn wanted(&self) -> Option<Digest> {
        self.wanted
    }

    /// What is proven to be active.
    pub fn active(&self) -> Option<Digest> {
        self.active
    }

    /// What is on disk.
    pub fn installed(&self) -> Option<Digest> {
        self.installed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u8) -> Digest {
        let target = crate::install::Target::new("/x");
        Digest::of(&[crate::install::Candidate { target, bytes: vec![n] }])
    }

    fn now() -> Instant {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { Instant::now() })
    }

    #[test]
    fn after_a_restart_what_is_on_disk_is_loaded_again() {
        let mut ledger = Ledger::new(Some(digest(1)));
        assert_eq!(ledger.pending(now()), PendingStep::Nothing, "nothing is known to be wanted");
        ledger.want(digest(1));
        assert_eq!(ledger.pending(now()), PendingStep::Reload);
        ledger.note_active();
        assert_eq!(ledger.pending(now()), PendingStep::Nothing);
    }

    #[test]
    fn members_alone_are_published_first_and_written_behind() {
        let now = now();
        let mut ledger = Ledger::new(Some(digest(1)));
        ledger.want_parts(digest(1), digest(7));
        assert_eq!(ledger.pending(now), PendingStep::Reload, "what runs is not known");
        ledger.note_active();
        ledger.want_parts(digest(2), digest(7));
        assert_eq!(ledger.pending(now), PendingStep::Publish);
        ledger.note_published();
        assert!(ledger.in_sync());
        assert_eq!(ledger.pending(now), PendingStep::Write);
        ledger.want_parts(digest(3), digest(7));
        assert_eq!(ledger.pending(now), PendingStep::Publish, "also before it is written");
        ledger.note_published();
        ledger.note_installed(Some(digest(3)));
        assert_eq!(ledger.pending(now), PendingStep::Nothing);
        ledger.note_installed(Some(digest(4)));
        assert_eq!(ledger.pending(now), PendingStep::Install, "another process wrote the file");
        ledger.note_installed(Some(digest(3)));
        ledger.want_parts(digest(5), digest(8));
        assert_eq!(ledger.pending(now), PendingStep::Install, "the structure differs");
        ledger.note_active_unknown();
        ledger.want_parts(digest(3), digest(7));
        assert_eq!(ledger.pending(now), PendingStep::Reload);
    }

    #[test]
    fn a_failed_reload_stays_pending_and_a_pause_only_delays_it() {
        let now = now();
        let mut ledger = Ledger::new(None);
        ledger.want(digest(1));
        assert_eq!(ledger.pending(now), PendingStep::Install);
        ledger.note_installed(Some(digest(1)));
        ledger.note_active_unknown();
        let soon = now + Duration::from_secs(1);
        ledger.pause(soon);
        assert_eq!(ledger.pending(now), PendingStep::NotBefore(soon));
        assert_eq!(ledger.pending(soon), PendingStep::Reload);
    }

    #[test]
    fn a_rejected_group_rests_until_it_changes_or_its_time_has_come() {
        let now = now();
        let mut ledger = Ledger::new(Some(digest(1)));
        ledger.want(digest(2));
        ledger.reject(digest(2), "no".into(), now);
        assert_eq!(ledger.pending(now), PendingStep::NotBefore(now + FIRST_REST));
        assert_eq!(ledger.pending(now + FIRST_REST), PendingStep::Install);
        for _ in 0..40 {
            ledger.reject(digest(2), "no".into(), now);
        }
        assert_eq!(ledger.pending(now), PendingStep::NotBefore(now + LONGEST_REST));
        ledger.want(digest(3));
        assert_eq!(ledger.pending(now), PendingStep::Install);
        assert!(ledger.rejection().is_none());
    }

    #[test]
    fn a_pause_after_a_failure_does_not_keep_something_new_waiting() {
        let now = now();
        let mut ledger = Ledger::new(None);
        ledger.want(digest(1));
        ledger.pause(now + LONGEST_REST);
        ledger.want(digest(1));
        assert_eq!(ledger.pending(now), PendingStep::NotBefore(now + LONGEST_REST));
        ledger.want(digest(2));
        assert_eq!(ledger.pending(now), PendingStep::Install);
    }

    proptest! {
        /// Whatever happened, doing what is pending leads to `active == wanted`.
        #[test]
        fn doing_what_is_pending_ends_in_sync(events in proptest::collection::vec((0u8..9, 0u8..4), 0..30)) {
            let mut at = now();
            let mut ledger = Ledger::new(None);
            for (event, n) in events {
                match event {
                    0 => ledger.want(digest(n)),
                    1 => ledger.note_installed(Some(digest(n))),
                    2 => ledger.note_active(),
                    3 => ledger.note_active_unknown(),
                    4 => ledger.reject(digest(n), "no".into(), at),
                    5 => ledger.pause(at + Duration::from_secs(n.into())),
                    6 => ledger.want_parts(digest(n), digest(n % 2)),
                    7 => ledger.note_published(),
                    _ => ledger = Ledger::new(ledger.installed()),
                }
            }
            ledger.want_parts(digest(9), digest(0));
            for _ in 0..10 {
                match ledger.pending(at) {
                    PendingStep::Nothing => break,
                    PendingStep::NotBefore(until) => at = until,
                    PendingStep::Install => ledger.note_installed(ledger.wanted()),
                    PendingStep::Reload => ledger.note_active(),
                    PendingStep::Publish => ledger.note_published(),
                    PendingStep::Write => ledger.note_installed(ledger.wanted()),
                }
            }
            prop_assert!(ledger.in_sync());
            prop_assert_eq!(ledger.installed(), ledger.wanted());
        }
    }
}
