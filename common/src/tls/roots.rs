//! Which servers' certificates are accepted: those of the CA certificates that an operator gives,
//! or of the system's.
//!
//! As rustls verifies them, with one addition that every other tool has: one self-signed
//! certificate, as `openssl req -x509` makes it, that the server presents and that is also in
//! the CA file. It is marked as a CA's, so rustls rejects it as a server's; but an operator who
//! gives that very certificate as trusted means it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::{FromFiles, provider};

/// The CA certificates of a file as they are now, or those of the system.
#[derive(Debug)]
pub struct Roots {
    trusted: FromFiles<Trusted>,
    provider: Arc<CryptoProvider>,
}

impl Roots {
    /// Nothing is read before a server presents its certificate.
    pub fn of(ca: Option<PathBuf>) -> Self {
        let trusted = match ca {
            Some(file) => FromFiles::new(vec![file], &["CA file"], of_file),
            None => FromFiles::new(Vec::new(), &[], of_system),
        };
        Self { trusted, provider: provider() }
    }

    /// Reads the certificates.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn check(&self) -> Result<(), String> {
        self.trusted.current().map(drop)
    }
}

/// Accepts certificates issued by, or equal to, one of `given`.
#[derive(Debug)]
struct Trusted {
    given: Vec<CertificateDer<'static>>,
    by_the_book: Arc<WebPkiServerVerifier>,
}

fn of_file(paths: &[PathBuf], contents: &[Vec<u8>]) -> Result<Trusted, String> {
    let file = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    let pem = contents.first().map_or(&[][..], Vec::as_slice);
    let given = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let given = given.map_err(|e| format!("cannot use {file}: {e}"))?;
    if given.is_empty() {
        return Err(format!("{file} contains no PEM certificate"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in &given {
        roots.add(certificate.clone()).map_err(|e| format!("cannot use {file}: {e}"))?;
    }
    Ok(Trusted { by_the_book: by_the_book(roots)?, given })
}

fn of_system(_: &[PathBuf], _: &[Vec<u8>]) -> Result<Trusted, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine has no CA certificates; name a file with those to trust, or \
                    install them"
            .to_owned());
    }
    Ok(Trusted { by_the_book: by_the_book(roots)?, given: Vec::new() })
}

fn by_the_book(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    builder.build().map_err(|e| format!("TLS: {e}"))
}

/// rustls checks the dates first, so they were good.
fn is_a_ca(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else {
        return false;
    };
    matches!(why.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trusted = self.trusted.current().map_err(Error::General)?;
        let found = trusted.by_the_book.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match found {
            Err(error)
                if is_a_ca(&error) && trusted.given.iter().any(|given| given == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            found => found,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
