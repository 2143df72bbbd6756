//! The answer of a server at `/version`.

use std::time::Duration;

use reqwest::Client;
use url::Url;

use super::StoreError;
use super::reason::with_sources;

/// The version that a server reports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerVersion {
    pub(super) text: String,
    /// `None` if it cannot be read.
    pub(super) major: Option<u64>,
    /// Major and minor version that all members have; `None` before 2.1, and while they do not
    /// know each other yet.
    pub(super) cluster: Option<(u64, u64)>,
}

impl ServerVersion {
    /// Asks the server at `url`.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when it does not answer within `limit`.
    pub(super) async fn ask(
        client: &Client,
        url: &Url,
        limit: Duration,
    ) -> Result<Self, StoreError> {
        let mut url = url.clone();
        url.set_path("/version");
        let cut =
            |e: reqwest::Error| StoreError::Unreachable(with_sources("", Some(&e.without_url())));
        let mut response = client.get(url).timeout(limit).send().await.map_err(cut)?;
        // etcd's answer is one short piece.
        let body = response.chunk().await.map_err(cut)?.unwrap_or_default();
        Ok(Self::read(&body))
    }

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
        let cluster = json.get("etcdcluster").and_then(serde_json::Value::as_str);
        Self { text, major, cluster: cluster.and_then(two_numbers) }
    }
}

/// `2.3` of `2.3.0`.
fn two_numbers(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_ages_are_read() {
        for (body, text, major, cluster) in [
            (r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#, "3.4.23", Some(3), Some((3, 4))),
            (r#"{"etcdserver":"2.3.8","etcdcluster":"2.2.0"}"#, "2.3.8", Some(2), Some((2, 2))),
            (r#"{"etcdserver":"2.3.8","etcdcluster":"not_decided"}"#, "2.3.8", Some(2), None),
            (r#"{"releaseVersion":"2.0.0","internalVersion":"2"}"#, "2.0.0", Some(2), None),
            ("etcd 0.4.6", "0.4.6", Some(0), None),
            ("<html>", "<html>", None, None),
        ] {
            assert_eq!(
                ServerVersion::read(body.as_bytes()),
                ServerVersion { text: text.into(), major, cluster }
            );
        }
    }
}
