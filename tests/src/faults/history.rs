//! What happened in a run, line by line, with the time. It is printed when the run fails.

use std::sync::Mutex;
use std::time::Instant;

use super::plan::Fault;

/// How many lines are kept: what happened long ago explains little.
const KEPT: usize = 400;

/// The lines, and the seed that leads to them again.
pub struct History {
    seed: u64,
    start: Instant,
    lines: Mutex<Vec<String>>,
    aloud: bool,
}

impl History {
    /// An empty one. With `FAULTS_ALOUD` set, each line is printed as it comes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let aloud = std::env::var_os("FAULTS_ALOUD").is_some();
        Self { seed, start: Instant::now(), lines: Mutex::default(), aloud }
    }

    /// Adds a line.
    pub fn note(&self, line: impl Into<String>) {
        let line = format!("{:>9.2?} {}", self.start.elapsed(), line.into());
        if self.aloud {
            eprintln!("{line}");
        }
        let mut lines = self.lines.lock().unwrap();
        lines.push(line);
        if lines.len() > 2 * KEPT {
            lines.drain(..KEPT);
        }
    }

    /// Adds the beginning of a round.
    pub fn round(&self, nth: usize, faults: &[Fault]) {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        self.note(format!("round {nth}: {}", faults.join(", ")));
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.lock().map(|lines| lines.join("\n")).unwrap_or_default();
            eprintln!("---- seed {}\n{lines}", self.seed);
        }
    }
}
