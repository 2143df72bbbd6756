//! What the TLS library cannot do, in words: it reports an alert, or its own numbers for an
//! algorithm. Pure.

/// Keys and signatures that it can use.
macro_rules! supported {
    () => {
        "use P-256, P-384, Ed25519 or RSA of at least 2048 bits, signed with SHA-256 or better"
    };
}

/// Signs in its message, and what they mean.
const LIMITS: [(&str, &str); 6] = [
    (
        "HandshakeFailure",
        concat!(
            "no key type or algorithm in common: certificates on the curve P-521 are not \
             supported; ",
            supported!(),
            ". Or the server requires a client certificate"
        ),
    ),
    (
        "UnsupportedSignatureAlgorithmForPublicKey",
        concat!("a CA's key of this kind, such as P-521, is not supported; ", supported!()),
    ),
    (
        "UnsupportedSignatureAlgorithm",
        concat!("a signature of this kind, such as SHA-1, is not accepted; ", supported!()),
    ),
    ("ProtocolVersion", "the server has neither TLS 1.2 nor TLS 1.3"),
    (
        "UnsupportedCertVersion",
        "X.509 version 1 certificates are not accepted; issue one of version 3, with a \
         subjectAltName",
    ),
    ("BadSignature", "is it signed by the given CA? an RSA key needs at least 2048 bits"),
];

/// What a failed handshake says of such a limit; `None` if it is not about one.
pub fn tls_limit(message: &str) -> Option<&'static str> {
    LIMITS.iter().find(|(sign, _)| message.contains(sign)).map(|(_, words)| *words)
}

/// The message without the numbers of algorithms, which fill a screen.
pub fn without_numbers(message: &str) -> String {
    match message.split_once("Context {") {
        Some((before, after)) => {
            let rest = after.rsplit_once('}').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => message.to_owned(),
    }
}

/// Why a private key cannot be used, from the library's error.
pub(super) fn key_limit(error: &str) -> &'static str {
    match error.contains("parse private key") {
        true => concat!("; a key of this kind is not supported: ", supported!()),
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_cannot_do_is_named() {
        let sha1 = "invalid peer certificate: UnsupportedSignatureAlgorithmContext { \
                    signature_algorithm_id: [6, 9], supported_algorithms: [0x06, 0x08] }";
        assert_eq!(
            without_numbers(sha1),
            "invalid peer certificate: UnsupportedSignatureAlgorithm"
        );
        let p521 = "UnsupportedSignatureAlgorithmForPublicKeyContext { id: [6], key: [6] }";
        for (message, words) in [
            (sha1, "SHA-1"),
            (p521, "P-521"),
            ("received fatal alert: HandshakeFailure", "P-521"),
            ("received fatal alert: ProtocolVersion", "TLS 1.2"),
            ("invalid peer certificate: BadSignature", "2048 bits"),
        ] {
            let limit = tls_limit(message).unwrap_or_else(|| panic!("nothing about {message}"));
            assert!(limit.contains(words), "{message}: {limit}");
        }
        assert_eq!(tls_limit("invalid peer certificate: Expired"), None);
    }
}
