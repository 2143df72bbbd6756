//! `/events`: the state as server-sent events, whole each time, so that whoever
//! missed some has missed nothing. At most a few a second, and a sign of life when
//! nothing changes.

use std::convert::Infallible;
use std::time::Duration;

use common::runtime::{Body, StatusResponse, plain};
use futures_util::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::{Bytes, Frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::page_clients::PageClient;
use super::{Sources, TEXT, document};

/// Two states of a quickly changing set are sent with this much between them.
const APART: Duration = Duration::from_millis(250);
/// Something is sent at least this often: the page tells a dead link by it, and we
/// a dead client.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Who does not read for this long has gone.
const STALLED: Duration = Duration::from_secs(30);

/// A stream of states, or a no when too many look.
pub(super) fn answer(sources: Sources) -> StatusResponse {
    let Some(page_client) = sources.page_clients.join() else {
        let mut answer = plain(503, TEXT, "too many look at this page already\n");
        answer.headers_mut().insert("retry-after", hyper::header::HeaderValue::from_static("30"));
        return answer;
    };
    // One place: the next state is made when the one before is on its way, so a slow
    // reader costs one state of memory and skips to the newest.
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    tokio::spawn(tell(sources, page_client, sender));
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

async fn tell(mut sources: Sources, mut page_client: PageClient, sender: mpsc::Sender<Bytes>) {
    loop {
        let sent = Instant::now();
        let fleet = page_client.fleet.borrow_and_update().clone();
        sources.states.mark_unchanged();
        sources.about.mark_unchanged();
        let text = format!("data: {}\n\n", document::of(&sources, fleet.as_ref()));
        if !matches!(timeout(STALLED, sender.send(text.into())).await, Ok(Ok(()))) {
            return;
        }
        let stopping = sources.stopping.is_cancelled();
        tokio::select! {
            () = sleep_until(sent + SIGN_OF_LIFE) => {}
            changed = sources.states.changed() => if changed.is_err() { return },
            changed = sources.about.changed() => if changed.is_err() { return },
            changed = page_client.fleet.changed() => if changed.is_err() { return },
            () = sources.stopping.cancelled(), if !stopping => {}
            () = sender.closed() => return,
        }
        sleep_until(sent + APART).await;
    }
}
