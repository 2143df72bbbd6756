//! The readers of what comes from outside, each for any bytes at all: `fuzz/` calls these with
//! what a fuzzer makes up, the property tests below with what chance does.
//!
//! Nothing panics, and what was read says itself again.

use crate::model::{Backend, Endpoint, Key, Prefix, Tree};
use crate::store::v2_answer as read_v2_answer;

/// The value of a backend's key: `host:port` or JSON.
pub fn backend_value(data: &[u8]) {
    let Ok(backend) = Backend::parse(data) else { return };
    assert_eq!(backend.addr.to_string().parse::<Endpoint>().as_ref(), Ok(&backend.addr));
    assert_eq!(Backend::parse(backend.to_json().as_bytes()).as_ref(), Ok(&backend));
}

/// A key, a prefix, a tree; and whether a key that is joined to a folder is below it.
pub fn key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.as_str().parse::<Key>().as_ref(), Ok(&key));
        assert!(Tree::from(&key).covers(key.as_str()), "{key}");
    }
    let Some((folder, id)) = text.split_once('\n') else { return };
    let Ok(folder) = folder.parse::<Prefix>() else { return };
    let Ok(key) = folder.key(id) else { return };
    assert_eq!(folder.strip(key.as_str()), Some(id), "{folder}");
    assert!(Tree::below(folder.clone()).covers(key.as_str()), "{folder} {key}");
}

/// An answer of etcd v2. The first byte chooses its HTTP status, the rest is its body.
pub fn v2_answer(data: &[u8]) {
    const STATUSES: [u16; 9] = [200, 201, 307, 400, 401, 403, 404, 412, 500];
    let Some((first, body)) = data.split_first() else { return };
    let status = STATUSES.get(usize::from(*first) % STATUSES.len()).copied().unwrap_or(200);
    let Ok(services) = "/services".parse::<Tree>() else { return };
    let snapshot = read_v2_answer(status, body, &services);
    for (key, entry) in &snapshot.entries {
        assert_eq!(*key, entry.key);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Words of the formats, and others.
    fn words(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            4 => prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..4),
        ];
        vec(word, 0..14).prop_map(|words| words.concat())
    }

    const VALUE: &[&str] = &[
        "10.0.0.1",
        "[::1]",
        "example.org",
        ":",
        "80",
        "65536",
        "{",
        "}",
        "\"addr\":",
        "\"",
        "\"weight\":",
        "3",
        ",",
        "\"meta\":{",
        "\"zone\":\"a\"",
        "\n",
        "%eth0",
        "0x7f",
        "\\u0000",
    ];
    const KEY: &[&str] =
        &["/", "//", "services", ".", "..", "\n", " ", "a", "10.0.0.1:80", "\u{7f}"];
    const ANSWER: &[&str] = &[
        "\0",
        "{",
        "}",
        "\"action\":\"",
        "set\",",
        "expire\",",
        "\"node\":",
        "\"key\":\"/services",
        "/web\",",
        "\"value\":\"x\",",
        "\"dir\":true,",
        "\"nodes\":[",
        "]",
        "\"modifiedIndex\":",
        "9",
        "18446744073709551616",
        "-27",
        "\"ttl\":",
        ",",
        "\"errorCode\":401",
        "null",
        "<html>",
    ];

    proptest! {
        #[test]
        fn any_value(data in words(VALUE)) {
            backend_value(&data);
        }

        #[test]
        fn any_key(data in words(KEY)) {
            key(&data);
        }

        #[test]
        fn any_answer(data in words(ANSWER)) {
            v2_answer(&data);
        }
    }

    #[test]
    fn an_answer_is_read() {
        let body = br#"{"action":"get","node":{"key":"/services/web","dir":true,"nodes":[
            {"key":"/services/web/1","value":"10.0.0.1:80","modifiedIndex":7}]}}"#;
        let services = "/services".parse().unwrap();
        assert_eq!(read_v2_answer(200, body, &services).entries.len(), 1);
        v2_answer(&[b"\0".as_slice(), body].concat());
    }
}
