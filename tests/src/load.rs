//! Clients that send requests all the time and remember what became of each.
//!
//! They retry nothing. A request that died on a *reused* connection without a single
//! byte of answer is counted apart: every nginx before 1.27.4 causes some of these when
//! it reloads, browsers retry them unseen, and no daemon of ours can prevent them. A
//! client looks whether its idle connection was closed before it uses it again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::{Method, Request};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::eventually::{check, eventually, patience};

mod client;
mod summary;
mod upload;

use client::Client;
pub use summary::{Answers, Failure, Outcome, Summary};

/// A profile for a load.
#[derive(Debug, Clone)]
#[must_use]
pub struct Profile {
    to: SocketAddr,
    path: String,
    clients: usize,
    keep_alive: bool,
    body: Option<Bytes>,
    upload: Option<Duration>,
    think: Duration,
    deadline: Duration,
}

/// A load that is going on. Dropping it stops it.
pub struct Load {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    summary: Arc<Mutex<Summary>>,
}

impl Load {
    /// One client, `GET /`, a new connection for each request, 1 ms between requests,
    /// 10 s for an answer.
    pub fn on(to: SocketAddr) -> Profile {
        Profile {
            to,
            path: "/".to_owned(),
            clients: 1,
            keep_alive: false,
            body: None,
            upload: None,
            think: Duration::from_millis(1),
            deadline: Duration::from_secs(10),
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn so_far(&self) -> Summary {
        self.summary.lock().unwrap().clone()
    }

    /// Forgets all answers, so that the next first answer is a new one.
    pub fn forget_answers(&self) {
        self.summary.lock().unwrap().answers.clear();
    }

    /// Waits until `name` has answered (since it was last forgotten); says when it did.
    #[track_caller]
    pub fn answered(&self, name: &str) -> impl Future<Output = Instant> {
        eventually(format!("an answer of {name}"), move || async move {
            let answers = self.so_far().answers;
            answers.get(name).map(|of| of.first).ok_or_else(|| format!("answers: {answers:?}"))
        })
    }

    /// Waits until at least this many more requests were answered well.
    #[track_caller]
    pub fn more(&self, requests: u64) -> impl Future<Output = ()> {
        let goal = self.so_far().ok + requests;
        eventually("more good answers", move || async move {
            let summary = self.so_far();
            check(summary.ok >= goal, || format!("{summary}"))
        })
    }

    /// Stops when the requests in flight are over, and sums up.
    pub async fn stop(mut self) -> Summary {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.so_far()
    }
}

impl Profile {
    /// So many clients at once.
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = clients;
        self
    }

    /// Each client keeps its connection as long as the server lets it.
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    /// `POST` with this body.
    pub fn post(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// `POST` of 10 kB that takes this long to send, each on a new connection.
    pub fn slow_upload(mut self, span: Duration) -> Self {
        self.upload = Some(span);
        self
    }

    /// Another path.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The pause of a client between two requests.
    pub fn think(mut self, pause: Duration) -> Self {
        self.think = pause;
        self
    }

    /// How long a client waits for a whole answer (times the patience).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts it.
    #[must_use]
    pub fn start(self) -> Load {
        let (stop, stopping) = watch::channel(false);
        let summary = Arc::new(Mutex::new(Summary::default()));
        let mut tasks = JoinSet::new();
        for _ in 0..self.clients {
            tasks.spawn(ask_on(self.clone(), Arc::clone(&summary), stopping.clone()));
        }
        Load { tasks, stop, summary }
    }

    fn request(&self) -> Request<http_body_util::Full<Bytes>> {
        let method = if self.body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(&self.path)
            .header(hyper::header::HOST, self.to.to_string());
        if !self.keep_alive {
            request = request.header(hyper::header::CONNECTION, "close");
        }
        let body = self.body.clone().unwrap_or_default();
        request.body(http_body_util::Full::new(body)).expect("a request of fixed parts")
    }
}

async fn ask_on(
    profile: Profile,
    summary: Arc<Mutex<Summary>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut client = Client::new(profile.to);
    while !*stopping.borrow() {
        let start = Instant::now();
        let asked = async {
            match profile.upload {
                Some(span) => upload::upload(profile.to, &profile.path, span).await,
                None => client.ask(profile.request()).await,
            }
        };
        let outcome = tokio::time::timeout(patience(profile.deadline), asked)
            .await
            .unwrap_or(Outcome::TimedOut);
        if !profile.keep_alive || outcome == Outcome::TimedOut {
            client.disconnect();
        }
        summary.lock().unwrap().count(outcome, start);
        let _ = tokio::time::timeout(profile.think, stopping.wait_for(|stop| *stop)).await;
    }
}
