//! A line between a daemon and etcd that can be cut: connections through it are
//! dropped and new ones are taken and left unanswered, as behind a dead switch. Or it is long:
//! whatever is sent arrives later.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

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

    /// A line to `to` on which a question and its answer take this long, and a connection too.
    ///
    /// # Panics
    /// When nothing can listen on a free port.
    pub async fn long(lab: &Lab, to: SocketAddr, round_trip: Duration) -> Self {
        let address = lab.free();
        let listener = TcpListener::bind(address).await.expect("a free port");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass_late(stream, to, round_trip));
            }
        });
        Self { address, cut: watch::Sender::new(false), task }
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

async fn pass_late(from: TcpStream, to: SocketAddr, round_trip: Duration) {
    sleep(round_trip).await;
    let Ok(onward) = TcpStream::connect(to).await else { return };
    let (from_read, from_write) = from.into_split();
    let (to_read, to_write) = onward.into_split();
    let one_way = round_trip / 2;
    tokio::select! {
        () = carry(from_read, to_write, one_way) => {}
        () = carry(to_read, from_write, one_way) => {}
    }
}

/// Passes on what comes, each piece this much later.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, later: Duration) {
    let (sender, mut pieces) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            let came = piece.iter().take(count).copied().collect();
            let _ = sender.send((Instant::now() + later, came));
        }
    };
    let writing = async {
        while let Some((at, piece)) = pieces.recv().await {
            sleep_until(at).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
