//! `quiesce_cmd`: run again and again after a load, until it succeeds: then nothing is done any
//! more by what was active before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::proxy::command::{Command, CommandError};

/// Between two tries: at first, and at the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The loads of a reload group are numbered; the newest is asked about, and its answer counts
/// for those before it as well.
#[derive(Debug, Default)]
pub(super) struct QuiesceCheck {
    newest: u64,
    confirmed: u64,
    asking: Option<AbortOnDropHandle<()>>,
    /// Notified when one has been answered.
    answered: Arc<Notify>,
}

impl QuiesceCheck {
    /// A load has succeeded: begins to ask. Its number.
    pub(super) fn begin(&mut self, group: &str, commands: Vec<Command>) -> u64 {
        self.confirmed();
        self.newest += 1;
        let (group, answered) = (group.to_owned(), Arc::clone(&self.answered));
        let asking = tokio::spawn(async move {
            ask(group, commands).await;
            answered.notify_one();
        });
        self.asking = Some(AbortOnDropHandle::new(asking));
        self.newest
    }

    /// Resolves when there is an answer.
    pub(super) async fn answered(&self) {
        self.answered.notified().await;
    }

    /// The newest load before which everything has ended.
    pub(super) fn confirmed(&mut self) -> u64 {
        if self.asking.as_ref().is_some_and(AbortOnDropHandle::is_finished) {
            (self.confirmed, self.asking) = (self.newest, None);
        }
        self.confirmed
    }
}

/// Ends when every command has succeeded.
async fn ask(group: String, commands: Vec<Command>) {
    for command in commands {
        let (mut pause, mut logged) = (FIRST_PAUSE, false);
        while let Err(error) = command.run().await {
            // "Not yet" is an exit code; anything else will not pass by itself.
            if !logged && !matches!(error, CommandError::Failed { .. }) {
                tracing::warn!(
                    set = group,
                    "quiesce_cmd: {error}; no drain is confirmed until it succeeds"
                );
                logged = true;
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Vec<Command> {
        vec![Command::shell(text, Duration::from_secs(10))]
    }

    async fn until(check: &mut QuiesceCheck, number: u64) {
        while check.confirmed() < number {
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn it_is_asked_until_it_succeeds_and_counts_for_the_loads_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut check = QuiesceCheck::default();
        let never = format!("echo >> {}; exit 1", path("asked"));
        assert_eq!(check.begin("web", shell(&never)), 1);
        let asked = || std::fs::read_to_string(path("asked")).unwrap_or_default().lines().count();
        while asked() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(check.confirmed(), 0);
        assert_eq!(check.begin("web", shell("true")), 2);
        until(&mut check, 2).await;
        assert_eq!(check.begin("web", shell("false")), 3);
        assert_eq!(check.confirmed(), 2);
    }
}
