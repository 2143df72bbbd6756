//! A headless Chromium with a new profile, driven over its debugging pipe: one page,
//! scripts, screenshots, and everything the page complained about.

#![expect(clippy::indexing_slicing, reason = "a missing JSON field reads as null")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::bins;
use crate::eventually::{eventually, patience};
use crate::lab::Lab;
use crate::process::{Process, Spec};
use crate::skip::skip;

const ANSWER: Duration = Duration::from_secs(60);

/// Its flags: no sandbox in containers, nothing over the network but the page.
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

/// One browser with one page.
pub struct Browser {
    to: pipe::Sender,
    from: BufReader<pipe::Receiver>,
    session: Option<String>,
    last: u64,
    complaints: Vec<String>,
    process: Process,
}

impl Browser {
    /// Starts it. `None`, with a note that the test is skipped, where there is no Chromium.
    pub async fn start(lab: &Lab) -> Option<Self> {
        if !bins::on_path("chromium") {
            skip("chromium is not installed: nobody looks at the page in a browser");
            return None;
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let home = lab.folder("browser");
        // Only a shell can hand over the descriptors 3 and 4.
        let script = "mkfifo in out && exec chromium \"$@\" 3<in 4>out";
        let profile = format!("--user-data-dir={}", home.join("profile").display());
        let args = ["-c", script, "browser"].into_iter().chain(FLAGS.iter().copied());
        let spec = Spec::new("chromium", "sh", &home)
            .args(args)
            .args([profile.as_str(), "about:blank"])
            .env("HOME", &home)
            .env("PATH", path);
        let process = lab.spawn(spec);
        let (to, from) = eventually("the browser's pipes", || async {
            if let Some(exit) = process.exit() {
                return Err(format!("it ended with {exit}:\n{}", process.log()));
            }
            let open = || {
                let from = pipe::OpenOptions::new().open_receiver(home.join("out"))?;
                let to = pipe::OpenOptions::new().read_write(true).open_sender(home.join("in"))?;
                Ok::<_, std::io::Error>((to, from))
            };
            open().map_err(|e| e.to_string())
        })
        .await;
        let from = BufReader::new(from);
        let mut browser =
            Self { to, from, session: None, last: 0, complaints: Vec::new(), process };
        let made = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let target = made["targetId"].clone();
        let how = json!({ "targetId": target, "flatten": true });
        let attached = browser.call("Target.attachToTarget", how).await;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({})).await;
        }
        Some(browser)
    }

    /// Opens an address.
    pub async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    /// A window of this size; `dark` as the system's preference.
    pub async fn look(&mut self, width: u32, height: u32, dark: bool) {
        let phone = width < 600;
        let metrics = json!({
            "width": width, "height": height, "mobile": phone,
            "deviceScaleFactor": if phone { 2 } else { 1 },
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// What an expression is on the page.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let how = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", how).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true on the page.
    ///
    /// # Panics
    /// When it is not within 30 s (times the patience).
    #[track_caller]
    pub fn shows(&mut self, expression: &str) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let bound = patience(Duration::from_secs(30));
            let found = timeout(bound, async {
                let mut pause = tokio::time::interval(Duration::from_millis(100));
                while self.eval(expression).await != Value::Bool(true) {
                    pause.tick().await;
                }
            });
            if found.await.is_err() {
                let text = self.eval("document.body.innerText").await;
                panic!("{place}: never true: {expression}\n{text}\n{:?}", self.complaints);
            }
        }
    }

    /// The whole page as a PNG.
    pub async fn screenshot(&mut self, file: &Path) {
        let how = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.call("Page.captureScreenshot", how).await;
        let data = answer["data"].as_str().expect("a picture");
        fs::write(file, STANDARD.decode(data).expect("base64")).expect("a file for the picture");
    }

    /// Errors and warnings of the page so far.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let id = self.last;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.clone().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).await.expect("the browser listens");
        loop {
            let mut frame = Vec::new();
            let read = self.from.read_until(0, &mut frame);
            let count = timeout(patience(ANSWER), read).await;
            let there = matches!(count, Ok(Ok(count)) if count > 0);
            assert!(there, "no answer to {method}: {count:?}\n{}", self.process.log());
            frame.pop();
            let answer: Value = serde_json::from_slice(&frame).expect("JSON from the browser");
            self.note(&answer);
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let bad = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(params["type"].as_str(), Some("error" | "warning"))
            }
            Some("Log.entryAdded") => {
                matches!(params["entry"]["level"].as_str(), Some("error" | "warning"))
            }
            _ => false,
        };
        if bad {
            self.complaints.push(params.to_string());
        }
    }
}
