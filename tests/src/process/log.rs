//! The output of a process, bounded.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

const MOST_LINES: usize = 20_000;
const LONGEST_LINE: usize = 8_192;

/// Which of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<(Instant, Stream, String)>,
    dropped: usize,
}

/// The newest lines of both outputs.
#[derive(Default)]
pub(super) struct Log {
    lines: Mutex<Lines>,
}

impl Log {
    pub(super) fn push(&self, stream: Stream, line: &[u8]) {
        let line = line.get(..LONGEST_LINE).unwrap_or(line);
        let mut text = String::from_utf8_lossy(line).into_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut lines = self.lines.lock().unwrap();
        if lines.kept.len() == MOST_LINES {
            lines.kept.pop_front();
            lines.dropped += 1;
        }
        lines.kept.push_back((Instant::now(), stream, text));
    }

    pub(super) fn text(&self, only: Option<Stream>) -> String {
        let lines = self.lines.lock().unwrap();
        let mut text = match lines.dropped {
            0 => String::new(),
            n => format!("({n} older lines dropped)\n"),
        };
        for (_, _, line) in lines.kept.iter().filter(|(_, s, _)| only.is_none_or(|o| o == *s)) {
            text.push_str(line);
        }
        text
    }

    /// The lines of one output with the times at which they came.
    pub(super) fn timed(&self, stream: Stream) -> Vec<(Instant, String)> {
        let lines = self.lines.lock().unwrap();
        let of_stream = lines.kept.iter().filter(|(_, s, _)| *s == stream);
        of_stream.map(|(at, _, line)| (*at, line.trim_end().to_owned())).collect()
    }
}
