//! What the chaos has in common: backends that are all up all the time, a stream of
//! changes of which of them are registered, a file that is looked at without pause, and
//! the question whether nginx runs what etcd says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::Client;
use tests::eventually::check;
use tests::{Backend, Etcd, Lab, Load, Nginx, within};
use tokio::task::JoinHandle;

/// Backends there are; never fewer registered than the guard accepts at once.
const BACKENDS: usize = 8;
const FEWEST: usize = 5;
const SETTLE: Duration = Duration::from_secs(60);

/// Names of backends.
pub(crate) type Names = BTreeSet<String>;

/// How often something is done: `variable` if it is set, else `default`.
pub(crate) fn times(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Backends, and which of them are registered.
pub(crate) struct Backends {
    backends: Vec<Backend>,
    client: tokio::sync::Mutex<Client>,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    now: Names,
    ever: BTreeSet<Names>,
}

impl Backends {
    /// All are up and registered.
    pub(crate) async fn start(lab: &Lab, etcd: &Etcd) -> Arc<Self> {
        let client = Client::connect([etcd.url()], None).await.unwrap();
        let mut backends = Vec::new();
        for nth in 0..BACKENDS {
            backends.push(Backend::start(lab, &format!("b{nth}")).await);
        }
        let backends = Self { backends, client: client.into(), past: Mutex::default() };
        for backend in &backends.backends {
            backends.toggle(backend.name(), "").await;
        }
        Arc::new(backends)
    }

    pub(crate) fn registered(&self) -> Names {
        self.past.lock().unwrap().now.clone()
    }

    /// The address of the backend with this name.
    pub(crate) fn address(&self, name: &str) -> String {
        self.backends.iter().find(|b| b.name() == name).unwrap().address().to_string()
    }

    /// The addresses of the registered.
    pub(crate) fn addresses(&self) -> BTreeSet<String> {
        self.registered().iter().map(|name| self.address(name)).collect()
    }

    fn was_ever(&self, names: &Names) -> bool {
        self.past.lock().unwrap().ever.contains(names)
    }

    /// The backend with this address.
    fn name_of(&self, address: &str) -> Result<String, String> {
        let found = self.backends.iter().find(|b| b.address().to_string() == address);
        found.map(|b| b.name().to_owned()).ok_or_else(|| format!("nobody listens on {address}"))
    }

    /// Registers a backend that is not, and the other way round; `setting` is written to
    /// `/settings/extra` in the same transaction, unless it is empty.
    pub(crate) async fn toggle(&self, name: &str, setting: &str) {
        use etcd_client::{Txn, TxnOp};
        let mut client = self.client.lock().await;
        let key = format!("/services/apache/{name}");
        let backend = self.backends.iter().find(|b| b.name() == name).unwrap();
        let mut ops = Vec::new();
        {
            // The new set is recorded before etcd can send it to a watcher.
            let mut past = self.past.lock().unwrap();
            if past.now.remove(name) {
                ops.push(TxnOp::delete(key, None));
            } else {
                past.now.insert(name.to_owned());
                ops.push(TxnOp::put(key, backend.address().to_string(), None));
            }
            let now = past.now.clone();
            past.ever.insert(now);
        }
        if !setting.is_empty() {
            ops.push(TxnOp::put("/settings/extra", setting, None));
        }
        client.txn(Txn::new().and_then(ops)).await.unwrap();
    }

    /// Toggles one of them, keeping enough registered.
    pub(crate) async fn change(&self) {
        let now = self.registered();
        let all = self.backends.iter().map(|b| b.name().to_owned());
        let may: Vec<_> = all.filter(|name| now.len() > FEWEST || !now.contains(name)).collect();
        self.toggle(fastrand::choice(&may).unwrap(), "").await;
    }
}

/// A stream of changes, some 20 a second. Dropping it ends it.
pub(crate) struct Churn(JoinHandle<()>);

impl Churn {
    pub(crate) fn start(backends: &Arc<Backends>) -> Self {
        let backends = Arc::clone(backends);
        Self(tokio::spawn(async move {
            loop {
                backends.change().await;
                pause(20..80).await;
            }
        }))
    }

    /// Ends it between two changes.
    pub(crate) async fn end(mut self, backends: &Backends) {
        let quiet = backends.client.lock().await;
        self.0.abort();
        let _ = (&mut self.0).await;
        drop(quiet);
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// So many milliseconds.
pub(crate) async fn pause(milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(milliseconds))).await;
}

/// A template's first and last line, so that a torn file is seen. `middle` is between.
pub(crate) fn marked(middle: &str) -> String {
    const ALL: &str = "{{ range getvs \"/services/apache/*\" }} {{ . }}{{ end }}";
    format!("# set:{ALL}\n{middle}# whole:{ALL}\n")
}

/// An upstream of all backends.
pub(crate) const UPSTREAM: &str = "upstream apache_pool {\n{{ range getvs \"/services/apache/*\" }}    \
                            server {{ . }};\n{{ end }}}\n";

/// A server that passes everything on to it.
pub(crate) fn server(nginx: &Nginx) -> String {
    let listen = nginx.address();
    format!("server {{ listen {listen}; location / {{ proxy_pass http://apache_pool; }} }}\n")
}

/// Reads a file rendered from [`marked`]: whom it names, if it is whole.
pub(crate) fn read_whole(file: &Path, backends: &Backends) -> Result<Names, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let torn = |why: &str| format!("{} is torn: {why}\n{text}", file.display());
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.first().and_then(|line| line.strip_prefix("# set:"));
    let first = first.ok_or_else(|| torn("no first line"))?;
    let last = lines.last().and_then(|line| line.strip_prefix("# whole:"));
    if !text.ends_with('\n') || last != Some(first) {
        return Err(torn("the last line is not of the first"));
    }
    let servers =
        lines.iter().filter_map(|line| line.strip_prefix("    server ")?.strip_suffix(';'));
    let servers: Vec<&str> = servers.collect();
    if !servers.is_empty() && servers != first.split_whitespace().collect::<Vec<_>>() {
        return Err(torn("the servers are not those of the first line"));
    }
    first.split_whitespace().map(|address| backends.name_of(address)).collect()
}

/// Reads files again and again: each is there, whole, and of a set that was registered.
pub(crate) struct Looking {
    task: JoinHandle<()>,
    looks: Arc<Mutex<Result<u64, String>>>,
}

impl Looking {
    pub(crate) fn at(files: Vec<PathBuf>, backends: &Arc<Backends>) -> Self {
        let looks = Arc::new(Mutex::new(Ok(0)));
        let (backends, result) = (Arc::clone(backends), Arc::clone(&looks));
        let task = tokio::spawn(async move {
            loop {
                for file in &files {
                    let seen = read_whole(file, &backends).and_then(|names| {
                        check(backends.was_ever(&names), || {
                            format!("{names:?} was never registered")
                        })
                    });
                    let mut result = result.lock().unwrap();
                    match (seen, &mut *result) {
                        (Ok(()), Ok(count)) => *count += 1,
                        (Err(why), Ok(_)) => *result = Err(why),
                        (_, Err(_)) => return,
                    }
                }
                pause(1..3).await;
            }
        });
        Self { task, looks }
    }

    /// Fails the test unless every look was good.
    #[track_caller]
    pub(crate) fn assert_whole(&self) -> u64 {
        let looks = self.looks.lock().unwrap().clone();
        assert!(looks.is_ok(), "{}", looks.unwrap_err());
        looks.unwrap_or_default()
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until nginx answers from exactly the registered backends. Nothing may change
/// meanwhile.
pub(crate) async fn settled(backends: &Backends, load: &Load) {
    let wanted = backends.registered();
    within(SETTLE, "nginx answers from exactly the registered backends", || {
        let wanted = &wanted;
        async move {
            load.forget_answers();
            load.more(80).await;
            let seen: Names = load.so_far().answers.into_keys().collect();
            check(&seen == wanted, || format!("{seen:?} instead of {wanted:?}"))
        }
    })
    .await;
}
