//! The page at `/`: one file without a reference to anything outside itself, under
//! a policy that lets a browser run exactly its own script and style.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::runtime::{StatusResponse, plain};
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>\n",
    include_str!("page/page.css"),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>\n",
    include_str!("page/elements.js"),
    include_str!("page/backends.js"),
    include_str!("page/page.js"),
    include_str!("page/connection.js"),
    "</script>\n</body>\n</html>\n"
);

/// The page and its policy.
pub(super) struct Page {
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let (style, script) =
            (hash(between("<style>", "</style>")), hash(between("<script>", "</script>")));
        let policy = format!(
            "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        // Hashes and our own words are always a header's value; without one, nothing runs.
        let policy = HeaderValue::from_str(&policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { policy }
    }

    pub(super) fn answer(&self) -> StatusResponse {
        let mut answer = plain(200, "text/html; charset=utf-8", PAGE);
        let headers = answer.headers_mut();
        headers.insert("content-security-policy", self.policy.clone());
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
        answer
    }
}

fn between(open: &str, close: &str) -> &'static str {
    let rest = PAGE.split_once(open).map_or("", |(_, rest)| rest);
    rest.split_once(close).map_or("", |(inner, _)| inner)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refers_to_nothing_outside_and_makes_no_markup_from_values() {
        assert!(!between("<style>", "</style>").is_empty());
        let script = between("<script>", "</script>");
        assert_eq!(PAGE.matches("<script").count(), 1);
        for bad in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "setAttribute(\"style\"",
        ] {
            assert!(!script.contains(bad), "{bad}");
        }
        // The one address is the name of SVG's vocabulary, which nobody fetches.
        let rest = PAGE.replace("http://www.w3.org/2000/svg", "");
        for bad in ["http:", "https:", "//cdn", "@import", "url(", " style=\"", " onclick"] {
            assert!(!rest.contains(bad), "{bad}");
        }
    }
}
