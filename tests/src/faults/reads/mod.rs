//! Readers of etcd that use our own client while the faults go on, and a judge of what they saw.
//!
//! * [`truth`] is what was written, by the members themselves; pure.
//! * [`check`] judges a history by the truth; pure, and tested with broken histories.
//! * `record` are the readers: one follows one tree as a daemon does, one several trees (which
//!   are read again at each change), one is a bare watch that begins again when it ends.
//!
//! With `FAULTS_HISTORY=FILE` the whole history is written there, one JSON object a line.

pub mod check;
mod record;
pub mod truth;

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::check::{Checker, Observation};
use self::record::{Notebook, Seens};
use self::truth::{Truth, Write};
use crate::etcd::{Api, Etcd};
use crate::eventually::{check, eventually, patience};
use crate::link::Link;

/// All that is watched for the truth; the marker is in it, and in no reader's tree.
const BELOW: &str = "/services";
const MARKER: &str = "/services/marker/history";
const TREE: &str = "/services/apache";
const ANOTHER: &str = "/services/other";

/// How long a reader may stay behind when everything has calmed down, and between two looks.
const BEHIND: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// The readers and their judge.
pub struct Readers {
    truth: Arc<Mutex<Truth>>,
    seens: Seens,
    checker: Checker,
    file: Option<File>,
    _tasks: JoinSet<()>,
    /// What was judged so far.
    pub judged: usize,
}

/// A line of the file.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'l> {
    Written(&'l Write),
    Seen(&'l Observation),
}

impl Readers {
    /// Starts to read, through the lines, and to learn the truth, from the members.
    ///
    /// # Panics
    /// When etcd does not answer: there is no fault yet.
    pub async fn start(members: &[Etcd], lines: &[Link]) -> Self {
        let first = members.first().expect("a member").url();
        let truth = Arc::new(Mutex::new(record::first_truth(&first, BELOW).await));
        let seens = Seens::default();
        let mut tasks = JoinSet::new();
        for member in members {
            tasks.spawn(record::follow_truth(member.url(), BELOW.to_owned(), Arc::clone(&truth)));
        }
        let endpoints = || lines.iter().map(Link::url).collect();
        for (name, trees) in [("one tree", &[TREE][..]), ("several trees", &[TREE, ANOTHER])] {
            let store = record::connect(endpoints()).await;
            tasks.spawn(record::pictures(store, Notebook::new(name, trees, &seens)));
        }
        let store = record::connect(endpoints()).await;
        tasks.spawn(record::events(store, Notebook::new("a bare watch", &[TREE], &seens)));
        let file = std::env::var_os("FAULTS_HISTORY");
        let file = file.map(|path| File::create(path).expect("the file FAULTS_HISTORY"));
        Self { truth, seens, checker: Checker::default(), file, _tasks: tasks, judged: 0 }
    }

    /// Judges what was seen since the last time, when everything has calmed down, until every
    /// reader knows the last write.
    ///
    /// # Panics
    /// At the first observation that cannot be, or when a reader stays behind.
    pub async fn judge(&mut self, members: &[Etcd]) {
        let until = Instant::now() + patience(BEHIND);
        loop {
            let seens = std::mem::take(&mut *self.seens.lock().unwrap());
            // Written after all of that was seen: with it, the truth has all that was written before.
            let known = self.mark(members).await;
            for seen in &seens {
                self.judge_one(seen).unwrap_or_else(|why| panic!("{why}"));
            }
            self.forget(known);
            let settled = self.checker.settled(&self.truth.lock().unwrap());
            match settled {
                Ok(()) => return,
                Err(why) if Instant::now() > until => panic!("{why}"),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn judge_one(&mut self, seen: &Observation) -> Result<(), String> {
        self.judged += 1;
        self.write(&Line::Seen(seen));
        self.checker.judge(&self.truth.lock().unwrap(), seen)
    }

    /// Writes the marker, and waits until the truth has it; the revision of that.
    async fn mark(&self, members: &[Etcd]) -> u64 {
        let value = fastrand::u64(..).to_string();
        let ctl = members.first().expect("a member").ctl(Api::V3);
        // One that failed may have been written all the same, which the next one repairs.
        let put = ["put", "--", MARKER, &value];
        eventually("the marker is written", || ctl.attempt(&put)).await;
        eventually("the truth has the marker", || async {
            let truth = self.truth.lock().unwrap();
            let marks = truth.at(u64::MAX, &[MARKER.to_owned()]).unwrap_or_default();
            check(marks.get(MARKER) == Some(&value), || format!("{marks:?}"))
        })
        .await;
        self.truth.lock().unwrap().newest()
    }

    fn forget(&mut self, known: u64) {
        let truth = Arc::clone(&self.truth);
        let mut truth = truth.lock().unwrap();
        let oldest = self.checker.oldest().min(known);
        let all = [BELOW.to_owned()];
        let forgotten: Vec<Write> =
            truth.after(0, &all).take_while(|write| write.revision <= oldest).cloned().collect();
        truth.forget(oldest);
        drop(truth);
        forgotten.iter().for_each(|write| self.write(&Line::Written(write)));
    }

    fn write(&mut self, line: &Line<'_>) {
        if let Some(file) = &mut self.file {
            let line = serde_json::to_string(line).expect("JSON");
            writeln!(file, "{line}").expect("the file FAULTS_HISTORY");
        }
    }
}
