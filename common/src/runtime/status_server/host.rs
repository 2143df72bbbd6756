//! Which host names a request may use for this process. A page from elsewhere can make a browser
//! ask this process by a name of its own (DNS rebinding), and would read the answer. So a name
//! counts only if no outsider can own it. Pure.

use std::net::IpAddr;

use hyper::Request;
use hyper::header::HOST;

use crate::runtime::hostname;

/// Domains that cannot be registered.
const PRIVATE: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// The names under which this process may be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// The name of this machine, and those that the operator gives.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().chain([hostname()]).map(|name| plain(&name)).collect())
    }

    /// Whether a request calls us by names that are ours alone: in each `Host` header, and in a target
    /// that is a whole URI, which counts instead of the header (RFC 9112, 3.2.2).
    pub fn allow_request<B>(&self, request: &Request<B>) -> bool {
        let headers = request.headers().get_all(HOST).iter().map(|host| host.to_str().ok());
        let target = request.uri().authority().map(|authority| Some(authority.as_str()));
        headers.chain(target).all(|name| name.is_some_and(|name| self.allow(name)))
    }

    /// Whether a `Host` header calls us by an address or by a name that is ours. A name
    /// without a dot is never one of the Internet's.
    pub fn allow(&self, header: &str) -> bool {
        let host = without_port(header);
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = plain(host);
        let private = |domain: &str| {
            host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        !host.contains('.') || PRIVATE.iter().any(|p| private(p)) || self.0.contains(&host)
    }
}

fn without_port(header: &str) -> &str {
    match header.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => header,
    }
}

fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_a_request_must_be_ours() {
        let hosts = AllowedHosts::new([]);
        let allows = |target: &str, names: &[&str]| {
            let mut request = Request::builder().uri(target);
            for name in names {
                request = request.header(HOST, *name);
            }
            hosts.allow_request(&request.body(()).unwrap())
        };
        assert!(allows("/", &[]));
        assert!(allows("/", &["localhost:9180"]));
        assert!(allows("http://127.0.0.1:9180/", &["localhost"]));
        assert!(!allows("/", &["attacker.example"]));
        assert!(!allows("/", &["localhost", "attacker.example"]));
        assert!(!allows("http://attacker.example/", &["localhost"]));
        assert!(!allows("http://localhost@attacker.example/", &["localhost"]));
    }

    #[test]
    fn a_name_that_somebody_outside_can_own_is_not_ours() {
        let hosts = AllowedHosts::new(["Lb1.example.com".to_owned()]);
        for ours in [
            "127.0.0.1:9180",
            "10.0.0.1",
            "[::1]:9180",
            "[::1]",
            "localhost:9180",
            "confsync:1",
            "lb1.example.com",
            "LB1.EXAMPLE.COM.:9180",
            "x.svc.cluster.local:80",
            "a.internal",
            "",
        ] {
            assert!(hosts.allow(ours), "{ours}");
        }
        for strange in [
            "attacker.example",
            "attacker.example:9180",
            "localhost.attacker.example",
            "notlocal.com",
            "10.0.0.1.attacker.example",
            "xlocal.host",
            "evil-internal.com:80",
            "a.b:x",
        ] {
            assert!(!hosts.allow(strange), "{strange}");
        }
    }
}
