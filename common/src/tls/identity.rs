//! Our own certificate and its key, for servers that ask who we are.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::limits::key_limit;
use super::{FromFiles, provider};

/// A certificate with its chain, and its key, as the two files have them now.
#[derive(Debug)]
pub struct ClientIdentity(FromFiles<CertifiedKey>);

impl ClientIdentity {
    /// Nothing is read before a server asks.
    pub fn of(cert: PathBuf, key: PathBuf) -> Self {
        Self(FromFiles::new(vec![cert, key], &["client certificate", "client key"], pair))
    }

    /// Reads the files.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn check(&self) -> Result<(), String> {
        self.0.current().map(drop)
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current().ok()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn pair(paths: &[PathBuf], contents: &[Vec<u8>]) -> Result<CertifiedKey, String> {
    let ([cert, key], [cert_pem, key_pem]) = (paths, contents) else {
        return Err("a certificate and its key are two files".to_owned());
    };
    let (cert, key) = (cert.display(), key.display());
    if key_pem.windows(9).any(|part| part == b"ENCRYPTED") {
        return Err(format!(
            "{key} is an encrypted key; decrypt it, with `openssl pkey` for example"
        ));
    }
    let wrong = || format!("{cert} and {key} are not a PEM certificate and its PEM key");
    let chain = CertificateDer::pem_slice_iter(cert_pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(wrong)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| wrong())?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|e| {
        let why = e.to_string();
        format!("{} ({why}){}", wrong(), key_limit(&why))
    })
}
