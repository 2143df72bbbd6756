//! Certificates and keys from files, for gRPC and for HTTP.

use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, Identity, TlsOptions};

use super::TlsFiles;
use crate::store::StoreError;

/// What the files held.
#[derive(Default)]
pub(super) struct Material {
    secure: bool,
    ca: Option<Vec<u8>>,
    /// Certificate and key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    /// Reads the files and looks whether they hold what they should.
    ///
    /// # Errors
    /// [`StoreError::Refused`], naming the file.
    pub(super) async fn load(files: &TlsFiles, secure: bool) -> Result<Self, StoreError> {
        let TlsFiles { ca, cert, key } = files;
        let any = ca.is_some() || cert.is_some() || key.is_some();
        if any && !secure {
            return Err(StoreError::Refused(
                "TLS files are given, but no endpoint begins with https://".to_owned(),
            ));
        }
        let ca = match ca {
            Some(path) => Some(checked_ca(path).await?),
            None => None,
        };
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(checked_identity(cert, key).await?),
            (None, None) => None,
            _ => {
                return Err(StoreError::Refused(
                    "a client certificate needs its key, and a key its certificate".to_owned(),
                ));
            }
        };
        Ok(Self { secure, ca, identity })
    }

    pub(super) fn for_grpc(&self) -> TlsOptions {
        let tls = match &self.ca {
            Some(pem) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem)),
            None => TlsOptions::new().with_native_roots(),
        };
        match &self.identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        }
    }

    pub(super) fn for_http(&self, connect: Duration) -> Result<reqwest::Client, StoreError> {
        // Somebody may have installed one before; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let refuse = |e: reqwest::Error| StoreError::Refused(format!("TLS: {e}"));
        let mut builder = reqwest::Client::builder()
            // A proxy of the environment is for the outside world.
            .no_proxy()
            // A long poll gets a connection of its own.
            .http1_only()
            .redirect(reqwest::redirect::Policy::limited(3))
            .connect_timeout(connect);
        match &self.ca {
            Some(pem) => {
                let certs = reqwest::Certificate::from_pem_bundle(pem).map_err(refuse)?;
                builder = builder.tls_certs_only(certs);
            }
            // The system's roots are not looked for unless they are needed.
            None if !self.secure => builder = builder.tls_certs_only([]),
            None => {}
        }
        if let Some((cert, key)) = &self.identity {
            builder = builder.identity(http_identity(cert, key).map_err(refuse)?);
        }
        builder.build().map_err(refuse)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let refuse = |e| StoreError::Refused(format!("cannot read {}: {e}", path.display()));
    tokio::fs::read(path).await.map_err(refuse)
}

async fn checked_ca(path: &Path) -> Result<Vec<u8>, StoreError> {
    let pem = read(path).await?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certs) if !certs.is_empty() => Ok(pem),
        _ => Err(StoreError::Refused(format!("{} holds no PEM certificate", path.display()))),
    }
}

async fn checked_identity(cert: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
    let (cert_pem, key_pem) = (read(cert).await?, read(key).await?);
    http_identity(&cert_pem, &key_pem).map_err(|_| {
        StoreError::Refused(format!(
            "{} and {} are not a PEM certificate and its PEM key",
            cert.display(),
            key.display()
        ))
    })?;
    Ok((cert_pem, key_pem))
}

fn http_identity(cert: &[u8], key: &[u8]) -> reqwest::Result<reqwest::Identity> {
    reqwest::Identity::from_pem(&[cert, b"\n", key].concat())
}
