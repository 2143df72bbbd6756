//! Reaching etcd at the start, however long that takes, and saying so meanwhile.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::model::format_span;
use crate::runtime::ServiceManager;
use crate::store::{Connection, Etcd, StoreError, connect};

/// Connects. `None`: `stop` came first.
///
/// # Errors
/// What no waiting mends: access refused, an API that is not offered.
pub async fn reach(
    connection: &Connection,
    manager: &ServiceManager,
    stop: &CancellationToken,
) -> Result<Option<Etcd>, StoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    let began = Instant::now();
    loop {
        let answer = stop.run_until_cancelled(connect(connection)).await;
        let error = match answer {
            None => return Ok(None),
            Some(Ok(etcd)) => return Ok(Some(etcd)),
            Some(Err(error)) => error,
        };
        if !error.is_transient() {
            return Err(error);
        }
        let endpoints = connection.endpoints.join(", ");
        if backoff.failures() == 0 {
            tracing::warn!(%endpoints, %error, "waiting for etcd");
        }
        let waited = format_span(began.elapsed());
        manager.status(&format!("waiting for etcd at {endpoints} for {waited}: {error}"));
        let pause = backoff.after_failure(fastrand::f64());
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(None);
        }
    }
}
