//! Certificates and keys from files, for gRPC and for HTTP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Identity, TlsOptions};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsFiles;
use crate::store::StoreError;
use crate::store::v3::Tls;

/// The content of the files.
#[derive(Default)]
pub(super) struct Material {
    secure: bool,
    ca: Option<Vec<u8>>,
    /// Certificate and key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    /// Reads the files and checks what is in them.
    ///
    /// # Errors
    /// [`StoreError::Setup`], naming the file.
    pub(super) async fn load(files: &TlsFiles, secure: bool) -> Result<Self, StoreError> {
        let TlsFiles { ca, cert, key } = files;
        let ca = match ca {
            Some(path) => Some(checked_ca(path).await?),
            None => None,
        };
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some(checked_identity(cert, key).await?),
            (None, None) => None,
            _ => {
                return Err(StoreError::Setup(
                    "a client certificate needs its key, and a key its certificate".to_owned(),
                ));
            }
        };
        Ok(Self { secure, ca, identity })
    }

    pub(super) fn for_grpc(&self) -> Result<Tls, StoreError> {
        if let Some(config) = self.own()? {
            return Ok(Tls::Own(config));
        }
        let tls = TlsOptions::new().with_native_roots();
        Ok(Tls::Native(match &self.identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
            None => tls,
        }))
    }

    pub(super) fn for_http(&self, connect: Duration) -> Result<reqwest::Client, StoreError> {
        // Somebody may have installed one before; either will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let refuse = |e: reqwest::Error| StoreError::Setup(format!("TLS: {e}"));
        let mut builder = reqwest::Client::builder()
            // A proxy of the environment is for the outside world.
            .no_proxy()
            // A long poll gets a connection of its own.
            .http1_only()
            .redirect(reqwest::redirect::Policy::limited(3))
            .connect_timeout(connect);
        match self.own()? {
            Some(config) => {
                return builder.tls_backend_preconfigured(config).build().map_err(refuse);
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

    /// TLS with the operator's CA, if there is one.
    fn own(&self) -> Result<Option<ClientConfig>, StoreError> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let wrong = |why: &dyn std::fmt::Display| StoreError::Setup(format!("TLS: {why}"));
        let given = CertificateDer::pem_slice_iter(ca).collect::<Result<_, _>>();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = crate::trust::only(given.map_err(|e| wrong(&e))?, Arc::clone(&provider))
            .map_err(|why| wrong(&why))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(&e))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some((cert, key)) = &self.identity else {
            return Ok(Some(builder.with_no_client_auth()));
        };
        let chain = CertificateDer::pem_slice_iter(cert).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| wrong(&e))?;
        let config = builder.with_client_auth_cert(chain.map_err(|e| wrong(&e))?, key);
        config.map(Some).map_err(|e| wrong(&e))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let refuse = |e| StoreError::Setup(format!("cannot read {}: {e}", path.display()));
    tokio::fs::read(path).await.map_err(refuse)
}

async fn checked_ca(path: &Path) -> Result<Vec<u8>, StoreError> {
    let pem = read(path).await?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certs) if !certs.is_empty() => Ok(pem),
        _ => Err(StoreError::Setup(format!("{} holds no PEM certificate", path.display()))),
    }
}

async fn checked_identity(cert: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
    let (cert_pem, key_pem) = (read(cert).await?, read(key).await?);
    http_identity(&cert_pem, &key_pem).map_err(|_| {
        StoreError::Setup(format!(
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
