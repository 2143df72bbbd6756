//! The service manager's end of `NOTIFY_SOCKET`.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const MOST_LINES: usize = 10_000;

/// Collects the lines that a daemon sends.
pub(super) struct Notify {
    path: PathBuf,
    lines: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Notify {
    #[track_caller]
    pub(super) fn listen(folder: &Path) -> Self {
        let path = folder.join(format!("notify-{:08x}", fastrand::u32(..)));
        let socket = UnixDatagram::bind(&path).expect("the notify socket");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a read deadline");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (into, until) = (Arc::clone(&lines), Arc::clone(&over));
        thread::spawn(move || collect(&socket, &into, &until));
        Self { path, lines, over }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn received(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn collect(socket: &UnixDatagram, into: &Mutex<Vec<String>>, until: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !until.load(Ordering::Relaxed) {
        // An error is the read deadline: time to look whether it is over.
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        let mut lines = into.lock().unwrap();
        if lines.len() < MOST_LINES {
            lines.extend(text.lines().map(str::to_owned));
        }
    }
}
