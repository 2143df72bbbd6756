//! A program's output, up to a bound.

use std::fmt;
use std::io;

use tokio::net::unix::pipe::Receiver;

/// The first part of a program's output, and how much more there was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// How many bytes were dropped after it.
    pub dropped: u64,
}

/// Appended to a message: `: text`, on lines of its own if there are several.
impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.trim_end();
        match (text.is_empty(), text.contains('\n')) {
            (true, _) => f.write_str(", without any output")?,
            (false, false) => write!(f, ": {text}")?,
            (false, true) => write!(f, ":\n{text}")?,
        }
        if self.dropped > 0 {
            write!(f, "\n({} more bytes not shown)", self.dropped)?;
        }
        Ok(())
    }
}

/// Keeps the first bytes and counts the others.
pub(super) struct Bounded {
    kept: Vec<u8>,
    limit: usize,
    dropped: u64,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: Vec::new(), limit, dropped: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.kept.len()).min(bytes.len());
        let (kept, dropped) = bytes.split_at(room);
        self.kept.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
    }

    /// What was written before the program ended is in the pipe by now. Grandchildren that keep the
    /// other end open are not waited for, and if they go on writing, no more than the pipe's
    /// capacity is read.
    pub(super) fn take_what_is_there(&mut self, pipe: &Receiver) {
        /// The capacity of a pipe, in bytes.
        const DEPTH: usize = 64 * 1024;
        let mut buffer = [0; 4096];
        for _ in 0..DEPTH / buffer.len() {
            match read_now(pipe, &mut buffer) {
                Ok(bytes) if !bytes.is_empty() => self.take(bytes),
                _ => break,
            }
        }
    }

    pub(super) fn finish(self) -> Output {
        let text = String::from_utf8_lossy(&self.kept);
        let shown = |c: char| c == '\n' || c == '\t' || !c.is_control();
        let text = text.chars().map(|c| if shown(c) { c } else { '\u{fffd}' }).collect();
        Output { text, dropped: self.dropped }
    }
}

fn read_now<'a>(pipe: &Receiver, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    // Not `try_read`: it relies on a readiness that may not have been polled yet.
    let n = rustix::io::read(pipe, &mut *buffer)?;
    Ok(buffer.get(..n).unwrap_or_default())
}

/// Reads to the end of the pipe. Cancel-safe.
pub(super) async fn drain(pipe: &mut Receiver, output: &mut Bounded) {
    let mut buffer = [0; 4096];
    loop {
        if pipe.readable().await.is_err() {
            return;
        }
        match pipe.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => output.take(buffer.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
