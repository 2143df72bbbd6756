//! The HTTP client for v2 and `/version`.

use std::time::Duration;

use rustls::ClientConfig;

use crate::store::StoreError;

/// A client that trusts, and answers with, what `tls` says.
pub(super) fn make(
    tls: Option<ClientConfig>,
    connect: Duration,
) -> Result<reqwest::Client, StoreError> {
    // Another part of the process may have installed one already; either will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        // A proxy of the environment is for the outside world.
        .no_proxy()
        // A long poll gets a connection of its own.
        .http1_only()
        .redirect(reqwest::redirect::Policy::limited(3))
        .connect_timeout(connect);
    let builder = match tls {
        Some(config) => builder.tls_backend_preconfigured(config),
        // The system's roots are not looked for unless they are needed.
        None => builder.tls_certs_only([]),
    };
    builder.build().map_err(|e| StoreError::Setup(format!("TLS: {e}")))
}
