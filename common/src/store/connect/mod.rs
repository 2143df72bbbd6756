//! Makes the first connection to etcd: which endpoint answers, and which API it has.
//!
//! With [`Api::Auto`] the server is asked. v2 is chosen only for a server that reports a version
//! before 3.0: v2 and v3 keep separate keys, so a v3 server that is just starting, and offers v2
//! already, must not get the keys into the wrong half.

mod address;
mod http_client;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;
use url::Url;

use super::StoreError;
use super::discovery::Discovery;
use super::endpoints::{Endpoints, host_and_port, shuffled};
use super::etcd::Etcd;
use super::reason::at_first;
use super::user::{Credentials, User};
use super::v2::{self, V2};
use super::v3::{self, V3};
use super::version::ServerVersion;
use crate::tls::{Roots, TlsFiles, client_config};

/// Which of etcd's APIs to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Api {
    /// That of the server: v3, or v2 before etcd 3.0.
    #[default]
    Auto,
    /// gRPC, etcd 3.0 and newer.
    V3,
    /// `/v2/keys`.
    V2,
}

/// Bounds for connections and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For making a connection.
    pub connect: Duration,
    /// For one request to one endpoint.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), request: super::REQUEST_TIMEOUT }
    }
}

/// Where etcd is, and how to connect to it.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// `http://host:port`, `https://host:port` or `host:port`, which is https if there are TLS
    /// files and http otherwise. A missing port is 2379, with v2 also 4001.
    pub endpoints: Vec<String>,
    /// Instead of endpoints: a domain whose SRV records name them,
    /// `_etcd-client-ssl._tcp.DOMAIN` or else `_etcd-client._tcp.DOMAIN`. Looked up again
    /// whenever all endpoints have failed.
    pub discovery: Option<String>,
    /// Whether the members that the cluster names are used as well, when those given fail.
    pub auto_sync: bool,
    pub api: Api,
    /// Files for https.
    pub tls: TlsFiles,
    /// The user, where etcd has authentication.
    pub credentials: Option<Credentials>,
    /// Bounds for connections and requests.
    pub timeouts: Timeouts,
}

/// Finds an endpoint that answers, and the API if it is [`Api::Auto`].
///
/// # Errors
/// [`StoreError::Unreachable`] when none answers. Any other variant lasts until a file, a user,
/// a permission or the server is changed.
pub async fn connect(connection: &Connection) -> Result<Etcd, StoreError> {
    let dialer = Dialer::new(connection).await?;
    let mut errors = Vec::new();
    for (at, url) in dialer.urls.iter().enumerate() {
        match dialer.dial(at, url).await {
            Ok(etcd) => return Ok(etcd),
            Err(error) => errors.push(error),
        }
    }
    Err(most_definite(errors))
}

/// Checks the form of an endpoint.
///
/// # Errors
/// What is wrong with it, for an operator.
pub fn check_endpoint(text: &str, api: Api) -> Result<(), String> {
    address::parse(text, "http", api).map(drop).map_err(|e| e.to_string())
}

/// Everything that a connection is made from.
struct Dialer {
    urls: Vec<Url>,
    discovery: Option<Arc<Discovery>>,
    auto_sync: bool,
    api: Api,
    user: Option<Arc<User>>,
    tls: ClientConfig,
    /// Made when it is needed: v3 does not need it.
    http: OnceLock<reqwest::Client>,
    timeouts: Timeouts,
}

impl Dialer {
    async fn new(connection: &Connection) -> Result<Self, StoreError> {
        let Connection { api, tls, credentials, timeouts, .. } = connection;
        let (urls, discovery) = find(connection).await?;
        let secure = urls.iter().any(|url| url.scheme() == "https");
        let tls = match secure {
            true => tls.client_config(),
            // No files are read for connections that will have none.
            false => client_config(Arc::new(Roots::of(None)), None),
        };
        Ok(Self {
            urls,
            discovery,
            auto_sync: connection.auto_sync,
            api: *api,
            user: credentials.as_ref().map(User::new).transpose()?.map(Arc::new),
            tls: tls.map_err(StoreError::Setup)?,
            http: OnceLock::new(),
            timeouts: *timeouts,
        })
    }

    /// The endpoints, beginning with the one at `at`.
    fn endpoints(&self, at: usize) -> Result<Endpoints, StoreError> {
        let mut urls = self.urls.clone();
        let len = urls.len().max(1);
        urls.rotate_left(at % len);
        let endpoints = Endpoints::new(urls, self.discovery.clone(), self.timeouts.request)?;
        Ok(if self.auto_sync { endpoints.learning() } else { endpoints })
    }

    fn v3(&self, at: usize) -> Result<V3, StoreError> {
        let settings = v3::V3Settings {
            user: self.user.clone(),
            tls: self.tls.clone(),
            connect: self.timeouts.connect,
        };
        Ok(V3::new(self.endpoints(at)?, settings))
    }

    fn v2(&self, at: usize) -> Result<V2, StoreError> {
        let settings = v2::V2Settings { client: self.http()?, user: self.user.clone() };
        Ok(V2::new(self.endpoints(at)?, settings))
    }

    fn http(&self) -> Result<reqwest::Client, StoreError> {
        if let Some(client) = self.http.get() {
            return Ok(client.clone());
        }
        let client = http_client::make(self.tls.clone(), self.timeouts.connect)?;
        Ok(self.http.get_or_init(|| client).clone())
    }

    /// Asks the endpoint at `at`, and keeps the connection that answered.
    async fn dial(&self, at: usize, url: &Url) -> Result<Etcd, StoreError> {
        let v2 = || async {
            let store = self.v2(at)?;
            store.probe(self.deadline()).await.map(|()| Etcd::V2(store)).map_err(at_first)
        };
        if self.api == Api::V2 {
            return v2().await;
        }
        let store = self.v3(at)?;
        let error = match store.probe(self.deadline()).await {
            Ok(()) => return Ok(Etcd::V3(store)),
            Err(error) => at_first(error),
        };
        let unsupported = matches!(error, StoreError::Unsupported(_));
        if !error.is_unanswered() && !unsupported {
            return Err(error);
        }
        match ServerVersion::ask(&self.http()?, url, self.timeouts.request).await {
            // The error of v3 is the useful one: no etcd listens there, or nothing does.
            Err(_) => Err(error),
            Ok(version) if self.api == Api::V3 => Err(without_v3(url, &version).unwrap_or(error)),
            Ok(version) if version.major.is_some_and(|major| major >= 3) => {
                Err(StoreError::Unreachable(format!(
                    "{}: etcd {} answers HTTP but not gRPC ({error}); if a proxy in between passes \
                     only HTTP/1 and v2 is meant, choose the v2 API explicitly",
                    host_and_port(url),
                    version.text
                )))
            }
            Ok(version) => v2().await.map_err(|error| match error {
                StoreError::Unsupported(_) if version.major.is_none() => not_an_etcd(url),
                other => other,
            }),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeouts.request
    }
}

/// v3 is asked for, and the server is older than that: its own error is about bytes.
fn without_v3(url: &Url, version: &ServerVersion) -> Option<StoreError> {
    version.major.filter(|major| *major < 3)?;
    let (server, version) = (host_and_port(url), &version.text);
    let text = format!(
        "{server}: etcd {version} has only the v2 API; choose it, or leave the choice to the server"
    );
    Some(StoreError::Unsupported(text))
}

/// HTTP is answered, and neither `/version` nor the keys of v2 are.
fn not_an_etcd(url: &Url) -> StoreError {
    let server = host_and_port(url);
    StoreError::Unreachable(format!("{server}: the server there is not etcd; is the port right?"))
}

/// The endpoints in the order in which they are tried, and the discovery that found them.
async fn find(connection: &Connection) -> Result<(Vec<Url>, Option<Arc<Discovery>>), StoreError> {
    let Connection { endpoints, discovery, api, tls, .. } = connection;
    if let Some(domain) = discovery {
        let (discovery, urls) = Discovery::begin(domain).await?;
        return Ok((urls, Some(Arc::new(discovery))));
    }
    // TLS files leave no doubt about what a bare `host:port` means.
    let scheme = if tls.is_given() { "https" } else { "http" };
    let mut urls = Vec::new();
    for text in endpoints {
        let found = address::parse(text, scheme, *api);
        urls.extend(found.map_err(|e| StoreError::Setup(format!("endpoint {e}")))?);
    }
    Ok((shuffled(urls), None))
}

/// Prefers a definite error; otherwise joins all that are transient.
fn most_definite(errors: Vec<StoreError>) -> StoreError {
    if let Some(definite) = errors.iter().find(|error| !error.is_transient()) {
        return definite.clone();
    }
    let reasons: Vec<String> = errors
        .into_iter()
        .map(|error| match error {
            StoreError::Unreachable(reason) | StoreError::NoQuorum(reason) => reason,
            other => other.to_string(),
        })
        .collect();
    if reasons.is_empty() {
        return StoreError::Setup("no etcd endpoint is given".to_owned());
    }
    StoreError::Unreachable(joined(reasons))
}

/// Each reason once, after the endpoints that have it. In one order, so that a log which has it
/// already knows it again, though endpoints are tried in any.
fn joined(mut reasons: Vec<String>) -> String {
    reasons.sort();
    let mut groups: Vec<(String, String)> = Vec::new();
    for reason in reasons {
        let (place, why) = reason.split_once(": ").unwrap_or(("", &reason));
        match groups.iter_mut().find(|(_, known)| known == why) {
            Some((places, _)) => *places = format!("{places}, {place}"),
            None => groups.push((place.to_owned(), why.to_owned())),
        }
    }
    let text = |(places, why): (String, String)| match &*places {
        "" => why,
        places => format!("{places}: {why}"),
    };
    groups.into_iter().map(text).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Password;

    #[test]
    fn passwords_are_never_printed() {
        let credentials =
            Credentials { user: "web".into(), password: Password::Given("s3cret".into()) };
        let connection = Connection { credentials: Some(credentials), ..Connection::default() };
        assert!(!format!("{connection:?}").contains("s3cret"));
    }

    #[test]
    fn a_definite_error_comes_before_a_transient_one() {
        let silent = || StoreError::Unreachable("a:1: refused".into());
        let denied = StoreError::Denied("bad password".into());
        assert_eq!(most_definite(vec![silent(), denied.clone()]), denied);
        let both = most_definite(vec![silent(), StoreError::Unreachable("b:1: refused".into())]);
        assert_eq!(both, StoreError::Unreachable("a:1, b:1: refused".into()));
        let reasons = ["b:1: refused", "a:1: no route", "a:2: refused", "silent"];
        let text = joined(reasons.map(str::to_owned).to_vec());
        assert_eq!(text, "a:1: no route; a:2, b:1: refused; silent");
    }
}
