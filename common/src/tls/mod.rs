//! TLS as a client: which servers are trusted, and which client certificate is presented.
//!
//! One place makes the configuration for gRPC, HTTP and probes. Its files are checked at every
//! handshake and read again when one has changed, as etcd does with its own. While they cannot be
//! used (half written, a key of another certificate), the last good content stays in use.
//!
//! It knows nothing of etcd or probes.

mod expiry;
mod from_files;
mod identity;
mod limits;
mod roots;

pub use expiry::{CertificateExpiry, Validity, follow_expiry};
pub use from_files::FromFiles;
pub use identity::ClientIdentity;
pub use limits::{tls_limit, without_numbers};
pub use roots::Roots;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, ring};

/// PEM files for connections with TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The CA certificates that are trusted, and no others; the system's own if not given.
    pub ca: Option<PathBuf>,
    /// Our certificate, with its chain.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// Whether any file is given.
    pub fn is_given(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }

    /// The configuration that these files make.
    ///
    /// # Errors
    /// What is wrong with which file, for an operator.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        let roots = Roots::of(self.ca.clone());
        roots.check()?;
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let identity = ClientIdentity::of(cert.clone(), key.clone());
                identity.check()?;
                Some(identity)
            }
            (None, None) => None,
            _ => {
                return Err(
                    "a client certificate needs its key, and a key its certificate".to_owned()
                );
            }
        };
        client_config(Arc::new(roots), identity)
    }
}

/// A configuration that verifies servers by `verifier`, and answers with `identity` if they ask.
///
/// # Errors
/// When the cryptography does not have the usual protocol versions.
pub fn client_config(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<ClientIdentity>,
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(identity)),
        None => builder.with_no_client_auth(),
    };
    // A resumed session would go on with the certificates of before; and a remembered one is
    // memory for nothing where connections share no session.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The cryptography of all our TLS.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
