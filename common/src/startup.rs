//! Connecting to etcd at the start: a daemon waits however long that takes, a command for some
//! seconds.
//!
//! Neither an answer of a server nor the content of a file ends the wait of a daemon: users,
//! passwords, permissions, certificates and proxies are changed by others, and what already runs
//! keeps running meanwhile. Only a command line can be wrong for good, and it was checked before.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::model::format_span;
use crate::runtime::{Heartbeat, Liveness, OutageLog, ServiceManager};
use crate::store::{Connection, Etcd, Store as _, StoreError, connect};

/// How long one attempt over all endpoints may take at the very most.
const ATTEMPT: Duration = Duration::from_secs(120);

/// The pause between two attempts of a command.
const RETRY: Duration = Duration::from_millis(200);

/// Connects to etcd, and reports the wait to the log, the service manager and `liveness`.
/// `None`: `stop` was cancelled first.
pub async fn wait_for_etcd(
    connection: &Connection,
    manager: &ServiceManager,
    stop: &CancellationToken,
    liveness: &Liveness,
) -> Option<Etcd> {
    let heartbeat = liveness.heartbeat("the connection to etcd", ATTEMPT);
    let etcd = keep_trying(connection, manager, stop, &heartbeat).await;
    heartbeat.end();
    etcd
}

async fn keep_trying(
    connection: &Connection,
    manager: &ServiceManager,
    stop: &CancellationToken,
    heartbeat: &Heartbeat,
) -> Option<Etcd> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    let began = Instant::now();
    let mut outage = OutageLog::default();
    loop {
        heartbeat.beat(ATTEMPT);
        let error = match stop.run_until_cancelled(connect(connection)).await? {
            Ok(etcd) => {
                let (endpoint, api) = (etcd.endpoint(), etcd.api());
                let version = etcd.server_version().unwrap_or("not reported");
                tracing::info!(endpoint, api, version, "connected to etcd");
                return Some(etcd);
            }
            Err(error) => error,
        };
        let endpoints = match &connection.discovery {
            Some(domain) => format!("the members that DNS names for {domain}"),
            None => connection.endpoints.join(", "),
        };
        let waited = format_span(Duration::from_secs(began.elapsed().as_secs()));
        outage.remind(&format!("waiting for etcd at {endpoints}: {error}"));
        manager.status(&format!("waiting for etcd at {endpoints} for {waited}: {error}"));
        let pause = backoff.after_failure(fastrand::f64());
        stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
    }
}

/// Connects to etcd for a command that runs once: an error that may pass is retried for `limit`
/// at most, any other is returned at once.
pub async fn connect_within(connection: &Connection, limit: Duration) -> Result<Etcd, StoreError> {
    let until = Instant::now() + limit;
    let mut outage = OutageLog::default();
    loop {
        match connect(connection).await {
            Err(error) if error.is_transient() && Instant::now() < until => {
                let limit = format_span(limit);
                outage.remind(&format!("retrying to connect for at most {limit}: {error}"));
                tokio::time::sleep(RETRY).await;
            }
            answer => return answer,
        }
    }
}
