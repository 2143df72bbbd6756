//! Which of several endpoints is asked: one, until it fails; then the next.
//!
//! Sticky, because a connection that works is worth more than an even load, and because a
//! balancer keeps sending requests to a member that hangs. The start is shuffled, so that a
//! fleet does not lean on the first endpoint of its flag.
//!
//! A call that reaches its deadline counts as a failure of its endpoint, or a member that hangs
//! would be asked again and again. A call that its caller drops does not count: it was not waited
//! for.
//!
//! It knows nothing of v2 or v3.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use url::{Host, Url};

use super::StoreError;
use super::discovery::Discovery;
use crate::model::format_span;

/// How often the cluster is asked for its members.
const LEARN_AGAIN: Duration = Duration::from_secs(60);

/// The endpoints, and which one is asked now. Clones share both.
#[derive(Clone)]
pub(super) struct Endpoints {
    list: Arc<Mutex<EndpointList>>,
    /// Where the endpoints came from, if they may change.
    discovery: Option<Arc<Discovery>>,
    /// Whether the members that the cluster names are used as well.
    is_learning: bool,
    /// How long one endpoint may take for one request.
    request_timeout: Duration,
}

#[derive(Debug)]
struct EndpointList {
    urls: Vec<Url>,
    /// How many of them were given; the others are members that the cluster has named.
    given: usize,
    /// When the cluster was asked last for its members.
    learnt: Option<Instant>,
    at: usize,
    /// Grows with each switch, also with a single endpoint: a connection belongs to one
    /// epoch, so a switch asks for a new one.
    epoch: u64,
    /// The epoch in which DNS was asked last.
    looked_up: u64,
}

/// The endpoint to ask now.
#[derive(Debug, Clone)]
pub(super) struct EndpointChoice {
    pub(super) epoch: u64,
    pub(super) url: Url,
}

impl EndpointChoice {
    /// `host:port`, for messages.
    pub(super) fn name(&self) -> String {
        host_and_port(&self.url)
    }
}

/// A member's URL is of use where the one in use is: by the same scheme, and not an address that
/// means something else on each machine.
fn may_be_reached(url: &Url, current: &Url) -> bool {
    let is_own = |url: &Url| match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let is_any = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.is_unspecified(),
        Some(Host::Domain(_)) => false,
        None => true,
    };
    url.scheme() == current.scheme() && !is_any && (!is_own(url) || is_own(current))
}

/// `host:port` of a URL, for messages: never a user or a password.
pub(super) fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Endpoints {
    /// Starts with the first of `urls`; [`shuffled`] before, unless one of them is known to
    /// answer.
    ///
    /// # Errors
    /// [`StoreError::Setup`] when there is none.
    pub(super) fn new(
        urls: Vec<Url>,
        discovery: Option<Arc<Discovery>>,
        request_timeout: Duration,
    ) -> Result<Self, StoreError> {
        if urls.is_empty() {
            return Err(StoreError::Setup("no etcd endpoint is given".to_owned()));
        }
        let given = urls.len();
        let list = EndpointList { urls, given, learnt: None, at: 0, epoch: 0, looked_up: 0 };
        let list = Arc::new(Mutex::new(list));
        Ok(Self { list, discovery, is_learning: false, request_timeout })
    }

    /// The same, which takes what [`Endpoints::learn`] says.
    pub(super) fn learning(self) -> Self {
        Self { is_learning: true, ..self }
    }

    /// Whether the cluster is to be asked for its members now; true once in a while.
    pub(super) fn is_due_to_learn(&self) -> bool {
        if !self.is_learning {
            return false;
        }
        let (mut list, now) = (self.list(), Instant::now());
        let due = list.learnt.is_none_or(|at| now >= at + LEARN_AGAIN);
        if due {
            list.learnt = Some(now);
        }
        due
    }

    /// What the cluster names as the URLs of its members. Those of before are forgotten; those
    /// that were given stay, and come first. The connection at hand is not touched.
    pub(super) fn learn(&self, members: &[String]) {
        let mut list = self.list();
        let Some(current) = list.urls.get(list.at).cloned() else { return };
        let urls = members.iter().filter_map(|text| Url::parse(text).ok());
        let usable = urls.filter(|url| may_be_reached(url, &current));
        let mut all: Vec<Url> = list.urls.iter().take(list.given).cloned().collect();
        for url in usable.chain([current.clone()]) {
            if !all.contains(&url) {
                all.push(url);
            }
        }
        if all != list.urls {
            let names: Vec<String> = all.iter().map(host_and_port).collect();
            tracing::info!("the members of etcd are {}", names.join(", "));
            list.at = all.iter().position(|url| *url == current).unwrap_or_default();
            list.urls = all;
        }
    }

    fn list(&self) -> MutexGuard<'_, EndpointList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `host:port` of the endpoint that is asked now.
    pub(super) fn current(&self) -> String {
        let list = self.list();
        list.urls.get(list.at).map(host_and_port).unwrap_or_default()
    }

    /// The endpoint to ask now. When all have failed since the last lookup and they came from
    /// DNS, they are looked up again.
    pub(super) async fn choose(&self) -> Result<EndpointChoice, StoreError> {
        if let Some(discovery) = &self.discovery
            && self.list().all_have_failed()
        {
            match discovery.lookup().await {
                Ok(urls) => self.list().replace(urls),
                Err(error) => tracing::debug!(%error, "keeping the known endpoints"),
            }
        }
        let list = self.list();
        let url = list.urls.get(list.at).cloned();
        url.map(|url| EndpointChoice { epoch: list.epoch, url })
            .ok_or_else(|| StoreError::Setup("no etcd endpoint is left".to_owned()))
    }

    /// Goes on to the next endpoint, unless another call has done so since `epoch`.
    pub(super) fn switch(&self, epoch: u64) {
        let mut list = self.list();
        if list.epoch == epoch {
            list.epoch += 1;
            list.at = (list.at + 1) % list.urls.len().max(1);
        }
    }

    /// Awaits one call to `endpoint`, until `deadline` and for the request timeout at most,
    /// and goes on to the next endpoint when it brings no answer.
    ///
    /// # Errors
    /// Those of the call; at its end in time [`StoreError::Unreachable`], naming the endpoint.
    pub(super) async fn bounded<T>(
        &self,
        endpoint: &EndpointChoice,
        deadline: Instant,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let until = deadline.min(began + self.request_timeout);
        let result = timeout_at(until, call).await.unwrap_or_else(|_| {
            let waited = format_span(until.saturating_duration_since(began));
            Err(StoreError::Unreachable(format!("no answer within {waited}")))
        });
        result.map_err(|error| self.failed(endpoint, error))
    }

    /// Goes on to the next endpoint if `error` says that this one does not answer, and names
    /// it in the message.
    pub(super) fn failed(&self, endpoint: &EndpointChoice, error: StoreError) -> StoreError {
        if error.is_unanswered() {
            self.switch(endpoint.epoch);
        }
        let named = |reason| format!("{}: {reason}", endpoint.name());
        match error {
            StoreError::Unreachable(reason) => StoreError::Unreachable(named(reason)),
            StoreError::NoQuorum(reason) => StoreError::NoQuorum(named(reason)),
            other => other,
        }
    }
}

impl EndpointList {
    /// True once for each round of failures.
    fn all_have_failed(&mut self) -> bool {
        let round = u64::try_from(self.urls.len()).unwrap_or(u64::MAX);
        let over = self.epoch - self.looked_up >= round;
        if over {
            self.looked_up = self.epoch;
        }
        over
    }

    fn replace(&mut self, urls: Vec<Url>) {
        let same = urls.len() == self.urls.len() && urls.iter().all(|url| self.urls.contains(url));
        if !same && !urls.is_empty() {
            let epoch = self.epoch + 1;
            let given = urls.len();
            *self = Self { urls, given, learnt: None, at: 0, epoch, looked_up: epoch };
        }
    }
}

/// The endpoints in a random order.
pub(super) fn shuffled(mut urls: Vec<Url>) -> Vec<Url> {
    fastrand::shuffle(&mut urls);
    urls
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const REQUEST: Duration = Duration::from_secs(5);

    fn three() -> Endpoints {
        let urls = ["http://a:1", "http://b:2", "http://c:3"];
        Endpoints::new(urls.iter().map(|u| u.parse().unwrap()).collect(), None, REQUEST).unwrap()
    }

    async fn name(endpoints: &Endpoints) -> String {
        endpoints.choose().await.unwrap().name()
    }

    #[tokio::test]
    async fn two_calls_that_fail_together_switch_once() {
        let endpoints = three();
        let first = endpoints.choose().await.unwrap();
        let second = endpoints.choose().await.unwrap();
        endpoints.switch(first.epoch);
        endpoints.switch(second.epoch);
        assert_eq!(name(&endpoints).await, "b:2");
    }

    #[tokio::test]
    async fn what_the_cluster_names_comes_after_what_was_given() {
        let one = vec!["http://10.0.0.1:2379".parse().unwrap()];
        let endpoints = Endpoints::new(one.clone(), None, REQUEST).unwrap();
        assert!(!endpoints.is_due_to_learn(), "not enabled");
        let endpoints = endpoints.learning();
        assert!(endpoints.is_due_to_learn() && !endpoints.is_due_to_learn());
        let members = |hosts: &[&str]| -> Vec<String> {
            hosts.iter().map(|host| format!("http://{host}:2379")).collect()
        };
        let all = ["0.0.0.0", "127.0.0.1", "[::]", "10.0.0.3", "10.0.0.1", "10.0.0.2"];
        endpoints.learn(&members(&all));
        endpoints.learn(&[members(&all), vec!["https://10.0.0.9:2379".into()]].concat());
        let mut names = Vec::new();
        for _ in 0..4 {
            let endpoint = endpoints.choose().await.unwrap();
            names.push(endpoint.name());
            endpoints.switch(endpoint.epoch);
        }
        assert_eq!(names, ["10.0.0.1:2379", "10.0.0.3:2379", "10.0.0.2:2379", "10.0.0.1:2379"]);
        // Now at 10.0.0.3, which leaves the cluster: it is used as long as it answers.
        endpoints.learn(&members(&["10.0.0.2"]));
        assert_eq!(name(&endpoints).await, "10.0.0.3:2379");
        assert_eq!(endpoints.list().urls.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_switches_and_neither_a_rejection_nor_a_dropped_call_does() {
        let endpoints = three();
        let hung = || std::future::pending::<Result<(), StoreError>>();
        let far = || Instant::now() + Duration::from_secs(60);
        let chosen = endpoints.choose().await.unwrap();
        let error = endpoints.bounded(&chosen, far(), hung()).await.unwrap_err();
        assert_eq!(error, StoreError::Unreachable("a:1: no answer within 5s".into()));
        assert_eq!(name(&endpoints).await, "b:2");

        let chosen = endpoints.choose().await.unwrap();
        let near = Instant::now() + Duration::from_millis(10);
        let error = endpoints.bounded(&chosen, near, hung()).await.unwrap_err();
        assert_eq!(error, StoreError::Unreachable("b:2: no answer within 10ms".into()));
        assert_eq!(name(&endpoints).await, "c:3");

        let chosen = endpoints.choose().await.unwrap();
        let call = endpoints.bounded(&chosen, far(), hung());
        assert!(timeout(Duration::from_secs(1), call).await.is_err());
        let rejected = async { Err::<(), _>(StoreError::Rejected("no".into())) };
        assert!(endpoints.bounded(&chosen, far(), rejected).await.is_err());
        assert_eq!(name(&endpoints).await, "c:3");
    }
}
