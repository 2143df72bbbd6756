//! URLs of requests, headers and bounded bodies of answers.

use reqwest::{RequestBuilder, Response};
use url::Url;

use super::wire::HttpReply;
use crate::model::Revision;
use crate::store::StoreError;
use crate::store::reason::with_sources;

/// The largest answer that is accepted: some 500 000 keys.
const MAX_ANSWER: usize = 128 * 1024 * 1024;

/// `/v2/keys` and the path, each segment encoded, so that no character of a key
/// means anything to a URL.
pub(super) fn key_url(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path("");
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.extend(["v2", "keys"]).extend(path.trim_start_matches('/').split('/'));
    }
    url
}

pub(super) async fn receive(request: RequestBuilder) -> Result<HttpReply, StoreError> {
    let mut response = request.send().await.map_err(transport_error)?;
    let mut reply = head(&response);
    while let Some(part) = response.chunk().await.map_err(transport_error)? {
        grow(&mut reply.body, &part)?;
    }
    Ok(reply)
}

pub(super) fn grow(body: &mut Vec<u8>, part: &[u8]) -> Result<(), StoreError> {
    if body.len() + part.len() > MAX_ANSWER {
        return Err(StoreError::Rejected(format!(
            "the answer has more than {MAX_ANSWER} bytes, the most that is accepted"
        )));
    }
    body.extend_from_slice(part);
    Ok(())
}

/// Status and headers; the body is read later.
pub(super) fn head(response: &Response) -> HttpReply {
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    HttpReply {
        status: response.status().as_u16(),
        index: header("x-etcd-index").and_then(|n| n.parse().ok()).map(Revision),
        cluster: header("x-etcd-cluster-id")
            .and_then(|id| u64::from_str_radix(id, 16).ok())
            .unwrap_or_default(),
        json: header("content-type").is_some_and(|kind| kind.contains("json")),
        body: Vec::new(),
    }
}

/// Without the URL: the caller puts the endpoint in front of the message.
pub(super) fn transport_error(error: reqwest::Error) -> StoreError {
    StoreError::Unreachable(with_sources("", Some(&error.without_url())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_encoded_by_segment() {
        let base: Url = "http://127.0.0.1:4001".parse().unwrap();
        for (path, encoded) in [
            ("/services/web", "/v2/keys/services/web"),
            ("/a b/100%/q?x=1#f", "/v2/keys/a%20b/100%25/q%3Fx=1%23f"),
            ("/ü", "/v2/keys/%C3%BC"),
            ("/", "/v2/keys/"),
        ] {
            assert_eq!(key_url(&base, path).path(), encoded);
            assert_eq!(key_url(&base, path).query(), None);
        }
    }
}
