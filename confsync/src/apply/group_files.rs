//! The files of one reload group on disk: staged, installed, and kept or rolled back. It has the
//! locks, knows which files in place are not proven yet, and notices when another process writes.
//!
//! What to do when, is decided elsewhere.

use std::collections::VecDeque;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::install::{
    DestLock, Digest, InstallError, InstalledFiles, Proof, Recovered, StagedFiles, Stamp, Target,
    Wanted, clean_stale, current, recover,
};

/// The files of one reload group.
#[derive(Debug)]
pub(super) struct GroupFiles {
    group: String,
    targets: Vec<Target>,
    /// No other process writes the targets.
    locks: Vec<DestLock>,
    written: VecDeque<WrittenFiles>,
    unproven: Unproven,
    /// The files as they were last looked at.
    stamp: Stamp,
}

/// Files that were wanted, and what their bytes are on disk. These differ where a check has edited
/// the candidates, and where a driver knows members apart from the files.
#[derive(Debug, Clone, Copy)]
struct WrittenFiles {
    on_disk: Digest,
    wanted: Digest,
}

/// How many written files are known again: those in place, the previous ones, and some more.
const WRITTEN: usize = 4;

/// Whether the files in place wait for their proof; the previous ones are there until then.
#[derive(Debug)]
enum Unproven {
    Nothing,
    /// An earlier run installed them, and they were not loaded since.
    FromEarlierRun(InstalledFiles),
    Installed(InstalledFiles),
}

/// What a look at the files found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FilesInPlace {
    /// Unchanged since the last look.
    Same,
    /// They were read; `None` where one is missing.
    Read(Option<Digest>),
}

impl Unproven {
    fn take(&mut self) -> Option<InstalledFiles> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => None,
            Self::FromEarlierRun(files) | Self::Installed(files) => Some(files),
        }
    }
}

impl GroupFiles {
    /// Files whose locks are taken. What an earlier run has left is put in order first.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub(super) fn open(
        group: String,
        targets: Vec<Target>,
        locks: Vec<DestLock>,
    ) -> Result<Self, InstallError> {
        for target in &targets {
            for stale in clean_stale(target)? {
                tracing::info!(file = %stale.display(), "removed a left-over of an earlier run");
            }
        }
        let unproven = match recover(&targets)? {
            Recovered::Nothing => Unproven::Nothing,
            Recovered::PutBack => {
                tracing::warn!(
                    set = group,
                    "an earlier run was interrupted during a swap; the previous files are back"
                );
                Unproven::Nothing
            }
            Recovered::Undecided(files) => {
                tracing::warn!(set = group, "an earlier run ended before its files were proven");
                Unproven::FromEarlierRun(files)
            }
        };
        let stamp = Stamp::default();
        Ok(Self { group, targets, locks, written: VecDeque::new(), unproven, stamp })
    }

    /// The digest of what is in place; `None` where a file is missing.
    pub(super) fn in_place(&self) -> Option<Digest> {
        digest_in_place(&self.targets).map(|found| self.as_wanted(found))
    }

    /// Whether an earlier run left files in place that nothing has proven.
    pub(super) fn are_unproven(&self) -> bool {
        !matches!(self.unproven, Unproven::Nothing)
    }

    /// Whether the files of an earlier run are still to be tried. They are tried once, before
    /// anything else is installed: those of before may name backends that have left.
    pub(super) fn take_try_of_earlier_files(&mut self) -> bool {
        match std::mem::replace(&mut self.unproven, Unproven::Nothing) {
            Unproven::FromEarlierRun(files) => {
                self.unproven = Unproven::Installed(files);
                true
            }
            other => {
                self.unproven = other;
                false
            }
        }
    }

    /// Looks whether the files may have changed since the last look; only then they are read.
    pub(super) async fn look(&mut self) -> FilesInPlace {
        let stamp = Stamp::of(&self.targets);
        if stamp == self.stamp {
            return FilesInPlace::Same;
        }
        self.stamp = stamp;
        let targets = self.targets.clone();
        match blocking(move || Ok(digest_in_place(&targets))).await {
            Ok(found) => FilesInPlace::Read(found.map(|found| self.as_wanted(found))),
            Err(_) => FilesInPlace::Same,
        }
    }

    /// The files in place as they are known if they are those that are `wanted`: an earlier run may
    /// have written them. `None` if they are not, or this was known.
    pub(super) fn recognize(&mut self, wanted: &Wanted, in_place: Digest) -> Option<Digest> {
        let is_known = self.written.iter().any(|written| written.wanted == in_place);
        if is_known || in_place == wanted.digest() || in_place != wanted.digest_on_disk() {
            return None;
        }
        self.note_written(in_place, wanted.digest());
        Some(wanted.digest())
    }

    /// Writes the candidates beside their dests.
    ///
    /// # Errors
    /// Why not, for operators.
    pub(super) async fn stage(&mut self, wanted: Wanted) -> Result<StagedFiles, String> {
        let (on_disk, digest) = (wanted.digest_on_disk(), wanted.digest());
        self.note_written(on_disk, digest);
        let staged = blocking(move || StagedFiles::write(&wanted)).await;
        let staged = staged.map_err(|error| format!("cannot stage: {error}"))?;
        // Where a folder was made just now, nothing could be locked before.
        DestLock::take_all(&self.targets, &mut self.locks).map_err(|error| error.to_string())?;
        Ok(staged)
    }

    /// Puts checked candidates in place, and keeps the previous files.
    ///
    /// # Errors
    /// Why not, for operators.
    pub(super) async fn install(
        &mut self,
        staged: StagedFiles,
        proof: Proof,
    ) -> Result<(), String> {
        let wanted = staged.digest();
        let installed = blocking(move || staged.accept(proof)?.install()).await;
        let installed = installed.map_err(|error| format!("cannot install: {error}"))?;
        for dest in installed.in_place() {
            tracing::warn!(
                dest = %dest.display(),
                "written in place, which is not atomic; mount its folder instead of the file"
            );
        }
        if installed.is_edited()
            && let Some(on_disk) = digest_in_place(&self.targets)
        {
            self.note_written(on_disk, wanted);
        }
        self.unproven = Unproven::Installed(installed);
        Ok(())
    }

    /// The files in place are proven: the previous ones go.
    pub(super) async fn commit(&mut self) {
        if let Some(installed) = self.unproven.take()
            && let Err(error) = blocking(move || installed.commit()).await
        {
            tracing::warn!(%error, "the previous file stays beside the new one");
        }
    }

    /// Puts the previous files back, if those in place are not proven. `false`: there are none.
    pub(super) async fn roll_back(&mut self) -> bool {
        let Some(installed) = self.unproven.take() else { return false };
        match blocking(move || installed.rollback()).await {
            Ok(()) => tracing::warn!(set = self.group, "the previous files are back in place"),
            Err(error) => {
                tracing::error!(set = self.group, %error, "cannot put the previous files back");
            }
        }
        true
    }

    /// Writes files of what is active already: they are not read before the next start, so
    /// there is nothing to check or to prove.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) async fn write_active(&mut self, wanted: Wanted) -> Result<(), InstallError> {
        self.note_written(wanted.digest_on_disk(), wanted.digest());
        blocking(move || {
            let staged = StagedFiles::write(&wanted)?;
            let proof = Proof::nothing_to_ask(&staged);
            staged.accept(proof)?.install()?.commit()
        })
        .await
    }

    fn as_wanted(&self, on_disk: Digest) -> Digest {
        let written = self.written.iter().find(|written| written.on_disk == on_disk);
        written.map_or(on_disk, |written| written.wanted)
    }

    fn note_written(&mut self, on_disk: Digest, wanted: Digest) {
        self.written.retain(|written| written.on_disk != on_disk);
        self.written.push_front(WrittenFiles { on_disk, wanted });
        self.written.truncate(WRITTEN);
    }
}

fn digest_in_place(targets: &[Target]) -> Option<Digest> {
    match current(targets) {
        Ok(digest) => digest,
        Err(error) => {
            // What cannot be read is replaced, or replacing it fails with the reason.
            tracing::warn!(%error, "cannot read what is in place");
            None
        }
    }
}

/// Runs blocking file work to its end, even if the caller goes away.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InstallError> + Send + 'static,
) -> Result<T, InstallError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        // A single run: nothing else needs this thread.
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::Candidate;

    fn wanted(target: &Target, text: &str) -> Wanted {
        let candidate = Candidate { target: target.clone(), bytes: text.into() };
        Wanted::from(vec![candidate])
    }

    fn open(target: &Target) -> GroupFiles {
        GroupFiles::open("web".into(), vec![target.clone()], Vec::new()).unwrap()
    }

    async fn install(files: &mut GroupFiles, target: &Target, text: &str) {
        let staged = files.stage(wanted(target, text)).await.unwrap();
        let proof = Proof::nothing_to_ask(&staged);
        files.install(staged, proof).await.unwrap();
    }

    #[tokio::test]
    async fn the_previous_file_is_back_unless_the_new_one_is_proven() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::new(folder.path().join("app.conf"));
        let text = || std::fs::read_to_string(&target.dest).unwrap_or_default();
        let mut files = open(&target);
        assert_eq!(files.in_place(), None);
        install(&mut files, &target, "one").await;
        assert_eq!(files.in_place(), Some(wanted(&target, "one").digest()));
        files.commit().await;
        assert!(!files.are_unproven() && !files.roll_back().await, "nothing to go back to");

        install(&mut files, &target, "two").await;
        assert!(files.are_unproven() && text() == "two");
        assert!(!files.take_try_of_earlier_files(), "this run installed it");
        assert!(files.roll_back().await);
        assert_eq!(text(), "one");
    }

    #[tokio::test]
    async fn what_an_earlier_run_left_unproven_is_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::new(folder.path().join("app.conf"));
        let mut files = open(&target);
        install(&mut files, &target, "one").await;
        files.commit().await;
        install(&mut files, &target, "two").await;
        // The end of a run that was killed.
        std::mem::forget(files);
        let mut files = open(&target);
        assert!(files.are_unproven() && files.take_try_of_earlier_files());
        assert!(files.are_unproven() && !files.take_try_of_earlier_files());
        assert!(files.roll_back().await);
        assert_eq!(std::fs::read_to_string(&target.dest).unwrap(), "one");
    }

    #[tokio::test]
    async fn a_change_by_somebody_else_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::new(folder.path().join("app.conf"));
        let mut files = open(&target);
        files.write_active(wanted(&target, "one")).await.unwrap();
        let one = Some(wanted(&target, "one").digest());
        assert_eq!(files.look().await, FilesInPlace::Read(one));
        assert_eq!(files.look().await, FilesInPlace::Same);
        std::fs::remove_file(&target.dest).unwrap();
        assert_eq!(files.look().await, FilesInPlace::Read(None));
    }
}
