//! `host:port`, strictly: the form of an endpoint before nginx, haproxy or a template gets it.
//!
//! Strict because nginx is not: it takes `127.1:80`, `0x7f000001:80` and octal octets, resolves
//! names while it parses (10 s for a silent resolver), and a value with `;` or `{` opens blocks.
//! A wrong value is rejected, never repaired: a guess would route requests to it.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where a backend listens: an address or a name, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    host: Host,
    port: u16,
}

/// The host part of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// IPv4, four decimal octets without leading zeros.
    V4(Ipv4Addr),
    /// IPv6, without a zone (nginx refuses `%`).
    V6(Ipv6Addr),
    /// A DNS name in lower case. Allowed only where the reader asks for names.
    Name(String),
}

/// Why a text is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// An empty text; usually an environment variable that is not set.
    #[error("the host is empty; is a variable in the unit file unset?")]
    Empty,
    /// Neither an address nor a DNS name.
    #[error("`{}` is neither an IP address nor a DNS name{}", .0.escape_debug(), advice(.0))]
    Neither(String),
}

/// Why a text is not an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No `:port` at the end.
    #[error("no port: `host:port` is needed (IPv6 as `[address]:port`)")]
    NoPort,
    /// The port is not 1–65535 in plain decimal.
    #[error("port `{}` is not a number from 1 to 65535{}", .0.escape_debug(), port_advice(.0))]
    Port(String),
    /// The host is not one.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An IPv6 address outside brackets, so where the port begins is a guess.
    #[error("an IPv6 address needs brackets: `[address]:port`")]
    Brackets,
}

/// A port as nginx, a URL and a person mean it: 1–65535, decimal, no sign, no
/// leading zero.
///
/// # Errors
/// Anything else, with the text.
pub fn port(text: &str) -> Result<u16, EndpointError> {
    let refuse = || EndpointError::Port(text.chars().take(40).collect());
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().map_err(|_| refuse()) } else { Err(refuse()) }
}

/// The likely mistake, for the common ones.
fn advice(text: &str) -> &'static str {
    let port = |(_, port): (&str, &str)| port.bytes().all(|b| b.is_ascii_digit());
    match text {
        _ if text.contains("://") => "; leave out the scheme",
        _ if text.contains('$') => "; a variable in it was not replaced",
        _ if text.contains(['\n', '\r']) => "; it contains a line break",
        _ if text.trim() != text => "; it begins or ends with a space",
        _ if text.contains('%') => {
            "; an address with a zone (`%`) means something on one machine only"
        }
        _ if text.rsplit_once(':').is_some_and(port) => "; give the port separately",
        _ if text.contains('_') => "; a DNS name has no `_`",
        _ if text.ends_with('.') => "; leave out the dot at its end",
        _ if text.bytes().any(|b| b.is_ascii_uppercase()) => "; write it in lower case",
        _ => "",
    }
}

/// What follows an address, such as the line break that `echo` writes, shows in the port.
fn port_advice(text: &str) -> &'static str {
    match text {
        _ if text.contains(['\n', '\r']) => "; it contains a line break",
        _ if text.trim() != text => "; it begins or ends with a space",
        _ if text.contains('/') => "; leave out the path",
        _ if text.contains(' ') => "; a weight and other fields need the JSON form",
        _ if text.starts_with('0') && text.len() > 1 => "; leave out the zero before it",
        _ => "",
    }
}

/// RFC 1123 labels; the last must not be all digits, which removes `127.1` and
/// `2130706433`, nor may any look like hexadecimal.
fn is_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && !l.starts_with("0x")
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253
        && text.split('.').all(label)
        && text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|b| b.is_ascii_digit()))
}

impl FromStr for Host {
    type Err = HostError;
    fn from_str(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if let Ok(v4) = text.parse() {
            return Ok(Host::V4(v4));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Ok(v6) = bare.unwrap_or(text).parse() {
            return Ok(Host::V6(v6));
        }
        if is_name(text) {
            return Ok(Host::Name(text.to_owned()));
        }
        Err(HostError::Neither(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Host {
    /// Without brackets; an [`Endpoint`] adds them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::V4(ip) => ip.fmt(f),
            Host::V6(ip) => ip.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

impl Endpoint {
    /// An endpoint of parts that are already valid. Port 0 is not one.
    ///
    /// # Errors
    /// When the port is 0.
    pub fn new(host: Host, port: u16) -> Result<Self, EndpointError> {
        if port == 0 { Err(EndpointError::Port("0".into())) } else { Ok(Self { host, port }) }
    }

    /// The host part.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The IP address, unless the host is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        match &self.host {
            Host::V4(ip) => Some((*ip).into()),
            Host::V6(ip) => Some((*ip).into()),
            Host::Name(_) => None,
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let parts = text.rsplit_once(':');
        // Nearly all of thousands, and nothing else has to be looked for in them.
        if let Some((host, digits)) = parts
            && let Ok(ip) = host.parse()
        {
            return Endpoint::new(Host::V4(ip), port(digits)?);
        }
        if text.contains("://") {
            return Err(HostError::Neither(text.chars().take(80).collect()).into());
        }
        let (host, digits) = parts.ok_or(EndpointError::NoPort)?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(EndpointError::Brackets);
        }
        let bracketed = host.starts_with('[');
        let host: Host = host.parse()?;
        if bracketed != matches!(host, Host::V6(_)) {
            return Err(EndpointError::Brackets);
        }
        Endpoint::new(host, port(digits)?)
    }
}

impl Endpoint {
    /// Appends what `Display` shows, an IPv4 address without the machinery of `format!`: files have
    /// a line for each of thousands of endpoints.
    pub fn push_to(&self, text: &mut String) {
        let Host::V4(ip) = &self.host else {
            // Writing to a string never fails.
            let _ = write!(text, "{self}");
            return;
        };
        let mut digits = itoa::Buffer::new();
        let mut separator = "";
        for octet in ip.octets() {
            text.push_str(separator);
            text.push_str(digits.format(octet));
            separator = ".";
        }
        text.push(':');
        text.push_str(digits.format(self.port));
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::V6(ip) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms_are_kept() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:8080", "web-1.example:65535"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_nginx_would_accept_is_rejected() {
        for text in [
            "127.1:80",
            "2130706433:80",
            "0x7f000001:80",
            "010.0.0.1:80",
            "80",
            "10.0.0.1:080",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "10.0.0.1:",
            ":80",
            "10.0.0.1:80 ",
            "10.0.0.1:80 weight=1000",
            "10.0.0.1:80; } server { listen 81",
            "unix:/run/docker.sock",
            "fe80::1:80",
            "[fe80::1%eth0]:80",
            "[10.0.0.1]:80",
            "10.0.0.1:+80",
            "a..b:80",
            "-a:80",
            "Ä:80",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?} must be rejected");
        }
    }

    #[test]
    fn a_line_break_after_the_port_is_named() {
        let error = "10.0.0.1:80\n".parse::<Endpoint>().unwrap_err().to_string();
        assert!(error.contains("line break"), "{error}");
    }

    #[test]
    fn a_common_mistake_is_named() {
        for (text, part) in [
            ("http://10.0.0.1", "scheme"),
            ("10.0.0.1:80", "port separately"),
            ("10.0.0.1 ", "space"),
            ("10.0.0.1\n", "line break"),
            ("${HOST}", "not replaced"),
            ("fe80::1%eth0", "zone"),
            ("Web1", "lower case"),
            ("my_app", "has no `_`"),
            ("web.example.", "dot at its end"),
        ] {
            let message = text.parse::<Host>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn an_empty_host_names_the_likely_cause() {
        let err = ":7777".parse::<Endpoint>().unwrap_err();
        assert!(err.to_string().contains("unset"), "{err}");
    }

    proptest! {
        #[test]
        fn what_is_appended_is_what_is_shown(ip: [u8; 4], port in 1u16.., v6: u128) {
            for host in [Host::V4(ip.into()), Host::V6(v6.into()), Host::Name("web".to_owned())] {
                let endpoint = Endpoint { host, port };
                let mut text = "at ".to_owned();
                endpoint.push_to(&mut text);
                prop_assert_eq!(text, format!("at {endpoint}"));
            }
        }

        #[test]
        fn nothing_that_parses_can_leave_its_place_in_a_config(text in "\\PC{0,60}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                let printed = endpoint.to_string();
                let special = printed.contains(|c: char| ";{} \n\"'\\$#".contains(c));
                prop_assert!(!special, "{}", printed);
                prop_assert_eq!(printed.parse::<Endpoint>(), Ok(endpoint));
            }
        }

        #[test]
        fn every_address_round_trips(ip: std::net::IpAddr, port in 1u16..) {
            let host: Host = ip.to_string().parse().unwrap();
            let endpoint = Endpoint::new(host, port).unwrap();
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }
}
