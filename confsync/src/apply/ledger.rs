//! What is wanted, what is installed, what is live, what was refused; and the one
//! step owed.
//!
//! Pure. Only the world moves it: a written file, a proven generation, a refusal.
//! A reload stays owed until it is proven, across failures and restarts: `live` is
//! unknown at the start.

use std::time::Duration;

use tokio::time::Instant;

use crate::install::Digest;

/// The ledger of one set of files.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    wanted: Option<Digest>,
    /// What of it needs a reload to be live.
    wanted_structure: Option<Digest>,
    installed: Option<Digest>,
    live: Option<Digest>,
    live_structure: Option<Digest>,
    /// What is live was never in the files: its members were changed in the running proxy.
    is_file_behind: bool,
    refused: Option<Refusal>,
    /// No step before this instant: a pause after a failure, or the minimum
    /// interval between reloads. It delays, it never drops.
    not_before: Option<Instant>,
}

/// A digest that was tried and found wanting.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What.
    pub digest: Digest,
    /// In the words of who refused it.
    pub why: String,
    /// How often, in a row.
    pub times: u32,
    /// When it is tried again though nothing changed: the cause may lie in another
    /// file.
    pub again: Instant,
}

/// What is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// What is wanted is live.
    Nothing,
    /// The wanted files are to be checked, installed and loaded.
    Install,
    /// The installed files are to be loaded.
    Reload,
    /// Only members differ from what is live: they are to be changed in the running proxy.
    Publish,
    /// What is live is to be written to the files, without a reload.
    Write,
    /// Something, but not before this instant.
    Later(Instant),
}

/// How long a refused set rests before it is tried again unchanged: what was wrong may
/// have been something else. Doubled each time up to [`LONGEST_REST`].
pub const FIRST_REST: Duration = Duration::from_secs(2);
/// The longest rest of a refused set.
pub const LONGEST_REST: Duration = Duration::from_secs(60);

impl Ledger {
    /// A ledger at the start: the files on disk are known, what runs is not.
    #[must_use]
    pub fn new(installed: Option<Digest>) -> Self {
        Self { installed, ..Self::default() }
    }

    /// The step owed.
    #[must_use]
    pub fn owed(&self, now: Instant) -> Owed {
        let Some(wanted) = &self.wanted else { return Owed::Nothing };
        let is_live = self.live.as_ref() == Some(wanted);
        let is_installed = self.installed.as_ref() == Some(wanted);
        let step = match (is_live, is_installed) {
            (true, true) => return Owed::Nothing,
            (true, false) if self.is_file_behind => Owed::Write,
            (false, _) if self.is_structure_live() => Owed::Publish,
            (_, false) => Owed::Install,
            (false, true) => Owed::Reload,
        };
        let rest = self.refusal().map(|refusal| refusal.again);
        match rest.max(self.not_before) {
            Some(until) if until > now => Owed::Later(until),
            _ => step,
        }
    }

    /// This is wanted from now on. A pause after a failure of something else ends.
    pub fn want(&mut self, digest: Digest) {
        self.want_parts(digest, digest);
    }

    /// As [`Self::want`]; only `structure` needs a reload to be live.
    pub fn want_parts(&mut self, digest: Digest, structure: Digest) {
        if self.wanted.as_ref() != Some(&digest) {
            self.wanted = Some(digest);
            self.not_before = None;
        }
        self.wanted_structure = Some(structure);
    }

    fn is_structure_live(&self) -> bool {
        self.live.is_some() && self.live_structure == self.wanted_structure
    }

    /// These are the files on disk now.
    pub fn installed(&mut self, digest: Option<Digest>) {
        self.installed = digest;
        self.is_file_behind = false;
    }

    /// The installed files are proven to be live.
    pub fn live(&mut self) {
        self.live = self.installed;
        let is_wanted = self.live == self.wanted;
        self.live_structure = if is_wanted { self.wanted_structure } else { self.live };
        self.is_file_behind = false;
        if self.refused.as_ref().map(|r| &r.digest) == self.live.as_ref() {
            self.refused = None;
        }
    }

    /// The proxy has confirmed the members that are wanted, and had their structure before.
    pub fn published(&mut self) {
        (self.live, self.live_structure) = (self.wanted, self.wanted_structure);
        self.is_file_behind = true;
    }

    /// Whether what is live is not in the files yet.
    #[must_use]
    pub fn is_file_behind(&self) -> bool {
        self.is_file_behind
    }

    /// What runs is not known any more: a reload failed or timed out, the process
    /// was replaced.
    pub fn live_unknown(&mut self) {
        self.live = None;
    }

    /// The set was refused; it rests.
    pub fn refuse(&mut self, digest: Digest, why: String, now: Instant) {
        let before = self.refused.as_ref().filter(|r| r.digest == digest).map_or(0, |r| r.times);
        let rest = FIRST_REST.saturating_mul(1 << before.min(10)).min(LONGEST_REST);
        self.refused = Some(Refusal { digest, why, times: before + 1, again: now + rest });
    }

    /// No step before `until`.
    pub fn pause(&mut self, until: Instant) {
        self.not_before = self.not_before.max(Some(until));
    }

    /// A refusal may be looked at again at once: the operator asked (SIGHUP).
    pub fn forget_refusal(&mut self) {
        self.refused = None;
        self.not_before = None;
    }

    /// Why what is wanted is not live, if it was refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refused.as_ref().filter(|r| Some(&r.digest) == self.wanted.as_ref())
    }

    /// Whether what is wanted is live.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.wanted.is_some() && self.live == self.wanted
    }

    /// What is wanted.
    #[must_use]
    pub fn wanted(&self) -> Option<Digest> {
        self.wanted
    }

    /// What is proven to be live.
    #[must_use]
    pub fn proven(&self) -> Option<Digest> {
        self.live
    }

    /// What is on disk.
    #[must_use]
    pub fn on_disk(&self) -> Option<Digest> {
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
        assert_eq!(ledger.owed(now()), Owed::Nothing, "nothing is known to be wanted");
        ledger.want(digest(1));
        assert_eq!(ledger.owed(now()), Owed::Reload);
        ledger.live();
        assert_eq!(ledger.owed(now()), Owed::Nothing);
    }

    #[test]
    fn members_alone_are_published_first_and_written_behind() {
        let now = now();
        let mut ledger = Ledger::new(Some(digest(1)));
        ledger.want_parts(digest(1), digest(7));
        assert_eq!(ledger.owed(now), Owed::Reload, "what runs is not known");
        ledger.live();
        ledger.want_parts(digest(2), digest(7));
        assert_eq!(ledger.owed(now), Owed::Publish);
        ledger.published();
        assert!(ledger.in_sync());
        assert_eq!(ledger.owed(now), Owed::Write);
        ledger.want_parts(digest(3), digest(7));
        assert_eq!(ledger.owed(now), Owed::Publish, "also before it is written");
        ledger.published();
        ledger.installed(Some(digest(3)));
        assert_eq!(ledger.owed(now), Owed::Nothing);
        ledger.installed(Some(digest(4)));
        assert_eq!(ledger.owed(now), Owed::Install, "somebody else wrote the file");
        ledger.installed(Some(digest(3)));
        ledger.want_parts(digest(5), digest(8));
        assert_eq!(ledger.owed(now), Owed::Install, "the structure differs");
        ledger.live_unknown();
        ledger.want_parts(digest(3), digest(7));
        assert_eq!(ledger.owed(now), Owed::Reload);
    }

    #[test]
    fn a_failed_reload_stays_owed_and_a_pause_only_delays_it() {
        let now = now();
        let mut ledger = Ledger::new(None);
        ledger.want(digest(1));
        assert_eq!(ledger.owed(now), Owed::Install);
        ledger.installed(Some(digest(1)));
        ledger.live_unknown();
        let soon = now + Duration::from_secs(1);
        ledger.pause(soon);
        assert_eq!(ledger.owed(now), Owed::Later(soon));
        assert_eq!(ledger.owed(soon), Owed::Reload);
    }

    #[test]
    fn a_refused_set_rests_until_it_changes_or_its_time_has_come() {
        let now = now();
        let mut ledger = Ledger::new(Some(digest(1)));
        ledger.want(digest(2));
        ledger.refuse(digest(2), "no".into(), now);
        assert_eq!(ledger.owed(now), Owed::Later(now + FIRST_REST));
        assert_eq!(ledger.owed(now + FIRST_REST), Owed::Install);
        for _ in 0..40 {
            ledger.refuse(digest(2), "no".into(), now);
        }
        assert_eq!(ledger.owed(now), Owed::Later(now + LONGEST_REST));
        ledger.want(digest(3));
        assert_eq!(ledger.owed(now), Owed::Install);
        assert!(ledger.refusal().is_none());
    }

    #[test]
    fn a_pause_after_a_failure_does_not_keep_something_new_waiting() {
        let now = now();
        let mut ledger = Ledger::new(None);
        ledger.want(digest(1));
        ledger.pause(now + LONGEST_REST);
        ledger.want(digest(1));
        assert_eq!(ledger.owed(now), Owed::Later(now + LONGEST_REST));
        ledger.want(digest(2));
        assert_eq!(ledger.owed(now), Owed::Install);
    }

    proptest! {
        /// Whatever happened, doing what is owed leads to `live == wanted`.
        #[test]
        fn doing_what_is_owed_ends_in_sync(events in proptest::collection::vec((0u8..9, 0u8..4), 0..30)) {
            let mut at = now();
            let mut ledger = Ledger::new(None);
            for (event, n) in events {
                match event {
                    0 => ledger.want(digest(n)),
                    1 => ledger.installed(Some(digest(n))),
                    2 => ledger.live(),
                    3 => ledger.live_unknown(),
                    4 => ledger.refuse(digest(n), "no".into(), at),
                    5 => ledger.pause(at + Duration::from_secs(n.into())),
                    6 => ledger.want_parts(digest(n), digest(n % 2)),
                    7 => ledger.published(),
                    _ => ledger = Ledger::new(ledger.on_disk()),
                }
            }
            ledger.want_parts(digest(9), digest(0));
            for _ in 0..10 {
                match ledger.owed(at) {
                    Owed::Nothing => break,
                    Owed::Later(until) => at = until,
                    Owed::Install => ledger.installed(ledger.wanted()),
                    Owed::Reload => ledger.live(),
                    Owed::Publish => ledger.published(),
                    Owed::Write => ledger.installed(ledger.wanted()),
                }
            }
            prop_assert!(ledger.in_sync());
            prop_assert_eq!(ledger.on_disk(), ledger.wanted());
        }
    }
}
