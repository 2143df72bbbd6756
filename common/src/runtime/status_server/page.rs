//! A page for people: one file without a reference to anything outside itself, under a policy
//! that lets a browser run exactly its own script and style.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::{StatusResponse, plain};

/// A page and its policy.
#[derive(Debug, Clone)]
pub struct HtmlPage {
    text: &'static str,
    policy: HeaderValue,
}

impl HtmlPage {
    /// The page of this text, with one `<style>` and one `<script>`.
    #[must_use]
    pub fn new(text: &'static str) -> Self {
        let (style, script) = (
            hash(between(text, "<style>", "</style>")),
            hash(between(text, "<script>", "</script>")),
        );
        let policy = format!(
            "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        // Hashes and our own words are always a header's value; without one, nothing runs.
        let policy = HeaderValue::from_str(&policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { text, policy }
    }

    /// The answer with the page.
    #[must_use]
    pub fn answer(&self) -> StatusResponse {
        let mut answer = plain(200, "text/html; charset=utf-8", self.text);
        let headers = answer.headers_mut();
        headers.insert("content-security-policy", self.policy.clone());
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
        answer
    }

    /// What a page must not have: markup made of values, or anything from elsewhere. For tests.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        let script = between(self.text, "<script>", "</script>");
        if script.is_empty() || between(self.text, "<style>", "</style>").is_empty() {
            return Some("no script or no style");
        }
        if self.text.matches("<script").count() != 1 {
            return Some("more than one script");
        }
        let markup = [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "setAttribute(\"style\"",
        ];
        // The one address is the name of SVG's vocabulary, which nobody fetches.
        let rest = self.text.replace("http://www.w3.org/2000/svg", "");
        let outside = ["http:", "https:", "//cdn", "@import", "url(", " style=\"", " onclick"];
        let found = markup.into_iter().find(|bad| script.contains(bad));
        found.or_else(|| outside.into_iter().find(|bad| rest.contains(bad)))
    }
}

fn between(text: &'static str, open: &str, close: &str) -> &'static str {
    let rest = text.split_once(open).map_or("", |(_, rest)| rest);
    rest.split_once(close).map_or("", |(inner, _)| inner)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
