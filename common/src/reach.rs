//! Reaching etcd at the start, however long that takes, and saying so meanwhile.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::model::format_span;
use crate::runtime::{Heartbeat, Liveness, Reminder, ServiceManager};
use crate::store::{Connection, Etcd, StoreError, connect};

/// How long one try may take, over all members, at the very most.
const ATTEMPT: Duration = Duration::from_secs(120);

/// Connects. `None`: `stop` came first. `liveness` shows that it goes on trying.
///
/// # Errors
/// What no waiting mends: access refused, an API that is not offered.
pub async fn reach(
    connection: &Connection,
    manager: &ServiceManager,
    stop: &CancellationToken,
    liveness: &Liveness,
) -> Result<Option<Etcd>, StoreError> {
    let heartbeat = liveness.heartbeat("the search for etcd", ATTEMPT);
    let outcome = search(connection, manager, stop, &heartbeat).await;
    heartbeat.end();
    outcome
}

async fn search(
    connection: &Connection,
    manager: &ServiceManager,
    stop: &CancellationToken,
    heartbeat: &Heartbeat,
) -> Result<Option<Etcd>, StoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    let began = Instant::now();
    let mut wait = Reminder::at_once();
    loop {
        heartbeat.beat(ATTEMPT);
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
        let waited = format_span(Duration::from_secs(began.elapsed().as_secs()));
        wait.remind(&format!("waiting for etcd at {endpoints}: {error}"));
        manager.status(&format!("waiting for etcd at {endpoints} for {waited}: {error}"));
        let pause = backoff.after_failure(fastrand::f64());
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(None);
        }
    }
}
