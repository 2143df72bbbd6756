//! A page for people: one file without a reference to anything outside itself, under a policy
//! that lets a browser run exactly its own script and style.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::{StatusResponse, plain};

/// What the pages of both daemons share: rules, and functions that make elements.
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A page and its policy.
#[derive(Debug, Clone)]
pub struct HtmlPage {
    text: Bytes,
    policy: HeaderValue,
}

impl HtmlPage {
    /// A page with this title, the content of its body, and rules and a script of its own after
    /// the shared ones.
    pub fn new(title: &str, style: &str, body: &str, script: &str) -> Self {
        let style = format!("\n{STYLE}{style}");
        let script = format!("\n{SCRIPT}{script}");
        let text = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n<style>{style}</style>\n</head>\n<body>\n{body}\
             <script>{script}</script>\n</body>\n</html>\n"
        );
        let (style, script) = (hash(&style), hash(&script));
        let policy = format!(
            "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        // Hashes and fixed text are always valid in a header; if not, nothing may run.
        let policy = HeaderValue::from_str(&policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { text: text.into(), policy }
    }

    /// The answer with the page.
    pub fn answer(&self) -> StatusResponse {
        let mut answer = plain(200, "text/html; charset=utf-8", self.text.clone());
        let headers = answer.headers_mut();
        headers.insert("content-security-policy", self.policy.clone());
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
        answer
    }

    /// What a page must not have: markup made of values, or anything from elsewhere. For tests.
    pub fn problem(&self) -> Option<&'static str> {
        let text = String::from_utf8_lossy(&self.text);
        let script = between(&text, "<script>", "</script>");
        if text.matches("<script").count() != 1 || text.matches("<style").count() != 1 {
            return Some("more than one script or style");
        }
        let markup = [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "setAttribute(\"style\"",
        ];
        // The only address is the name of the SVG namespace, which is never fetched.
        let rest = text.replace("http://www.w3.org/2000/svg", "");
        let outside = ["http:", "https:", "//cdn", "@import", "url(", " style=\"", " onclick"];
        let found = markup.into_iter().find(|bad| script.contains(bad));
        found.or_else(|| outside.into_iter().find(|bad| rest.contains(bad)))
    }
}

fn between<'t>(text: &'t str, open: &str, close: &str) -> &'t str {
    let rest = text.split_once(open).map_or("", |(_, rest)| rest);
    rest.split_once(close).map_or("", |(inner, _)| inner)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
