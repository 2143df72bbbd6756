//! TLS for `https` probes, on the socket that the probe opened.
//!
//! Verified against the machine's roots, or against the operator's own file and
//! nothing else. Skipping verification takes an explicit flag.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::ProbeStream;
use super::deadline::{ProbeDeadline, one_line};

/// Makes TLS out of a connection.
#[derive(Clone)]
pub(super) struct Connector(TlsConnector);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    pub(super) async fn secure(
        &self,
        stream: ProbeStream,
        name: &str,
        deadline: &ProbeDeadline,
    ) -> Result<TlsStream<ProbeStream>, String> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("`{name}` is not a name that a certificate can have"))?;
        deadline
            .step("agreeing on TLS", async {
                let secured = self.0.connect(name, stream).await;
                secured.map_err(|e| {
                    let why = one_line(&e);
                    format!("no TLS: {why}{}", advice(&why))
                })
            })
            .await
    }
}

/// The ways to verify that are in use, each read once: the roots of a machine take
/// 150 kB and more, and a thousand services mostly share them. A reload
/// begins with a new one, and so reads the files again.
#[derive(Debug, Default)]
pub struct Trust(HashMap<(Option<PathBuf>, bool), Connector>);

impl Trust {
    pub(super) fn connector(
        &mut self,
        ca: Option<&Path>,
        insecure: bool,
    ) -> Result<Connector, String> {
        match self.0.entry((ca.map(Path::to_owned), insecure)) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(new) => Ok(new.insert(connector(ca, insecure)?).clone()),
        }
    }
}

/// Reads the roots and settles how certificates are verified.
fn connector(ca: Option<&Path>, insecure: bool) -> Result<Connector, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| one_line(&e))?;
    let builder = match (ca, insecure) {
        (_, true) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        }
        (Some(file), false) => {
            let verifier = common::trust::only(given(file)?, provider)
                .map_err(|why| format!("cannot use `{}`: {why}", file.display()))?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        (None, false) => builder.with_root_certificates(roots()?),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Each probe stands alone; a remembered session would be memory for nothing.
    config.resumption = Resumption::disabled();
    Ok(Connector(TlsConnector::from(Arc::new(config))))
}

/// The certificates in the operator's file.
fn given(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let no = |e: &dyn fmt::Display| format!("cannot use `{}`: {e}", file.display());
    let all = CertificateDer::pem_file_iter(file).map_err(|e| no(&e))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|e| no(&e))?;
    if all.is_empty() { Err(no(&"it holds no certificate in PEM form")) } else { Ok(all) }
}

/// Those of the machine.
fn roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine has no CA certificates; name a file with --check-ca, or \
                    install them"
            .to_owned());
    }
    Ok(roots)
}

/// What to do about a certificate that is not believed.
fn advice(why: &str) -> &'static str {
    const ADVICE: [(&str, &str); 4] = [
        ("UnknownIssuer", " (nobody trusted has signed it; name its CA with --check-ca)"),
        ("not valid for", " (--check-host says which name it is to have)"),
        (
            "CaUsedAsEndEntity",
            " (it is a CA's own; to trust just this one, name it with --check-ca)",
        ),
        (
            "UnsupportedCertVersion",
            " (it is of version 1; make one of version 3, with a \
           subjectAltName)",
        ),
    ];
    ADVICE.iter().find(|(sign, _)| why.contains(sign)).map_or("", |(_, advice)| advice)
}

/// Takes any certificate, also one of a kind that could not be verified: who can put
/// any certificate in between can have its key too.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
