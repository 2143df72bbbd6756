//! The right to write the files of a reload group, waited for while who has it ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::install::{DestLock, InstallError, Target};

/// How long another process that writes our files may take to end: that of before a restart.
pub(super) const HANDED_OVER: Duration = Duration::from_secs(3);
/// How often it is looked whether it has.
pub(super) const LOCK_PACE: Duration = Duration::from_millis(50);

/// Takes the right to write `targets`; who has it may end within `patience`.
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
