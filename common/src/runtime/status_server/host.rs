//! Which host names a request may use for this process. A page from elsewhere can make a browser
//! ask this process by a name of its own (DNS rebinding), and would read the answer. So a name
//! counts only if nobody outside can own it. Pure.

use std::net::IpAddr;

use crate::runtime::hostname;

/// Domains that nobody can register.
const PRIVATE: [&str; 4] = ["localhost", "local", "internal", "home.arpa"];

/// The names under which this process may be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// The name of this machine, and those that the operator gives.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().chain([hostname()]).map(|name| plain(&name)).collect())
    }

    /// Whether a `Host` header calls us by an address or by a name that is ours. A name
    /// without a dot is never one of the Internet's.
    #[must_use]
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
