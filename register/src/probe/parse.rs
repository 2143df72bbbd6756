//! What an operator may write after `--check`, parsed. Pure: no I/O.
//!
//! | text | means |
//! |---|---|
//! | `http://host:port/path`, `https://…` | GET over HTTP/1.1 |
//! | `h2c://host:port/path` | GET over HTTP/2 without TLS, by prior knowledge |
//! | `http://unix:/run/app.sock:/path` | the same over a unix socket (nginx's way to write it) |
//! | `http`, `https`, `h2c`, `/path` | the service's own host and port |
//! | `tcp`, `tcp://host:port` | a connection is accepted |
//! | `unix:/run/app.sock` | the same for a unix socket |
//! | `exec:CMD arg 'one arg'` | the command ends with 0; words and quotes, but no shell |
//! | `none` | always healthy |
//!
//! `{host}` and `{port}` are replaced by the service's own.

use std::path::Path;

use common::model::{Endpoint, EndpointError, Host};
use url::Url;

use super::argv;
use super::check::{Check, CheckError, HttpCheck, HttpOptions, ProbeAddress, Scheme};

impl Check {
    /// Reads what was written after `--check` for the service at `own`.
    pub fn parse(text: &str, own: &Endpoint, options: &HttpOptions) -> Result<Self, CheckError> {
        let text = text.trim();
        if let Some(command) = text.strip_prefix("exec:") {
            let command = fill(command, own.host().to_string(), own);
            return argv::split(&command).map(Self::Exec);
        }
        let text = &fill(text, bracketed(own.host()), own);
        let word = text.to_ascii_lowercase();
        match word.as_str() {
            "none" => return Ok(Self::None),
            "tcp" => return Ok(Self::Tcp(address_of(own))),
            "http" | "https" | "h2c" => {
                return Self::parse(&format!("{word}://{own}/"), own, options);
            }
            path if path.starts_with('/') => {
                return Self::parse(&format!("http://{own}{text}"), own, options);
            }
            _ => {}
        }
        if let Some(path) = text.strip_prefix("unix:").or(text.strip_prefix("tcp://unix:")) {
            return socket(path).map(Self::Tcp);
        }
        // As `exec:` and `unix:` are written.
        if let Some(rest) = text.strip_prefix("tcp:") {
            return tcp(text, rest.trim_start_matches('/')).map(Self::Tcp);
        }
        let unknown = || CheckError::Unknown(short(text));
        let (scheme, rest) = text.split_once("://").ok_or_else(unknown)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "tcp" => return tcp(text, rest).map(Self::Tcp),
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "h2c" => Scheme::H2c,
            _ => return Err(unknown()),
        };
        let target =
            if rest.starts_with("unix:") { by_socket(rest) } else { by_url(scheme, rest) }?;
        Ok(Self::Http(Box::new(target.check(scheme, options))))
    }
}

/// A host as URLs have it.
fn bracketed(host: &Host) -> String {
    match host {
        Host::V6(ip) => format!("[{ip}]"),
        other => other.to_string(),
    }
}

fn fill(text: &str, host: String, own: &Endpoint) -> String {
    text.replace("{host}", &host).replace("{port}", &own.port().to_string())
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn address_of(own: &Endpoint) -> ProbeAddress {
    ProbeAddress::Port { host: own.host().to_string(), port: own.port() }
}

fn socket(path: &str) -> Result<ProbeAddress, CheckError> {
    // 108 bytes of `sun_path`, the last one being zero.
    let fits = path.len() <= 107 && !path.contains('\0');
    if fits && Path::new(path).is_absolute() {
        Ok(ProbeAddress::Unix(path.into()))
    } else {
        Err(CheckError::Socket(short(path)))
    }
}

/// An empty host must not be parsed: for `http:///health`, URL parsers take
/// `health` for the host.
fn has_host(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or("");
    let host = authority.rsplit('@').next().unwrap_or("");
    !host.is_empty() && !host.starts_with(':')
}

fn url(rest: &str, scheme: &str) -> Result<Url, CheckError> {
    let text = format!("{scheme}://{rest}");
    if !has_host(rest) {
        return Err(CheckError::NoHost(short(&text)));
    }
    let url = Url::parse(&text).map_err(|why| CheckError::Url { url: short(&text), why })?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CheckError::Secret);
    }
    Ok(url)
}

fn tcp(text: &str, rest: &str) -> Result<ProbeAddress, CheckError> {
    if !has_host(rest) {
        return Err(CheckError::NoHost(short(text)));
    }
    let at: Endpoint = rest.trim_end_matches('/').parse().map_err(|e| match e {
        EndpointError::NoPort => CheckError::NoPort(short(text)),
        why => CheckError::Endpoint { text: short(text), why },
    })?;
    Ok(address_of(&at))
}

fn bare_host(url: &Url) -> String {
    url.host_str().unwrap_or("").trim_matches(['[', ']']).to_owned()
}

/// The URL of an HTTP check, before the options are applied.
struct HttpTarget {
    address: ProbeAddress,
    authority: String,
    name: String,
    path: String,
}

fn by_socket(rest: &str) -> Result<HttpTarget, CheckError> {
    let inner = rest.strip_prefix("unix:").unwrap_or(rest);
    let (path, uri) = inner.split_once(':').unwrap_or((inner, "/"));
    let at = url(&format!("localhost/{}", uri.trim_start_matches('/')), "http")?;
    let local = "localhost".to_owned();
    let address = socket(path)?;
    Ok(HttpTarget { address, authority: local.clone(), name: local, path: path_of(&at) })
}

fn by_url(scheme: Scheme, rest: &str) -> Result<HttpTarget, CheckError> {
    let url = url(rest, if scheme == Scheme::Https { "https" } else { "http" })?;
    let name = bare_host(&url);
    let host = url.host_str().unwrap_or("");
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let port = port.ok_or_else(|| CheckError::NoPort(short(rest)))?;
    let address = ProbeAddress::Port { host: name.clone(), port };
    Ok(HttpTarget { address, authority, name, path: path_of(&url) })
}

fn path_of(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

impl HttpTarget {
    fn check(self, scheme: Scheme, options: &HttpOptions) -> HttpCheck {
        let name = options.host.as_deref().map(|host| match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            _ => host,
        });
        HttpCheck {
            scheme,
            address: self.address,
            server_name: name.map_or(self.name, |n| n.trim_matches(['[', ']']).to_owned()),
            authority: options.host.clone().unwrap_or(self.authority),
            path: self.path,
            expect: options.expect.clone(),
            body: options.body.clone(),
            ca: options.ca.clone(),
            insecure: options.insecure,
        }
    }
}
