//! Endpoints from DNS: the SRV records `_etcd-client-ssl._tcp.DOMAIN` (https) or,
//! where there are none, `_etcd-client._tcp.DOMAIN` (http), as etcd's own tools
//! look for them.
//!
//! Once found, it stays with one of the two: an answer that is missing for a moment
//! must not turn TLS off.

use std::time::Duration;

use url::Url;

use super::StoreError;
use crate::dns::{Resolver, ServiceRecord};

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
    /// Read again for each look-up: the machine may have moved to another network.
    resolver: Box<dyn Fn() -> Resolver + Send + Sync>,
}

impl Discovery {
    /// Finds out which of the records there are, and what they say now.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when DNS has no answer, or none of the records.
    pub(super) async fn begin(domain: &str) -> Result<(Self, Vec<Url>), StoreError> {
        Self::begin_with(domain, Resolver::of_this_machine).await
    }

    async fn begin_with(
        domain: &str,
        resolver: impl Fn() -> Resolver + Send + Sync + 'static,
    ) -> Result<(Self, Vec<Url>), StoreError> {
        let [secure, plain] = SERVICES;
        let domain = domain.trim_matches('.').to_owned();
        let mut discovery = Self { domain, service: secure, resolver: Box::new(resolver) };
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
        let found = (self.resolver)().services(&name, LOOKUP_TIMEOUT).await;
        let records = found.map_err(|error| {
            StoreError::Unreachable(format!("DNS, asked for {name} (SRV): {error}"))
        })?;
        let targets =
            records.iter().filter_map(|record| Some((record.priority, self.url(record)?)));
        let mut targets: Vec<_> = targets.collect();
        fastrand::shuffle(&mut targets);
        targets.sort_by_key(|(priority, _)| *priority);
        Ok(targets.into_iter().map(|(_, url)| url).collect())
    }

    /// `None` for the target `.`, which says that there is no such service.
    fn url(&self, record: &ServiceRecord) -> Option<Url> {
        let host = record.target.trim_end_matches('.');
        let url = format!("{}://{host}:{}", self.service.scheme, record.port);
        Some(host).filter(|host| !host.is_empty()).and_then(|_| url.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::endpoints::Endpoints;
    use super::*;
    use crate::dns::tests::{name_server, record};

    /// `(name, priority, port, target)`
    type SrvRecords = Arc<Mutex<Vec<(&'static str, u16, u16, &'static str)>>>;

    /// Asks a name server that has these records.
    async fn resolver(zone: SrvRecords) -> impl Fn() -> Resolver + Clone + Send + Sync {
        let server = name_server(move |asked| {
            let asked = asked.to_ascii();
            let zone = zone.lock().unwrap();
            let found = zone.iter().filter(|(name, ..)| *name == asked);
            Ok(found.map(|(_, priority, port, target)| record(*priority, *port, target)).collect())
        });
        let resolver = Resolver::new(b"").with_servers(vec![server.await]);
        move || resolver.clone()
    }

    const TLS: &str = "_etcd-client-ssl._tcp.example.org.";
    const PLAIN: &str = "_etcd-client._tcp.example.org.";

    fn texts(urls: &[Url]) -> Vec<&str> {
        urls.iter().map(Url::as_str).collect()
    }

    #[tokio::test]
    async fn tls_goes_first_and_stays() {
        let zone: SrvRecords = Arc::default();
        let resolver = resolver(zone.clone()).await;
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
        let resolver = resolver(zone.clone()).await;
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
