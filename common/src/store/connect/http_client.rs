//! The HTTP client for v2 and `/version`.

use std::time::Duration;

use rustls::ClientConfig;

use crate::store::StoreError;

/// A client that trusts, and answers with, what `tls` says.
pub(super) fn make(tls: ClientConfig, connect: Duration) -> Result<reqwest::Client, StoreError> {
    let builder = reqwest::Client::builder()
        // A proxy of the environment is for the outside world.
        .no_proxy()
        // A long poll gets a connection of its own.
        .http1_only()
        .redirect(reqwest::redirect::Policy::limited(3))
        .connect_timeout(connect)
        .tls_backend_preconfigured(tls);
    builder.build().map_err(|e| StoreError::Setup(format!("TLS: {e}")))
}
