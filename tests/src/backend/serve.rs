//! The backend's HTTP side.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Interval;

use super::{Behaviour, State};

/// Accepts until `finishing` turns true; then ends when all requests are answered.
/// Dropping it cuts everything.
pub async fn serve(listener: TcpListener, state: Arc<State>, mut finishing: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.map(|(stream, _)| stream),
            _ = finishing.wait_for(|finish| *finish) => break,
            Some(_) = connections.join_next() => continue,
        };
        if let Ok(stream) = stream {
            connections.spawn(converse(stream, Arc::clone(&state), finishing.clone()));
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn converse(stream: TcpStream, state: Arc<State>, mut finishing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, Arc::clone(&state)));
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A client that goes away in the middle is no concern of a backend's.
    let over = tokio::select! {
        _ = connection.as_mut() => true,
        _ = finishing.wait_for(|finish| *finish) => false,
    };
    if !over {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

struct InFlight(Arc<State>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Content>, Infallible> {
    state.requests.fetch_add(1, Ordering::Relaxed);
    state.in_flight.fetch_add(1, Ordering::Relaxed);
    let state = InFlight(state);
    let posted = request.method() == Method::POST;
    let got = request.into_body().collect().await.map_or(0, |body| body.to_bytes().len());
    let (behaviour, delay) = *state.0.behaviour.lock().unwrap();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let name = &state.0.name;
    let text = if posted { format!("{name} got {got}\n") } else { format!("{name}\n") };
    let (status, content) = match behaviour {
        Behaviour::Healthy => (200, Content::whole(text)),
        Behaviour::Status(status) => (status, Content::whole(text)),
        Behaviour::Drip => (200, Content::drip()),
        Behaviour::Hang => std::future::pending().await,
    };
    let mut response = Response::new(content);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok(response)
}

/// A body that is there at once, or never ends.
enum Content {
    Whole(Option<Bytes>),
    Drip(Interval),
}

impl Content {
    fn whole(text: String) -> Self {
        Self::Whole(Some(text.into()))
    }

    fn drip() -> Self {
        Self::Drip(tokio::time::interval(Duration::from_millis(100)))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Drip(timer) => {
                timer.poll_tick(cx).map(|_| Some(Ok(Frame::data(Bytes::from_static(b".")))))
            }
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(bytes) => {
                hyper::body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Drip(_) => hyper::body::SizeHint::default(),
        }
    }
}
