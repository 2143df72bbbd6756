//! `/events`: the state as server-sent events, complete each time, so that a client that missed
//! some has missed nothing. At most a few per second, and a periodic event when nothing changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use common::runtime::{Body, DocumentSource, SharedDocument, StatusResponse, plain};
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::{Bytes, Frame};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::load_balancers::Followed;
use super::page_clients::PageClient;
use super::traffic::{TrafficByGroup, TrafficMonitor};
use super::{Sources, TEXT, document};

/// The least time between two events.
const APART: Duration = Duration::from_millis(250);
/// An event is sent at least this often: by it the page detects a dead connection, and we detect a
/// dead client.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// How often it is looked what backends have had and have.
const LOOK_AT_TRAFFIC: Duration = Duration::from_secs(1);
/// A client that does not read for this long is disconnected.
const STALLED: Duration = Duration::from_secs(30);

/// The streams of all pages, which share each event.
pub(super) struct EventStreams {
    event: Arc<SharedDocument<EventSource>>,
}

/// What an event is made of.
struct EventSource {
    sources: Sources,
    traffic: watch::Receiver<Arc<TrafficByGroup>>,
    fleet: watch::Receiver<Option<Followed>>,
}

impl DocumentSource for EventSource {
    fn has_changed(&mut self) -> bool {
        let sources = self.sources.has_changed() | DocumentSource::has_changed(&mut self.traffic);
        DocumentSource::has_changed(&mut self.fleet) || sources
    }
}

impl EventStreams {
    pub(super) fn new(sources: &Sources) -> Self {
        let fleet = sources.page_clients.fleet();
        let traffic = sources.traffic.newest();
        let source = EventSource { sources: sources.clone(), traffic, fleet };
        Self { event: Arc::new(SharedDocument::new(source)) }
    }

    /// A stream of states, or an error when there are too many clients.
    pub(super) fn answer(&self, sources: &Sources) -> StatusResponse {
        let Some(page_client) = sources.page_clients.join() else {
            let mut answer = plain(503, TEXT, "too many clients follow this page\n");
            let later = hyper::header::HeaderValue::from_static("30");
            answer.headers_mut().insert("retry-after", later);
            return answer;
        };
        stream(Arc::clone(&self.event), sources.clone(), page_client)
    }
}

fn stream(
    event: Arc<SharedDocument<EventSource>>,
    sources: Sources,
    page_client: PageClient,
) -> StatusResponse {
    // One place: the next state is rendered when the one before has been sent, so a slow reader
    // costs the memory of one state and skips to the newest.
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(send_events(event, sources, page_client, sender));
    let frames = unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), receiver))
    });
    let body: Body = StreamBody::new(frames).boxed();
    let answer = Response::builder()
        .header("content-type", "text/event-stream")
        .header("cache-control", "no-store")
        .header("x-accel-buffering", "no");
    answer.body(body).unwrap_or_else(|_| plain(500, TEXT, "no stream\n"))
}

async fn send_events(
    event: Arc<SharedDocument<EventSource>>,
    mut sources: Sources,
    mut page_client: PageClient,
    sender: mpsc::Sender<Bytes>,
) {
    let monitor = sources.traffic.clone();
    let mut traffic = monitor.newest();
    loop {
        let sent = Instant::now();
        traffic.mark_unchanged();
        page_client.fleet.mark_unchanged();
        sources.states.mark_unchanged();
        sources.about.mark_unchanged();
        let text = event.get(|EventSource { sources, fleet, .. }| {
            format!("data: {}\n\n", document::of(sources, fleet.borrow().as_ref()))
        });
        if !matches!(timeout(STALLED, sender.send(text)).await, Ok(Ok(()))) {
            return;
        }
        let stopping = sources.stopping.is_cancelled();
        tokio::select! {
            () = sleep_until(sent + SIGN_OF_LIFE) => {}
            changed = sources.states.changed() => if changed.is_err() { return },
            changed = sources.about.changed() => if changed.is_err() { return },
            changed = new_traffic(&monitor, &mut traffic) => if changed.is_err() { return },
            changed = page_client.fleet.changed() => if changed.is_err() { return },
            () = sources.stopping.cancelled(), if !stopping => {}
            () = sender.closed() => return,
        }
        sleep_until(sent + APART).await;
    }
}

/// Reads the traffic again and again, until it is another.
async fn new_traffic(
    monitor: &TrafficMonitor,
    traffic: &mut watch::Receiver<Arc<TrafficByGroup>>,
) -> Result<(), watch::error::RecvError> {
    loop {
        monitor.refresh().await;
        if watch::Receiver::has_changed(traffic)? {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AT_TRAFFIC).await;
    }
}
