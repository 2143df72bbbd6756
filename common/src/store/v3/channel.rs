//! The gRPC channel to one endpoint, over TCP or our own TLS: tonic's accepts no certificate
//! verifier from outside.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Channel, Error};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tonic::transport::{Endpoint, Uri};
use url::Url;

use super::{PING, PING_ANSWER};

/// Connects to `url`, within `limit`.
///
/// # Errors
/// When there is no connection, or the host is none that a certificate can name.
pub(super) async fn connect(
    url: &Url,
    mut tls: ClientConfig,
    limit: Duration,
) -> Result<Channel, Error> {
    if url.scheme() == "https" {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        ServerName::try_from(host).map_err(|_| {
            Error::InvalidArgs(format!("no certificate can have the name `{host}`"))
        })?;
    }
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limit));
    let endpoint = Endpoint::from(url.as_str().parse::<Uri>()?)
        // The server takes pings without a request under way for an attack.
        .keep_alive_while_idle(false)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .connect_timeout(limit);
    let connector = HttpsConnector::from((tcp, Arc::new(tls)));
    Ok(Channel::Tonic(endpoint.connect_with_connector(connector).await?))
}
