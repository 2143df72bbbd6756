//! What the scenarios of `register` have in common: etcd, one backend, its sidekick.

use std::time::{Duration, Instant};

use tests::daemon::{Ended, Running};
use tests::etcd::Watcher;
use tests::eventually::check;
use tests::{Api, Backend, Daemon, Etcd, Lab, bins, eventually, http, within};

/// The TTL of [`Setup::sidekick`].
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// One backend beside one etcd.
pub(crate) struct Setup {
    pub(crate) api: Api,
    pub(crate) backend: Backend,
    pub(crate) etcd: Etcd,
    pub(crate) lab: Lab,
}

impl Setup {
    pub(crate) async fn new(api: Api) -> Self {
        let lab = Lab::new();
        let etcd = Etcd::start(&lab).await;
        let backend = Backend::start(&lab, "one").await;
        Self { api, backend, etcd, lab }
    }

    pub(crate) fn key(&self) -> String {
        format!("/services/apache/{}", self.backend.ip())
    }

    pub(crate) fn value(&self) -> String {
        self.backend.address().to_string()
    }

    /// The one of the tutorial, in a hurry but not nervous; with a TTL of its own.
    pub(crate) fn with_ttl(&self, ttl: &str) -> Daemon {
        Daemon::register(&self.lab)
            .backend("apache", self.backend.address())
            .etcd(&self.etcd, self.api)
            .flag("--ttl", ttl)
            .flag("--interval", "500ms")
            .flag("--fast-interval", "100ms")
            .flag("--timeout", "450ms")
            .flag("--rise", "1")
            .flag("--fall", "2")
    }

    /// The same with [`TTL`].
    pub(crate) fn sidekick(&self) -> Daemon {
        self.with_ttl("2s")
    }

    /// Starts it and waits until it says that it is registered.
    pub(crate) async fn started(&self, sidekick: Daemon) -> Running {
        let running = sidekick.start();
        running.ready().await;
        assert_eq!(self.now().await, Some(self.value()));
        running
    }

    /// `register` with another subcommand.
    pub(crate) fn command(&self, subcommand: &str) -> Daemon {
        Daemon::new(&self.lab, subcommand, bins::register())
            .arg(subcommand)
            .etcd(&self.etcd, self.api)
    }

    /// What is at the key now.
    pub(crate) async fn now(&self) -> Option<String> {
        self.etcd.ctl(self.api).get(&self.key()).await
    }

    pub(crate) async fn registered(&self) {
        let value = self.value();
        eventually("the key is there", || async {
            let now = self.now().await;
            check(now.as_ref() == Some(&value), || format!("it is {now:?}"))
        })
        .await;
    }

    pub(crate) async fn gone(&self) {
        eventually("the key is gone", || async {
            let now = self.now().await;
            check(now.is_none(), || format!("it is {now:?}"))
        })
        .await;
    }

    /// The revision that made the key. While it stays the same, the key was never away.
    pub(crate) async fn created(&self) -> u64 {
        let (text, pointer) = match self.api {
            Api::V2 => {
                let path = format!("/v2/keys{}", self.key());
                let answer = http::get(self.etcd.address(), &path).await.unwrap();
                (answer.body, "/node/createdIndex")
            }
            Api::V3 => {
                let output = self.etcd.ctl(self.api).run(&["get", &self.key(), "-w=json"]).await;
                (output.ok(), "/kvs/0/create_revision")
            }
        };
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap()
    }

    pub(crate) async fn watch(&self) -> Watcher {
        self.etcd.watch(self.api, "/services").await
    }
}

/// Lets this much time pass, where the passing of time is what happens: a lifetime that
/// runs out, an outage of a length.
pub(crate) async fn outlast(span: Duration) {
    let start = Instant::now();
    within(span * 3, "time to pass", || async {
        check(start.elapsed() > span, || format!("{:?} so far", start.elapsed()))
    })
    .await;
}

/// Waits for exactly these events, and shows that there were no others before the last.
pub(crate) async fn saw(watcher: &Watcher, wanted: &[String]) {
    eventually("these events and no others", || async {
        let events = watcher.events();
        check(events == wanted, || format!("{events:?}"))
    })
    .await;
}

/// Waits until the service manager last received a status with this in it.
pub(crate) async fn says(sidekick: &Running, text: &str) {
    eventually(format!("STATUS= with `{text}`"), || async {
        let status = sidekick.status().unwrap_or_default();
        check(status.contains(text), || format!("{status}\n{}", sidekick.log()))
    })
    .await;
}

#[track_caller]
pub(crate) fn assert_ended(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.exit, tests::Exit::Code(code), "{}", ended.log);
    for part in parts {
        assert!(ended.log.contains(part), "no `{part}` in:\n{}", ended.log);
    }
}
