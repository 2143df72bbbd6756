//! Locks the files of a reload group, and waits while the process that holds the locks ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::install::{DestLock, InstallError, Target};

/// How long another process that writes our files may take to end: that of before a restart.
pub(super) const HANDED_OVER: Duration = Duration::from_secs(3);
/// How often to try again.
pub(super) const LOCK_PACE: Duration = Duration::from_millis(100);

/// Whether this is the error of files that another process writes.
pub(super) fn is_held(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(InstallError::Held { .. }))
}

/// Locks `targets`; a process that holds a lock may take `patience` to end.
pub(super) async fn lock_dests(
    targets: &[Target],
    patience: Duration,
) -> Result<Vec<DestLock>, InstallError> {
    let until = Instant::now() + patience;
    let mut locks = Vec::new();
    loop {
        match DestLock::take_all(targets, &mut locks) {
            Err(InstallError::Held { .. }) if Instant::now() < until => {
                tokio::time::sleep(LOCK_PACE).await;
            }
            taken => return taken.map(|()| locks),
        }
    }
}
