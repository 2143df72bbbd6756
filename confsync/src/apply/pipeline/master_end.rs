//! Notices the end of the process that runs what is active.

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::proxy::nginx::{ProcessId, until_ended};

/// The end of a process, watched for once and not at every turn.
#[derive(Debug)]
pub(super) struct MasterEnd {
    pub(super) id: ProcessId,
    pub(super) ended: CancellationToken,
    _watch: AbortOnDropHandle<()>,
}

impl MasterEnd {
    pub(super) fn of(id: ProcessId) -> Self {
        let ended = CancellationToken::new();
        let done = ended.clone();
        let watch = tokio::spawn(async move {
            until_ended(id).await;
            done.cancel();
        });
        Self { id, ended, _watch: AbortOnDropHandle::new(watch) }
    }
}
