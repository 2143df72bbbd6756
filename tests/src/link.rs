//! A line between a daemon and etcd that can be cut: connections through it are
//! dropped and new ones are taken and left unanswered, as behind a dead switch.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::lab::Lab;

/// One line.
pub struct Link {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Link {
    /// A line to `to`.
    ///
    /// # Panics
    /// When nothing can listen on a free port.
    pub async fn to(lab: &Lab, to: SocketAddr) -> Self {
        let address = lab.free();
        let listener = TcpListener::bind(address).await.expect("a free port");
        let (cut, is_cut) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, to, is_cut.clone()));
            }
        });
        Self { address, cut, task }
    }

    /// For `--etcd`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts it.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Carries again, for new connections.
    pub fn restore(&self) {
        self.cut.send_replace(false);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut from: TcpStream, to: SocketAddr, mut is_cut: watch::Receiver<bool>) {
    if *is_cut.borrow() {
        // Silence until it is restored; then the other side tries again.
        let _ = is_cut.wait_for(|cut| !cut).await;
        return;
    }
    let Ok(mut onward) = TcpStream::connect(to).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut onward) => {}
        _ = is_cut.wait_for(|cut| *cut) => {}
    }
}
