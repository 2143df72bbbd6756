//! From the text of an etcd endpoint to its URL.

use url::Url;

use super::Api;

/// etcd's client port since 2.0, and that of its first years.
const PORT: u16 = 2379;
const OLD_PORT: u16 = 4001;

/// Why a text is not an endpoint of etcd. A message never repeats what may be a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AddressError {
    #[error("is empty; is a variable in the unit file unset?")]
    Empty,
    #[error("`{}` has no host; is a variable in the unit file unset?", shown(.0))]
    NoHost(String),
    #[error(
        "`{}` is not `http://host:port`, `https://host:port` or `host:port`: {reason}",
        shown(text)
    )]
    Form { text: String, reason: String },
    #[error("`{}`: only http and https are supported", shown(.0))]
    Scheme(String),
    #[error("the endpoint of host `{}` contains a user: give user and password separately", .0.escape_debug())]
    User(String),
}

/// The text for a message: without what is before an `@` or after a `?` or `#`, which may be
/// a password.
fn shown(text: &str) -> String {
    let (hidden, text) = match text.rsplit_once('@') {
        Some((_, rest)) => ("…@", rest),
        None => ("", text),
    };
    let (text, cut) = match text.split_once(['?', '#']) {
        Some((text, _)) => (text, "?…"),
        None => (text, ""),
    };
    format!("{hidden}{}{cut}", text.escape_debug())
}

/// User, host and port of a URL, as they are written.
fn authority_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// The URL to ask; two when no port is given and v2 may be on either. Without a scheme it is
/// `scheme`.
pub(super) fn parse(text: &str, scheme: &str, api: Api) -> Result<Vec<Url>, AddressError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(AddressError::Empty);
    }
    let full = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    let authority = authority_of(&full);
    if let Some((_, host)) = authority.rsplit_once('@') {
        return Err(AddressError::User(host.to_owned()));
    }
    if authority.is_empty() || authority.starts_with(':') {
        return Err(AddressError::NoHost(text.to_owned()));
    }
    let form =
        |reason: &str| AddressError::Form { text: text.to_owned(), reason: reason.to_owned() };
    let url: Url = full.parse().map_err(|e: url::ParseError| form(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(AddressError::Scheme(text.to_owned()));
    }
    // A URL allows more in a name than DNS does, such as a variable that was not replaced.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if url.domain().is_some_and(|name| !name.chars().all(plain)) {
        return Err(form("that is not a host name; is a variable in the unit file unset?"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(form("there is something after the port"));
    }
    // A URL forgets a port that is its scheme's own, so the text is asked.
    let host_end = authority.rfind(']').unwrap_or(0);
    let named = authority.rsplit_once(':').filter(|(host, _)| host.len() >= host_end);
    match named {
        Some((_, "")) => Err(form("the port is empty; is a variable in the unit file unset?")),
        Some(_) => Ok(vec![url]),
        None => {
            let ports: &[u16] = if api == Api::V3 { &[PORT] } else { &[PORT, OLD_PORT] };
            let urls = ports.iter().map(|port| with_port(&url, *port));
            urls.collect::<Option<_>>().ok_or_else(|| form("a URL of this form cannot have a port"))
        }
    }
}

fn with_port(url: &Url, port: u16) -> Option<Url> {
    let mut url = url.clone();
    url.set_port(Some(port)).ok().map(|()| url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str, api: Api) -> Vec<String> {
        parse(text, "http", api).unwrap().into_iter().map(|url| url.to_string()).collect()
    }

    #[test]
    fn accepted_forms() {
        assert_eq!(texts("10.0.0.1:2379", Api::V3), ["http://10.0.0.1:2379/"]);
        assert_eq!(texts("https://etcd.example", Api::V3), ["https://etcd.example:2379/"]);
        assert_eq!(texts("http://[2001:db8::1]:4001/", Api::V2), ["http://[2001:db8::1]:4001/"]);
        assert_eq!(texts("[2001:db8::1]", Api::V3), ["http://[2001:db8::1]:2379/"]);
        assert_eq!(texts("core1", Api::V2), ["http://core1:2379/", "http://core1:4001/"]);
        assert_eq!(texts("http://proxy:80", Api::V3), ["http://proxy/"]);
        let secure = parse("core1:2379", "https", Api::V3).unwrap();
        assert_eq!(secure[0].as_str(), "https://core1:2379/");
    }

    #[test]
    fn messages_say_what_to_do_and_never_a_password() {
        for (text, part) in [
            ("", "unset"),
            (":2379", "unset"),
            ("http://:2379", "unset"),
            ("host:", "unset"),
            ("${X}", "`${X}` is not"),
            ("http://$ETCD:2379", "unset"),
            ("ftp://a:1", "http and https"),
            ("a:99999", "port"),
            ("a:1/v2/keys", "after the port"),
            ("http://root:s3cret@a:1", "separately"),
            ("http:/root:s3cret@a:1", "…@a:1"),
            ("http://root:s3/cret@a:1", "…@a:1"),
            ("http://a:1/?password=s3cret", "a:1/?…"),
            ("http://a:1#s3cret", "a:1?…"),
            ("ftp://a:1/?password=s3cret", "only http"),
        ] {
            let error = parse(text, "http", Api::Auto).unwrap_err().to_string();
            let secret = error.contains("s3cret") || error.contains("s3/cret");
            assert!(error.contains(part) && !secret, "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_every_url_has_a_host(text in "\\PC{0,40}") {
            for url in parse(&text, "http", Api::Auto).unwrap_or_default() {
                prop_assert!(url.host_str().is_some_and(|host| !host.is_empty()));
            }
        }
    }
}
