//! TLS for `https` probes, on the socket that the probe opened.
//!
//! Verified against the machine's roots, or against the operator's own file (read again when it
//! changes) and nothing else. Skipping verification takes an explicit flag.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::tls::{Roots, client_config, provider, tls_limit, without_numbers};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::ProbeStream;
use super::deadline::{ProbeDeadline, one_line};

/// Makes TLS out of a connection.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    /// `None` if any certificate will do.
    roots: Option<Arc<Roots>>,
}

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
        if let Some(roots) = &self.roots {
            roots.check()?;
        }
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("`{name}` is not a name that a certificate can have"))?;
        deadline
            .step("negotiating TLS", async {
                let secured = self.tls.connect(name, stream).await;
                secured.map_err(|e| {
                    let why = one_line(&e);
                    format!("no TLS: {}{}", without_numbers(&why), advice(&why))
                })
            })
            .await
    }
}

/// The ways to verify that are in use, each kept once: the roots of a machine take
/// 150 kB and more, and a thousand services mostly share them.
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

/// Settles how certificates are verified.
fn connector(ca: Option<&Path>, insecure: bool) -> Result<Connector, String> {
    let roots = (!insecure).then(|| Arc::new(Roots::of(ca.map(Path::to_owned))));
    let mut config = match &roots {
        Some(roots) => client_config(Arc::<Roots>::clone(roots), None)?,
        None => client_config(Arc::new(Anyone(provider())), None)?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Connector { tls: TlsConnector::from(Arc::new(config)), roots })
}

/// What to do about a certificate that was rejected.
fn advice(why: &str) -> String {
    const ADVICE: [(&str, &str); 3] = [
        ("UnknownIssuer", "not signed by a trusted CA; pass its CA with --check-ca"),
        ("not valid for", "pass the name that it is for with --check-host"),
        ("CaUsedAsEndEntity", "self-signed CA certificate; pass it with --check-ca to trust it"),
    ];
    let advice = ADVICE.iter().find(|(sign, _)| why.contains(sign)).map(|(_, advice)| *advice);
    advice.or_else(|| tls_limit(why)).map(|advice| format!(" ({advice})")).unwrap_or_default()
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
