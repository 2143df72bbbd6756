//! The answer of a server at `/version`.

/// The version that a server reports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerVersion {
    pub(super) text: String,
    /// `None` if it cannot be read.
    pub(super) major: Option<u64>,
}

impl ServerVersion {
    /// `{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}`, or `etcd 0.4.6`.
    pub(super) fn read(body: &[u8]) -> Self {
        let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let reported = json.get("etcdserver").or_else(|| json.get("releaseVersion"));
        let text = match reported.and_then(serde_json::Value::as_str) {
            Some(version) => version.to_owned(),
            None => String::from_utf8_lossy(body).trim().trim_start_matches("etcd ").to_owned(),
        };
        let text: String = text.chars().take(40).collect();
        let major = text.split('.').next().and_then(|number| number.parse().ok());
        Self { text, major }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_ages_are_read() {
        for (body, text, major) in [
            (r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#, "3.4.23", Some(3)),
            (r#"{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}"#, "2.3.8", Some(2)),
            (r#"{"releaseVersion":"2.0.0","internalVersion":"2"}"#, "2.0.0", Some(2)),
            ("etcd 0.4.6", "0.4.6", Some(0)),
            ("<html>", "<html>", None),
        ] {
            assert_eq!(
                ServerVersion::read(body.as_bytes()),
                ServerVersion { text: text.into(), major }
            );
        }
    }
}
