//! SRV records (RFC 2782), the one look-up that the standard library does not offer.
//!
//! hickory-proto makes and reads the messages, resolv-conf reads `/etc/resolv.conf`; nothing is
//! cached between look-ups. Which server is asked for which name, and in which order, is decided
//! here, because an empty answer empties a file, or takes etcd's endpoints away. The invariant: "no
//! such name" is the answer of the first server that responds, and counts only if none of the names
//! failed. This module knows nothing of etcd or templates.

mod exchange;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData};
use tokio::time::timeout;

/// Where name servers listen.
const PORT: u16 = 53;

/// A server of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// The name of the server, with a dot at its end.
    pub target: String,
    pub port: u16,
    /// Lower ones come first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("not a DNS name")]
    NotAName,
    #[error("no answer in time")]
    Timeout,
    #[error("the name server {0} answers: {1}")]
    Failed(SocketAddr, ResponseCode),
    #[error("the name server {0}: {1}")]
    Unreachable(SocketAddr, std::io::Error),
}

/// Who is asked, and the suffixes for short names.
#[derive(Debug, Clone)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<Name>,
    /// With so many dots a name is tried as it stands first.
    dots: usize,
}

impl Resolver {
    /// As `/etc/resolv.conf` says now; without a server there, the local machine is asked.
    pub fn of_this_machine() -> Self {
        Self::new(&std::fs::read("/etc/resolv.conf").unwrap_or_default())
    }

    /// The settings of a `resolv.conf`. What is wrong in it is left out, as the C library does.
    pub(crate) fn new(conf: &[u8]) -> Self {
        let (conf, _) = resolv_conf::Config::parse_with_errors(conf);
        let servers = conf.get_nameservers_or_local();
        let search = conf.get_last_search_or_domain().filter(|domain| *domain != "--");
        Self {
            servers: servers.into_iter().map(|ip| (IpAddr::from(ip), PORT).into()).collect(),
            search: search.filter_map(|domain| Name::from_str_relaxed(domain).ok()).collect(),
            dots: usize::try_from(conf.ndots).unwrap_or(usize::MAX),
        }
    }

    /// The same with other servers.
    #[cfg(test)]
    pub(crate) fn with_servers(self, servers: Vec<SocketAddr>) -> Self {
        Self { servers, ..self }
    }

    /// The servers of the service `name`, unordered; none when there is no such name.
    ///
    /// # Errors
    /// When the name is none, or no name server gives an answer in time.
    pub async fn services(
        &self,
        name: &str,
        patience: Duration,
    ) -> Result<Vec<ServiceRecord>, LookupError> {
        let names = self.names(name).ok_or(LookupError::NotAName)?;
        // A server that does not answer must leave time for the next.
        let share = patience / u32::try_from(self.servers.len()).unwrap_or(u32::MAX).max(1);
        let mut trouble = LookupError::Timeout;
        for server in &self.servers {
            match timeout(share, ask(*server, &names)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) => trouble = error,
                Err(_) => trouble = LookupError::Timeout,
            }
        }
        Err(trouble)
    }

    /// The full names to try, in order. `None` if it is no name.
    fn names(&self, name: &str) -> Option<Vec<Name>> {
        let name = Name::from_str_relaxed(name).ok().filter(|name| name.num_labels() > 0)?;
        if name.is_fqdn() {
            return Some(vec![name]);
        }
        let whole = name.clone().append_domain(&Name::root()).ok()?;
        let at = if usize::from(name.num_labels()) > self.dots { 0 } else { self.search.len() };
        let names = self.search.iter().map(|domain| name.clone().append_domain(domain).ok());
        let mut names = names.collect::<Option<Vec<_>>>()?;
        names.insert(at, whole);
        Some(names)
    }
}

/// The records of the first name that has some.
async fn ask(server: SocketAddr, names: &[Name]) -> Result<Vec<ServiceRecord>, LookupError> {
    let mut trouble = None;
    for name in names {
        let answer = exchange::ask(server, name).await;
        let answer = answer.map_err(|error| LookupError::Unreachable(server, error))?;
        match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {
                let records = answer.answers.iter();
                let records: Vec<_> = records.filter_map(|record| service(&record.data)).collect();
                if !records.is_empty() {
                    return Ok(records);
                }
            }
            code => trouble = Some(LookupError::Failed(server, code)),
        }
    }
    trouble.map_or(Ok(Vec::new()), Err)
}

fn service(data: &RData) -> Option<ServiceRecord> {
    let RData::SRV(record) = data else { return None };
    Some(ServiceRecord {
        target: record.target.to_ascii(),
        port: record.port,
        priority: record.priority,
        weight: record.weight,
    })
}

#[cfg(test)]
pub(crate) mod tests;
