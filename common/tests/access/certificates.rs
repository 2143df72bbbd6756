//! A CA, a server's and a client's certificate, and a CA that signed neither.

use std::path::PathBuf;

use common::tls::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// The files, gone when dropped.
pub(crate) struct Certificates {
    folder: TempDir,
}

fn ca() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        files.renew();
        files.write("other.pem", &ca().pem());
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        files.write("alone.pem", &params.self_signed(&key).unwrap().pem());
        files.write("alone.key", &key.serialize_pem());
        files
    }

    /// Another CA, and certificates that it signed, in place of those of before.
    pub(crate) fn renew(&self) {
        let ours = ca();
        self.write("ca.pem", &ours.pem());
        for name in ["server", "client"] {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            // etcd's gateway uses the server's certificate as a client.
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ours).unwrap();
            self.write(&format!("{name}.pem"), &certificate.pem());
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn server_flags(&self) -> Vec<String> {
        let file =
            |flag: &str, name: &str| [flag.to_owned(), self.path(name).display().to_string()];
        let switches = ["--enable-v2", "--client-cert-auth"].map(str::to_owned);
        [
            file("--cert-file", "server.pem"),
            file("--key-file", "server.key"),
            file("--trusted-ca-file", "ca.pem"),
            switches,
        ]
        .concat()
    }

    /// A server with a certificate that nobody else has signed.
    pub(crate) fn alone_flags(&self) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        vec![
            "--enable-v2".to_owned(),
            "--cert-file".to_owned(),
            path("alone.pem"),
            "--key-file".to_owned(),
            path("alone.key"),
        ]
    }

    pub(crate) fn alone(&self) -> PathBuf {
        self.path("alone.pem")
    }

    pub(crate) fn client(&self) -> TlsFiles {
        TlsFiles {
            ca: Some(self.path("ca.pem")),
            cert: Some(self.path("client.pem")),
            key: Some(self.path("client.key")),
        }
    }

    pub(crate) fn other_ca(&self) -> PathBuf {
        self.path("other.pem")
    }
}
