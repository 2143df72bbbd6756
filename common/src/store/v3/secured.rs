//! A gRPC channel over our own TLS: tonic's accepts no certificate verifier from outside.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::{Channel, Error};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Endpoint, Uri};
use tower_service::Service;
use url::Url;

use super::{PING, PING_ANSWER};

/// Connects to `url`, within `limit`.
pub(super) async fn channel(
    url: &Url,
    mut config: ClientConfig,
    limit: Duration,
) -> Result<Channel, Error> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let bare = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(bare.clone())
        .map_err(|_| Error::InvalidArgs(format!("no certificate can have the name `{bare}`")))?;
    let connector = TlsDialer { tls: TlsConnector::from(Arc::new(config)), at: (bare, port), name };
    // With https, tonic would look for TLS settings of its own.
    let plain: Uri = format!("http://{host}:{port}").parse()?;
    let endpoint = Endpoint::from(plain)
        .origin(format!("https://{host}:{port}").parse()?)
        .keep_alive_while_idle(false)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING_ANSWER)
        .connect_timeout(limit);
    Ok(Channel::Tonic(endpoint.connect_with_connector(connector).await?))
}

struct TlsDialer {
    tls: TlsConnector,
    at: (String, u16),
    name: ServerName<'static>,
}

type Secured = TokioIo<TlsStream<TcpStream>>;

impl Service<Uri> for TlsDialer {
    type Response = Secured;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (tls, at, name) = (self.tls.clone(), self.at.clone(), self.name.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            tls.connect(name, stream).await.map(TokioIo::new)
        })
    }
}
