//! TLS and HTTP/2 against real servers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A server with a certificate for `localhost` and 127.0.0.1, and its CA as a file.
async fn tls_server(folder: &Path) -> (u16, PathBuf) {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let cert = CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap();
    (serve_tls(cert.der().clone(), &key).await, file)
}

/// A server whose certificate is its own CA, as `openssl req -x509` makes it.
async fn self_signed_server(
    folder: &Path,
    change: impl Fn(&mut CertificateParams),
) -> (u16, PathBuf) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let file = folder.join("own.pem");
    std::fs::write(&file, cert.pem()).unwrap();
    (serve_tls(cert.der().clone(), &key).await, file)
}

async fn serve_tls(cert: CertificateDer<'static>, key: &KeyPair) -> u16 {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(OK.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    port
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let trusting = |ca: PathBuf| HttpOptions { ca: Some(ca), ..HttpOptions::default() };
    let (port, file) = self_signed_server(folder.path(), |_| {}).await;
    let own = trusting(file);
    assert_eq!(found(&format!("https://127.0.0.1:{port}/"), &own).await, Verdict::Pass);
    let message = why(found(&format!("https://localhost:{port}/"), &own).await);
    assert!(message.contains("not valid for name"), "{message}");
    // Another one that looks the same.
    let (port, _) = self_signed_server(tempfile::tempdir().unwrap().path(), |_| {}).await;
    let message = why(found(&format!("https://127.0.0.1:{port}/"), &own).await);
    assert!(message.starts_with("no TLS: invalid peer certificate"), "{message}");
    let expired =
        |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let (port, file) = self_signed_server(folder.path(), expired).await;
    let message = why(found(&format!("https://127.0.0.1:{port}/"), &trusting(file)).await);
    assert!(message.contains("xpired"), "{message}");
}

#[tokio::test]
async fn certificates_are_verified_against_the_operators_file() {
    let folder = tempfile::tempdir().unwrap();
    let (port, ca) = tls_server(folder.path()).await;
    let own = HttpOptions { ca: Some(ca), ..HttpOptions::default() };
    assert_eq!(found(&format!("https://127.0.0.1:{port}/"), &own).await, Verdict::Pass);
    assert_eq!(found(&format!("https://localhost:{port}/"), &own).await, Verdict::Pass);
    // The name in `--check-host` is the one that the certificate must have.
    let other = HttpOptions { host: Some("www.example.com".into()), ..own.clone() };
    let message = why(found(&format!("https://127.0.0.1:{port}/"), &other).await);
    assert!(message.starts_with("no TLS: invalid peer certificate"), "{message}");
    let named = HttpOptions { host: Some("localhost:443".into()), ..own };
    assert_eq!(found(&format!("https://127.0.0.1:{port}/"), &named).await, Verdict::Pass);
}

#[tokio::test]
async fn a_foreign_ca_is_a_failure_and_skipping_takes_a_flag() {
    let folder = tempfile::tempdir().unwrap();
    let (port, _) = tls_server(folder.path()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, foreign) = tls_server(elsewhere.path()).await;
    let strict = HttpOptions { ca: Some(foreign), ..HttpOptions::default() };
    let message = why(found(&format!("https://127.0.0.1:{port}/"), &strict).await);
    assert!(message.contains("UnknownIssuer") || message.contains("BadSignature"), "{message}");
    let any = HttpOptions { insecure: true, ..HttpOptions::default() };
    assert_eq!(found(&format!("https://127.0.0.1:{port}/"), &any).await, Verdict::Pass);
    let server = serve(Answer::Text(OK)).await;
    let message = why(found(&format!("https://{}", server.address()), &any).await);
    assert!(message.starts_with("no TLS: "), "{message}");
}

/// A file that is not there yet is waited for; a new CA is read when it is put there, and one
/// that is half written leaves the last good one in use.
#[tokio::test]
async fn the_ca_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (port, ca) = tls_server(folder.path()).await;
    let file = folder.path().join("now.pem");
    let options = HttpOptions { ca: Some(file.clone()), ..HttpOptions::default() };
    let own: Endpoint = "10.0.0.1:443".parse().unwrap();
    let check = Check::parse(&format!("https://127.0.0.1:{port}/"), &own, &options).unwrap();
    let probe = Probe::prepare(check, Duration::from_secs(10), &mut Trust::default()).unwrap();
    assert!(why(probe.ask().await).contains("now.pem: No such file"));
    std::fs::write(&file, "no certificate").unwrap();
    assert!(why(probe.ask().await).contains("contains no PEM certificate"));
    std::fs::copy(&ca, &file).unwrap();
    assert_eq!(probe.ask().await, Verdict::Pass);
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----").unwrap();
    assert_eq!(probe.ask().await, Verdict::Pass);
    // `tls_server` writes the CA of another server there.
    let _ = tls_server(folder.path()).await;
    std::fs::copy(&ca, &file).unwrap();
    assert!(why(probe.ask().await).contains("invalid peer certificate"));
}

#[tokio::test]
async fn http2_is_spoken_by_prior_knowledge() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<Incoming>| async move {
                let message = format!("{:?} {}", request.version(), request.uri());
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(message))))
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    let wanted = body(&format!("HTTP/2.0 http://{at}/health"));
    assert_eq!(found(&format!("h2c://{at}/health"), &wanted).await, Verdict::Pass);
    assert!(why(found(&format!("h2c://{at}/"), &body("nope")).await).contains("does not contain"));
    // A server that speaks only HTTP/1.1.
    let server = serve(Answer::Text("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")).await;
    assert!(!plain(&format!("h2c://{}", server.address())).await.passed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_http2_server_leaves_no_task_behind() {
    let server = serve(Answer::Silence).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    let url = format!("h2c://{}", server.address());
    assert!(!plain(&url).await.passed());
    server.stop().await;
    tokio::task::yield_now().await;
    // What is left is the server's end of the connection.
    assert!(tasks.num_alive_tasks() <= 1, "{} tasks", tasks.num_alive_tasks());
}
