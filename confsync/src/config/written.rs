//! Which of a resource's backends its file names. A template may leave some out, by zone or by
//! name, and a backend that is not in the file gets no request. Pure.
//!
//! What must hold: a backend counts as left out only where that is certain. It is not where none of
//! them is named: the template may make other texts of the addresses, by a map of networks or a
//! hash, and which of them are in the file is then unknown. A backend is written if a
//! word of the template names its service, or if its address occurs in the text; for a
//! host that is a name, the text may have what it resolves to.

use std::collections::{BTreeSet, HashSet, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use common::model::{Host, Prefix, changed_keys};

use crate::backends::{Backends, RegisteredBackend};
use crate::config::last_render::key_in_templates;
use crate::template::{Piece, RenderedText, is_named_by};

/// The backends of a resource that its file does not name, kept up to date by what changes.
#[derive(Debug, Clone, Default)]
pub struct UnwrittenBackends {
    keys: BTreeSet<Arc<str>>,
    /// What they were found in; `None` before the first render.
    text: Option<u64>,
    addresses: Addresses,
    /// What they were found among.
    backends: Backends,
}

impl UnwrittenBackends {
    /// The keys of those of `backends` that `text` does not name; `None` if it names none of them,
    /// so that it is unknown.
    pub fn update(
        &mut self,
        text: &RenderedText,
        backends: &Backends,
        prefix: &Prefix,
    ) -> Option<&BTreeSet<Arc<str>>> {
        let digest = Some(digest(text));
        if self.text != digest {
            self.text = digest;
            self.addresses = Addresses::of(text);
            self.keys.clear();
            self.backends = Backends::new();
        }
        let paths: Vec<&str> = text.services().map(|service| service.path.as_str()).collect();
        for key in changed_keys(&self.backends, backends) {
            let is_left_out = backends.get(key).is_some_and(|registered| {
                !is_named(&paths, key, registered, prefix) && !self.addresses.have(registered)
            });
            match is_left_out {
                true => self.keys.insert(Arc::clone(key)),
                false => self.keys.remove(key),
            };
        }
        self.backends = backends.clone();
        let is_any_named = backends.is_empty() || self.keys.len() < backends.len();
        is_any_named.then_some(&self.keys)
    }
}

fn is_named(
    paths: &[&str],
    key: &Arc<str>,
    registered: &RegisteredBackend,
    prefix: &Prefix,
) -> bool {
    if paths.is_empty() {
        return false;
    }
    let name = key_in_templates(key, prefix);
    paths.iter().any(|path| is_named_by(path, &name, &registered.service))
}

/// Distinguishes what a template has written besides members.
fn digest(text: &RenderedText) -> u64 {
    let mut hasher = DefaultHasher::new();
    for piece in &text.pieces {
        match piece {
            Piece::Text(text) => text.hash(&mut hasher),
            Piece::Servers(service) => service.path.hash(&mut hasher),
            Piece::Upstream { service, more } => (&service.path, more).hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// The addresses that a text has.
#[derive(Debug, Clone, Default)]
struct Addresses {
    /// Without a port behind them: the port may be anywhere.
    alone: HashSet<IpAddr>,
    with_port: HashSet<(IpAddr, u16)>,
}

impl Addresses {
    fn of(text: &RenderedText) -> Self {
        let mut found = Self::default();
        for piece in &text.pieces {
            let text = match piece {
                Piece::Text(text) => text.as_slice(),
                Piece::Upstream { more, .. } => more.as_bytes(),
                Piece::Servers(_) => continue,
            };
            found.read(text);
            // `10\.0\.0\.1` in a regular expression.
            if text.contains(&b'\\') {
                let plain: Vec<u8> = text.iter().copied().filter(|byte| *byte != b'\\').collect();
                found.read(&plain);
            }
        }
        found
    }

    fn have(&self, registered: &RegisteredBackend) -> bool {
        let addr = &registered.backend.addr;
        let ip = match addr.host() {
            Host::V4(ip) => IpAddr::V4(*ip),
            Host::V6(ip) => IpAddr::V6(*ip),
            Host::Name(_) => return true,
        };
        self.alone.contains(&ip) || self.with_port.contains(&(ip, addr.port()))
    }

    fn read(&mut self, text: &[u8]) {
        let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
        let mut rest = text;
        while let Some(begin) = rest.iter().position(is_part) {
            let word = rest.get(begin..).unwrap_or_default();
            let end = word.iter().position(|byte| !is_part(byte)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            // It is ASCII.
            if let Ok(word) = std::str::from_utf8(word) {
                self.take(word, after);
            }
            rest = after;
        }
    }

    /// Takes a run of the characters that addresses and ports are made of.
    fn take(&mut self, word: &str, after: &[u8]) {
        let word = word.trim_end_matches('.');
        if !word.contains(['.', ':']) {
            return;
        }
        if let Ok(ip) = word.trim_end_matches(':').parse::<IpAddr>() {
            match after.strip_prefix(b"]:").and_then(port) {
                Some(port) => drop(self.with_port.insert((ip, port))),
                None => drop(self.alone.insert(ip)),
            }
        }
        // An address of v6 without brackets, as names in HAProxy have it.
        if let Some((ip, number)) = word.rsplit_once(':')
            && let (Ok(ip), Some(port)) = (ip.parse::<IpAddr>(), port(number.as_bytes()))
        {
            self.with_port.insert((ip, port));
        }
        let mut parts = word.split(':').peekable();
        while let Some(part) = parts.next() {
            let Ok(ip) = part.trim_end_matches('.').parse::<Ipv4Addr>() else { continue };
            match parts.peek().and_then(|next| port(next.as_bytes())) {
                Some(port) => drop(self.with_port.insert((ip.into(), port))),
                None => drop(self.alone.insert(ip.into())),
            }
        }
    }
}

/// The number at the beginning.
fn port(text: &[u8]) -> Option<u16> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(text.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use common::model::{Backend, Endpoint};
    use proptest::prelude::*;

    use super::*;
    use crate::template::NamedService;

    fn backends(all: &[(&str, &str)]) -> Backends {
        let registered = |(key, addr): &(&str, &str)| {
            let addr: Endpoint = addr.parse().unwrap();
            let value = format!(r#"{{"addr":"{addr}"}}"#);
            let backend = Backend::parse(value.as_bytes()).unwrap_or_else(|_| {
                Backend::parse(b"10.9.9.9:9").map(|b| Backend { addr, ..b }).unwrap()
            });
            let service = key.split('/').nth(2).unwrap_or_default().into();
            let registered = RegisteredBackend { service, backend, raw: None, is_setting: false };
            (Arc::from(*key), Arc::new(registered))
        };
        all.iter().map(registered).collect()
    }

    fn text(text: &str) -> RenderedText {
        RenderedText { pieces: vec![Piece::Text(text.as_bytes().to_vec())] }
    }

    fn root() -> Prefix {
        "/".parse().unwrap()
    }

    fn is_written(addr: &str, written: &str) -> bool {
        // Another, so that the text is known to have addresses.
        let backends = backends(&[("/services/web/1", addr), ("/services/web/2", "10.8.8.8:8")]);
        let text = text(&format!("{written}\n10.8.8.8:8"));
        UnwrittenBackends::default().update(&text, &backends, &root()).unwrap().is_empty()
    }

    #[test]
    fn an_address_is_found_in_whatever_form_it_is_written() {
        for (addr, written) in [
            ("10.0.0.1:80", "server 10.0.0.1:80 weight=2;"),
            ("10.0.0.1:80", "BalancerMember http://10.0.0.1:80"),
            ("10.0.0.1:80", "{\"host\":\"10.0.0.1\",\"port\":80}"),
            ("10.0.0.1:80", "at 10.0.0.1."),
            ("10.0.0.1:80", "~^10\\.0\\.0\\.1:80$ a;"),
            ("10.0.0.1:80", "a:10.0.0.1:80:b"),
            ("[2001:db8::1]:80", "server [2001:db8::1]:80;"),
            ("[2001:db8::1]:80", "host 2001:DB8:0::1 port 80"),
            ("[::2]:80", "server ::2:80 x"),
            ("app.internal:80", "server 10.7.7.7:80;"),
        ] {
            assert!(is_written(addr, written), "{addr} in {written}");
        }
        for (addr, written) in [
            ("10.0.0.1:80", ""),
            ("10.0.0.1:80", "server 10.0.0.1:8080;"),
            ("10.0.0.1:80", "server 10.0.0.11:80;"),
            ("10.0.0.1:80", "server 110.0.0.1:80;"),
            ("[2001:db8::1]:80", "server [2001:db8::1]:81;"),
            ("[2001:db8::1]:80", "server [2001:db8::10]:80;"),
        ] {
            assert!(!is_written(addr, written), "{addr} in {written}");
        }
    }

    #[test]
    fn backends_of_a_named_service_are_written() {
        let service = |path: &str| NamedService {
            path: path.to_owned(),
            members: crate::template::UpstreamMembers::default(),
            server_options: String::new(),
        };
        let rendered = RenderedText { pieces: vec![Piece::Servers(service("web"))] };
        let all =
            backends(&[("/services/web/1", "10.0.0.1:80"), ("/services/api/1", "10.0.0.2:80")]);
        let mut unwritten = UnwrittenBackends::default();
        let keys: Vec<_> =
            unwritten.update(&rendered, &all, &root()).unwrap().iter().cloned().collect();
        assert_eq!(keys, ["/services/api/1".into()]);
    }

    /// A map of networks, or a hash: the file has other texts.
    #[test]
    fn without_any_address_in_the_file_it_is_unknown_which_backends_are_written() {
        let all =
            backends(&[("/services/web/1", "10.0.0.1:80"), ("/services/web/2", "10.0.0.2:80")]);
        let mut unwritten = UnwrittenBackends::default();
        let mapped = text("server 192.168.0.1:80; server 192.168.0.2:80;");
        assert_eq!(unwritten.update(&mapped, &all, &root()), None);
        let one = text("server 192.168.0.1:80; server 10.0.0.2:80;");
        assert_eq!(unwritten.update(&one, &all, &root()).unwrap().len(), 1);
        assert!(unwritten.update(&mapped, &Backends::new(), &root()).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn what_follows_changes_is_what_would_be_found_anew(
            steps in proptest::collection::vec(
                (proptest::collection::vec(0usize..4, 3), 0usize..3), 1..12,
            ),
        ) {
            const KEYS: [&str; 3] = ["/services/a/1", "/services/a/2", "/services/b/1"];
            const ADDRS: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80"];
            const TEXTS: [&str; 3] = ["10.0.0.1:80", "10.0.0.2 [::1]:80", ""];
            let mut following = UnwrittenBackends::default();
            for (addrs, nth) in steps {
                let all: Vec<(&str, &str)> = KEYS
                    .iter()
                    .zip(addrs)
                    .filter_map(|(key, addr)| Some((*key, *ADDRS.get(addr)?)))
                    .collect();
                let (all, text) = (backends(&all), text(TEXTS[nth]));
                let mut anew = UnwrittenBackends::default();
                let expected = anew.update(&text, &all, &root()).cloned();
                prop_assert_eq!(following.update(&text, &all, &root()), expected.as_ref());
            }
        }
    }
}
