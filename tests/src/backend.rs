//! A web backend inside the test: it answers with its name, and can fail in all the
//! ways backends do: wrong status, slow, silent, dripping, gone.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::lab::Lab;

mod serve;

pub use serve::serve;

/// How a backend answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 and its name; to a POST its name and the number of bytes it got.
    Healthy,
    /// This status and its name.
    Status(u16),
    /// It reads the request and says nothing.
    Hang,
    /// A 200, and then one byte every 100 ms without end.
    Drip,
}

/// How a backend is to answer, and what it has counted.
#[derive(Debug)]
pub struct State {
    name: String,
    behaviour: Mutex<(Behaviour, Duration)>,
    requests: AtomicU64,
    in_flight: AtomicUsize,
}

impl State {
    /// Healthy and without delay.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            behaviour: Mutex::new((Behaviour::Healthy, Duration::ZERO)),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Waits this long before each answer.
    #[must_use]
    pub fn with_delay(self, delay: Duration) -> Self {
        self.behaviour.lock().unwrap().1 = delay;
        self
    }
}

struct Running {
    task: JoinHandle<()>,
    finish: watch::Sender<bool>,
}

/// One backend.
pub struct Backend {
    address: SocketAddr,
    state: Arc<State>,
    running: Mutex<Option<Running>>,
}

impl Backend {
    /// Starts one on the lab's own address.
    pub async fn start(lab: &Lab, name: &str) -> Self {
        Self::start_at(lab.free(), name).await
    }

    /// Starts one at a place of your choice.
    pub async fn start_at(address: SocketAddr, name: &str) -> Self {
        let backend = Self::prepare_at(address, name);
        backend.come_up().await;
        backend
    }

    /// One that is not up yet: connections to it are refused.
    #[must_use]
    pub fn prepare_at(address: SocketAddr, name: &str) -> Self {
        Self { address, state: Arc::new(State::new(name)), running: Mutex::default() }
    }

    /// Its name, which it answers with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address without the port.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The port alone.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on it answers like this.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state.behaviour.lock().unwrap().0 = behaviour;
    }

    /// From now on it takes this long for each answer.
    pub fn take(&self, delay: Duration) {
        self.state.behaviour.lock().unwrap().1 = delay;
    }

    /// Requests that reached it so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Requests that it is busy with.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Dies like a process that was killed: the listener and all connections are gone.
    pub async fn die(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some(running) = running {
            running.task.abort();
            let _ = running.task.await;
        }
    }

    /// Stops like a careful server: accepts nothing new, answers what it has.
    pub async fn finish(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some(running) = running {
            running.finish.send_replace(true);
            let _ = running.task.await;
        }
    }

    /// Listens (again) on the same port.
    ///
    /// # Panics
    /// When somebody else listens there.
    pub async fn come_up(&self) {
        let listener = TcpListener::bind(self.address).await.expect("the backend's own port");
        let (finish, finishing) = watch::channel(false);
        let task = tokio::spawn(serve(listener, Arc::clone(&self.state), finishing));
        *self.running.lock().unwrap() = Some(Running { task, finish });
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.task.abort();
        }
    }
}
