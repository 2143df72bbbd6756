//! Why a connection failed, for an operator: the layers of gRPC and HTTP each report a part, and
//! the cause is at the bottom.

use std::error::Error;

use super::StoreError;
use crate::tls::{tls_limit, without_numbers};

/// Messages of layers that add nothing.
const NOISE: [&str; 7] = [
    "tcp connect error",
    "transport error",
    "connection error",
    "error sending request",
    "operation was canceled",
    "error trying to connect",
    "h2 protocol error: error reading a body from connection",
];

/// What is found at the bottom, and the likely remedy.
const ADVICE: [(&str, &str); 7] = [
    ("Connection refused", "nothing listens there: does etcd run, and is this its address?"),
    ("UnknownIssuer", "no trusted CA has signed it; give its CA as the CA file"),
    ("CaUsedAsEndEntity", "self-signed CA certificate; give it as the CA file to trust it"),
    ("invalid peer certificate", "is it signed by the given CA, and made for this name?"),
    ("fatal alert", "the server requires a client certificate, or rejects this one"),
    (
        "tls handshake eof",
        "the server closed the connection during the TLS handshake; is it plain http?",
    ),
    ("failed to lookup address", "is the name right, and does DNS answer?"),
];

/// How HTTP/2 words the end of a connection, and how people do.
const ENDED: (&str, &str) =
    ("stream closed because of a broken pipe", "the connection ended (broken pipe)");

/// What a server that wants something else does.
const HUNG_UP: [&str; 2] = ["connection closed", "broken pipe"];

/// The error of a first request, with the likely remedy where the server has hung up. A server
/// that answered before has other reasons for that: no leader, or its end.
pub(super) fn at_first(error: StoreError) -> StoreError {
    match error {
        StoreError::Unreachable(text) if HUNG_UP.iter().any(|sign| text.contains(sign)) => {
            StoreError::Unreachable(format!(
                "{text} (the server closed the connection; if this persists, does it require \
                 https:// or a client certificate?)"
            ))
        }
        other => other,
    }
}

/// The message and its causes, each once, and the likely remedy.
pub(super) fn with_sources(message: &str, mut source: Option<&(dyn Error + 'static)>) -> String {
    let mut parts = Vec::new();
    let mut add = |text: &str| {
        let noise = NOISE.contains(&text) || text.starts_with("client error (");
        if !text.is_empty() && !noise && !parts.iter().any(|part: &String| part.contains(text)) {
            parts.push(text.to_owned());
        }
    };
    add(message);
    while let Some(error) = source {
        add(&error.to_string());
        source = error.source();
    }
    let text = if parts.is_empty() { message.to_owned() } else { parts.join(": ") };
    let text = text.replace(ENDED.0, ENDED.1);
    let advice = ADVICE.iter().find(|(sign, _)| text.contains(sign)).map(|(_, advice)| *advice);
    match tls_limit(&text).or(advice) {
        Some(advice) => format!("{} ({advice})", without_numbers(&text)),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Nested(&'static str, #[source] Option<Box<Nested>>);

    fn layers(texts: &[&'static str]) -> Option<Box<Nested>> {
        let (first, rest) = texts.split_first()?;
        Some(Box::new(Nested(first, layers(rest))))
    }

    #[test]
    fn the_cause_is_reported_and_the_noise_is_not() {
        for (message, below, text) in [
            (
                "tcp connect error",
                &["transport error", "tcp connect error", "Connection refused"][..],
                "Connection refused (nothing listens there: does etcd run, and is this its address?)",
            ),
            (
                "",
                &["error sending request", "client error (Connect)", "tls handshake eof"][..],
                "tls handshake eof (the server closed the connection during the TLS handshake; is it plain http?)",
            ),
            (
                "h2 protocol error: error reading a body from connection",
                &["stream closed because of a broken pipe"][..],
                "the connection ended (broken pipe)",
            ),
            ("transport error", &[][..], "transport error"),
            ("etcdserver: no leader", &[][..], "etcdserver: no leader"),
        ] {
            let source = layers(below);
            let source = source.as_deref().map(|layer| layer as &(dyn Error + 'static));
            assert_eq!(with_sources(message, source), text);
        }
    }
}
