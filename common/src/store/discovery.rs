//! Endpoints from DNS: the SRV records `_etcd-client-ssl._tcp.DOMAIN` (https) or,
//! where there are none, `_etcd-client._tcp.DOMAIN` (http), as etcd's own tools
//! look for them.
//!
//! Once found, it stays with one of the two: an answer that is missing for a moment
//! must not turn TLS off.

use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use tokio::time::timeout;
use url::Url;

use super::StoreError;

/// How long one lookup may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SrvService {
    name: &'static str,
    scheme: &'static str,
}

const SERVICES: [SrvService; 2] = [
    SrvService { name: "_etcd-client-ssl._tcp", scheme: "https" },
    SrvService { name: "_etcd-client._tcp", scheme: "http" },
];

/// A domain whose records name the endpoints.
pub(super) struct Discovery {
    domain: String,
    service: SrvService,
    resolver: TokioResolver,
}

impl Discovery {
    /// Finds out which of the records there are, and what they say now.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when DNS has no answer, or none of the records.
    pub(super) async fn begin(domain: &str) -> Result<(Self, Vec<Url>), StoreError> {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let resolver = resolver
            .map_err(|e| StoreError::Setup(format!("DNS is not usable on this machine: {e}")))?;
        Self::begin_with(domain, resolver).await
    }

    async fn begin_with(
        domain: &str,
        resolver: TokioResolver,
    ) -> Result<(Self, Vec<Url>), StoreError> {
        let [secure, plain] = SERVICES;
        let domain = domain.trim_matches('.').to_owned();
        let mut discovery = Self { domain, service: secure, resolver };
        let mut urls = discovery.lookup().await?;
        if urls.is_empty() {
            discovery.service = plain;
            urls = discovery.lookup().await?;
        }
        if urls.is_empty() {
            let names = SERVICES.map(|service| format!("{}.{}", service.name, discovery.domain));
            return Err(StoreError::Unreachable(format!(
                "DNS has no SRV record {}",
                names.join(" and no ")
            )));
        }
        Ok((discovery, urls))
    }

    /// The endpoints as DNS has them now, the preferred first, those of one priority
    /// in a random order. None when there is no record.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when DNS has no answer.
    pub(super) async fn lookup(&self) -> Result<Vec<Url>, StoreError> {
        // The dot at the end keeps the machine's search domains out.
        let name = format!("{}.{}.", self.service.name, self.domain);
        let silent =
            |why: String| StoreError::Unreachable(format!("DNS, asked for {name} (SRV): {why}"));
        let found = match timeout(LOOKUP_TIMEOUT, self.resolver.srv_lookup(name.as_str())).await {
            Err(_) => return Err(silent("no answer".to_owned())),
            Ok(Err(error)) if error.is_no_records_found() => return Ok(Vec::new()),
            Ok(Err(error)) => return Err(silent(error.to_string())),
            Ok(Ok(found)) => found,
        };
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(record) => Some(record),
            _ => None,
        });
        let mut targets: Vec<_> =
            records.filter_map(|record| Some((record.priority, self.url(record)?))).collect();
        fastrand::shuffle(&mut targets);
        targets.sort_by_key(|(priority, _)| *priority);
        Ok(targets.into_iter().map(|(_, url)| url).collect())
    }

    /// `None` for the target `.`, which says that there is no such service.
    fn url(&self, record: &SRV) -> Option<Url> {
        let target = record.target.to_ascii();
        let host = target.trim_end_matches('.');
        let url = format!("{}://{host}:{}", self.service.scheme, record.port);
        Some(host).filter(|host| !host.is_empty()).and_then(|_| url.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};

    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{Name, Record};
    use tokio::net::UdpSocket;

    use super::super::endpoints::Endpoints;
    use super::*;

    /// `(name, priority, port, target)`
    type SrvRecords = Arc<Mutex<Vec<(&'static str, u16, u16, &'static str)>>>;

    /// A name server with SRV records that live for no time.
    async fn name_server(zone: SrvRecords) -> TokioResolver {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let query = Message::from_vec(&buffer[..len]).unwrap();
                let asked = query.queries[0].name().clone();
                let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
                answer.add_queries(query.queries.clone());
                for (name, priority, port, target) in zone.lock().unwrap().iter() {
                    if asked == Name::from_ascii(name).unwrap() {
                        let target = Name::from_ascii(target).unwrap();
                        let data = RData::SRV(SRV::new(*priority, 1, *port, target));
                        answer.add_answer(Record::from_rdata(asked.clone(), 0, data));
                    }
                }
                if answer.answers.is_empty() {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let mut server = NameServerConfig::udp(Ipv4Addr::LOCALHOST.into());
        server.connections[0].port = port;
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let provider = TokioRuntimeProvider::default();
        TokioResolver::builder_with_config(config, provider).build().unwrap()
    }

    const TLS: &str = "_etcd-client-ssl._tcp.example.org.";
    const PLAIN: &str = "_etcd-client._tcp.example.org.";

    fn texts(urls: &[Url]) -> Vec<&str> {
        urls.iter().map(Url::as_str).collect()
    }

    #[tokio::test]
    async fn tls_goes_first_and_stays() {
        let zone: SrvRecords = Arc::default();
        let resolver = name_server(zone.clone()).await;
        let begin = || Discovery::begin_with("example.org.", resolver.clone());

        let error = begin().await.err().unwrap();
        assert!(error.is_transient() && error.to_string().contains("_etcd-client-ssl._tcp"));

        zone.lock().unwrap().extend([
            (PLAIN, 0, 2379, "a.example.org."),
            (TLS, 20, 2379, "c.example.org."),
            (TLS, 10, 2380, "b.example.org."),
            (TLS, 10, 2379, "."),
        ]);
        let (discovery, urls) = begin().await.unwrap();
        assert_eq!(texts(&urls), ["https://b.example.org:2380/", "https://c.example.org:2379/"]);

        zone.lock().unwrap().retain(|(name, ..)| *name == PLAIN);
        assert_eq!(discovery.lookup().await, Ok(Vec::new()));
        let (_, urls) = begin().await.unwrap();
        assert_eq!(texts(&urls), ["http://a.example.org:2379/"]);
    }

    #[tokio::test]
    async fn a_round_of_failures_asks_again() {
        let zone: SrvRecords = Arc::new(Mutex::new(vec![(PLAIN, 0, 1, "old.example.org.")]));
        let resolver = name_server(zone.clone()).await;
        let (discovery, urls) = Discovery::begin_with("example.org", resolver).await.unwrap();
        let endpoints = Endpoints::new(urls, Some(Arc::new(discovery)), LOOKUP_TIMEOUT).unwrap();
        let chosen = endpoints.choose().await.unwrap();
        assert_eq!(chosen.name(), "old.example.org:1");
        *zone.lock().unwrap() = vec![(PLAIN, 0, 2, "new.example.org.")];
        assert_eq!(endpoints.choose().await.unwrap().name(), "old.example.org:1");
        endpoints.switch(chosen.epoch);
        let chosen = endpoints.choose().await.unwrap();
        assert_eq!(chosen.name(), "new.example.org:2");
        // DNS that has no answer leaves what is known.
        zone.lock().unwrap().clear();
        endpoints.switch(chosen.epoch);
        assert_eq!(endpoints.choose().await.unwrap().name(), "new.example.org:2");
    }
}
