//! From what an operator says about etcd to a [`Store`](super::Store) that answered
//! once.
//!
//! With [`Api::Auto`] the server is asked. v2 is chosen only for a server that says
//! it is older than 3.0: v2 and v3 keep separate keys, so a v3 server that is just
//! starting, and offers v2 already, must not win a register for the wrong half.

mod address;
mod files;
mod version;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use url::Url;

use self::files::Material;
use self::version::Version;
use super::StoreError;
use super::discovery::Discovery;
use super::etcd::Etcd;
use super::reason::with_sources;
use super::rotation::{Rotation, place, shuffled};
use super::v2::{self, V2};
use super::v3::{self, V3};

/// Which of etcd's APIs to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Api {
    /// Ask the server.
    #[default]
    Auto,
    /// gRPC, etcd 3.0 and newer.
    V3,
    /// `/v2/keys`.
    V2,
}

/// Why a text is not an API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not an etcd API; write `auto`, `v3` or `v2`", .0.escape_debug())]
pub struct ApiError(String);

impl FromStr for Api {
    type Err = ApiError;
    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "auto" => Ok(Self::Auto),
            "v3" => Ok(Self::V3),
            "v2" => Ok(Self::V2),
            other => Err(ApiError(other.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::V3 => "v3",
            Self::V2 => "v2",
        })
    }
}

/// PEM files for endpoints with `https`.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Who may have signed the server's certificate, and nobody else. The system's
    /// own if not given.
    pub ca: Option<PathBuf>,
    /// Our certificate, with its chain.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password; never printed.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// How long etcd is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To make a connection.
    pub connect: Duration,
    /// For one request; a connection that has to be made for it may take as long
    /// again.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), request: Duration::from_secs(5) }
    }
}

/// Where etcd is and how to speak to it.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// `http://host:port`, `https://host:port` or `host:port` (which is http). A
    /// missing port is 2379, with v2 also 4001.
    pub endpoints: Vec<String>,
    /// Instead of endpoints: a domain whose SRV records name them,
    /// `_etcd-client-ssl._tcp.DOMAIN` or else `_etcd-client._tcp.DOMAIN`. Asked again
    /// whenever all endpoints have failed.
    pub discovery: Option<String>,
    /// Which API.
    pub api: Api,
    /// Files for https.
    pub tls: TlsFiles,
    /// Whom to be, where etcd asks.
    pub credentials: Option<Credentials>,
    /// Deadlines.
    pub timeouts: Timeouts,
}

/// Finds an endpoint that answers, and the API if it is left open.
///
/// # Errors
/// [`StoreError::Unreachable`] when nothing answers: try again later. Any other
/// variant asks for a change of flags, files, users or of the server.
pub async fn connect(connection: &Connection) -> Result<Etcd, StoreError> {
    let door = Door::new(connection).await?;
    let mut errors = Vec::new();
    for (at, url) in door.endpoints.iter().enumerate() {
        match door.knock(at, url).await {
            Ok(etcd) => return Ok(etcd),
            Err(error) => errors.push(error),
        }
    }
    Err(most_telling(errors))
}

/// Whether a text is an endpoint, before anything is asked.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_endpoint(text: &str, api: Api) -> Result<(), String> {
    address::parse(text, api).map(drop).map_err(|e| e.to_string())
}

/// All that is needed to ask an endpoint.
struct Door {
    endpoints: Vec<Url>,
    discovery: Option<Arc<Discovery>>,
    api: Api,
    user: Option<(String, String)>,
    tls: Option<v3::Tls>,
    material: Material,
    /// Made when it is needed: v3 has no use for it.
    http: OnceLock<reqwest::Client>,
    timeouts: Timeouts,
}

impl Door {
    async fn new(connection: &Connection) -> Result<Self, StoreError> {
        let Connection { api, tls, credentials, timeouts, .. } = connection;
        let (endpoints, discovery) = find(connection).await?;
        let secure = endpoints.iter().any(|url| url.scheme() == "https");
        let material = Material::load(tls, secure).await?;
        Ok(Self {
            endpoints,
            discovery,
            api: *api,
            user: credentials.as_ref().map(|c| (c.user.clone(), c.password.clone())),
            tls: secure.then(|| material.for_grpc()).transpose()?,
            material,
            http: OnceLock::new(),
            timeouts: *timeouts,
        })
    }

    /// The endpoints, beginning with the one that answered.
    fn from(&self, at: usize) -> Vec<Url> {
        let mut endpoints = self.endpoints.clone();
        let len = endpoints.len().max(1);
        endpoints.rotate_left(at % len);
        endpoints
    }

    fn v3(&self, endpoints: Vec<Url>) -> Result<V3, StoreError> {
        let settings = v3::Settings {
            user: self.user.clone(),
            tls: self.tls.clone(),
            request: self.timeouts.request,
            connect: self.timeouts.connect,
        };
        let rotation = Rotation::new(endpoints)?.found_by(self.discovery.clone());
        Ok(V3::new(rotation, settings))
    }

    fn v2(&self, endpoints: Vec<Url>) -> Result<V2, StoreError> {
        let settings = v2::Settings {
            client: self.http()?,
            user: self.user.clone(),
            request: self.timeouts.request,
        };
        let rotation = Rotation::new(endpoints)?.found_by(self.discovery.clone());
        Ok(V2::new(rotation, settings))
    }

    fn http(&self) -> Result<reqwest::Client, StoreError> {
        if let Some(client) = self.http.get() {
            return Ok(client.clone());
        }
        let client = self.material.for_http(self.timeouts.connect)?;
        Ok(self.http.get_or_init(|| client).clone())
    }

    /// Asks the endpoint at this place, and goes on with the connection that answered.
    async fn knock(&self, at: usize, url: &Url) -> Result<Etcd, StoreError> {
        let v2 = || async {
            let store = self.v2(self.from(at))?;
            store.probe().await.map(|()| Etcd::V2(store))
        };
        if self.api == Api::V2 {
            return v2().await;
        }
        let store = self.v3(self.from(at))?;
        let error = match store.probe().await {
            Ok(()) => return Ok(Etcd::V3(store)),
            Err(error) => error,
        };
        let silent = matches!(error, StoreError::Unreachable(_) | StoreError::Unsupported(_));
        if self.api == Api::V3 || !silent {
            return Err(error);
        }
        match self.version(url).await {
            // What v3 said is what the operator needs: this is no etcd, or none is there.
            Err(_) => Err(error),
            Ok(version) if version.major.is_some_and(|major| major >= 3) => {
                Err(StoreError::Unreachable(format!(
                    "{}: etcd {} answers HTTP but not gRPC ({error}); if a proxy in between lets \
                     only HTTP/1 pass and v2 is meant, choose the v2 API explicitly",
                    place(url),
                    version.text
                )))
            }
            Ok(version) => v2().await.map_err(|refusal| match refusal {
                StoreError::Unsupported(_) if version.major.is_none() => not_an_etcd(url),
                refusal => refusal,
            }),
        }
    }

    /// What the server says at `/version`.
    async fn version(&self, url: &Url) -> Result<Version, StoreError> {
        let mut url = url.clone();
        url.set_path("/version");
        let request = self.http()?.get(url).timeout(self.timeouts.request);
        let cut =
            |e: reqwest::Error| StoreError::Unreachable(with_sources("", Some(&e.without_url())));
        let mut response = request.send().await.map_err(cut)?;
        // An answer that is longer than this is somebody else's.
        let body = response.chunk().await.map_err(cut)?.unwrap_or_default();
        Ok(Version::read(&body))
    }
}

/// Somebody answers HTTP, and neither `/version` nor the keys of v2.
fn not_an_etcd(url: &Url) -> StoreError {
    let place = place(url);
    StoreError::Unreachable(format!("{place}: what answers there is no etcd; is the port right?"))
}

/// The endpoints in the order in which they are tried, and who found them.
async fn find(connection: &Connection) -> Result<(Vec<Url>, Option<Arc<Discovery>>), StoreError> {
    let Connection { endpoints, discovery, api, .. } = connection;
    if let Some(domain) = discovery {
        if !endpoints.is_empty() {
            return Err(StoreError::Setup(
                "endpoints are given and a domain to discover them: one of the two is enough"
                    .to_owned(),
            ));
        }
        let (discovery, urls) = Discovery::begin(domain).await?;
        return Ok((urls, Some(Arc::new(discovery))));
    }
    let mut urls = Vec::new();
    for text in endpoints {
        let found = address::parse(text, *api);
        urls.extend(found.map_err(|e| StoreError::Setup(format!("--etcd: endpoint {e}")))?);
    }
    Ok((shuffled(urls), None))
}

/// A refusal says more than a silence; of several silences, all are told.
fn most_telling(errors: Vec<StoreError>) -> StoreError {
    if let Some(refusal) = errors.iter().find(|error| !error.is_transient()) {
        return refusal.clone();
    }
    let reasons: Vec<String> = errors
        .into_iter()
        .map(|error| match error {
            StoreError::Unreachable(why) => why,
            other => other.to_string(),
        })
        .collect();
    if reasons.is_empty() {
        return StoreError::Setup("no etcd endpoint is given".to_owned());
    }
    StoreError::Unreachable(reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_printed() {
        let credentials = Credentials { user: "web".into(), password: "s3cret".into() };
        let connection = Connection { credentials: Some(credentials), ..Connection::default() };
        assert!(!format!("{connection:?}").contains("s3cret"));
    }

    #[test]
    fn a_refusal_is_told_before_a_silence() {
        let silence = || StoreError::Unreachable("a:1: refused".into());
        let denied = StoreError::Denied("bad password".into());
        assert_eq!(most_telling(vec![silence(), denied.clone()]), denied);
        let both = most_telling(vec![silence(), StoreError::Unreachable("b:1: refused".into())]);
        assert_eq!(both, StoreError::Unreachable("a:1: refused; b:1: refused".into()));
    }
}
