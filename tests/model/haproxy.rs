//! HAProxy's driver, explored to its end: a backend leaves while requests come and go, somebody
//! else reloads HAProxy at any moment (its new worker reads the file, the old one finishes), and
//! confsync may die between any two steps, or its commands meet another worker than it thinks.
//!
//! What the driver does is that of `confsync/src/proxy/haproxy/runtime.rs` and of the pipeline
//! around it, step by step. A rule broken on purpose must be detected: [`HaproxyRule`].

use crate::exhaustive::{self, Explore};

/// A worker that serves, and those before it.
const WORKERS: usize = 3;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HaproxyRule {
    /// It counts as applied before the file says it.
    AppliedBeforeWritten,
    /// It is not looked for a reload that came before the file was written.
    ReloadMissed,
    /// After a reload the requests of the worker of before are forgotten.
    OldWorkerForgotten,
    /// The member is not taken out: only the file is written.
    NothingPublished,
}

/// The leaver in one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct WorkerView {
    /// It gets new requests, if the worker takes any.
    ready: bool,
    /// It has one.
    busy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// Asks which worker serves.
    Ask,
    /// Takes the server out; whoever serves now gets the command.
    TakeOut { asked: usize },
    /// Reads what the worker that serves has.
    Read { asked: usize },
    /// Asks again which worker serves.
    AskAgain { asked: usize, out: bool },
    /// Writes the file.
    Write { confirmed: usize },
    /// Looks whether somebody reloaded before it was written.
    LookAgain { confirmed: usize },
    /// Waits for the requests; `gone` is the worker that the server was taken out of.
    Count { gone: usize },
    /// The drain is over, and the leaver is dead.
    Acknowledged,
    /// confsync has died; the next one reloads.
    Dead,
    /// The next one has written the file, and reloads.
    Reload,
    /// It waits for the workers of before this one.
    WaitForOld { before: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Moment {
    workers: [WorkerView; WORKERS],
    /// The one that takes connections.
    serving: usize,
    /// The file has the leaver.
    in_file: bool,
    step: Step,
    /// It was acknowledged that new requests go elsewhere.
    applied: bool,
    died: bool,
}

struct Haproxy {
    broken: Option<HaproxyRule>,
}

impl Haproxy {
    fn breaks(&self, rule: HaproxyRule) -> bool {
        self.broken == Some(rule)
    }

    /// Somebody, or we, reload: the new worker reads the file.
    fn reloaded(moment: &Moment) -> Option<Moment> {
        let mut next = moment.clone();
        next.serving += 1;
        let worker = next.workers.get_mut(next.serving)?;
        *worker = WorkerView { ready: moment.in_file, busy: false };
        Some(next)
    }

    /// What confsync does next.
    fn work(&self, moment: &Moment) -> (String, Moment) {
        let mut next = moment.clone();
        let serving = moment.serving;
        next.step = match moment.step {
            Step::Ask if self.breaks(HaproxyRule::NothingPublished) => {
                Step::Write { confirmed: serving }
            }
            Step::Ask => Step::TakeOut { asked: serving },
            Step::TakeOut { asked } => {
                next.workers[serving].ready = false;
                Step::Read { asked }
            }
            Step::Read { asked } => Step::AskAgain { asked, out: !moment.workers[serving].ready },
            Step::AskAgain { asked, out } => {
                let same = asked == serving;
                // Broken: it is reported before the file is written.
                next.applied = out && same && self.breaks(HaproxyRule::AppliedBeforeWritten);
                if out && same { Step::Write { confirmed: asked } } else { Step::Ask }
            }
            Step::Write { confirmed } => {
                next.in_file = false;
                Step::LookAgain { confirmed }
            }
            Step::LookAgain { confirmed }
                if confirmed != serving && !self.breaks(HaproxyRule::ReloadMissed) =>
            {
                Step::Ask
            }
            Step::LookAgain { confirmed } => {
                next.applied = true;
                Step::Count { gone: confirmed }
            }
            Step::Count { gone } => self.count(moment, gone),
            Step::Dead => {
                next.in_file = false;
                Step::Reload
            }
            Step::Reload => match Self::reloaded(moment) {
                Some(new) => {
                    next = new;
                    next.applied = true;
                    Step::WaitForOld { before: next.serving }
                }
                None => Step::Reload,
            },
            Step::WaitForOld { before } => {
                let busy = moment.workers.iter().take(before).any(|worker| worker.busy);
                if busy { moment.step } else { Step::Acknowledged }
            }
            Step::Acknowledged => Step::Acknowledged,
        };
        (format!("confsync: {:?}", moment.step), next)
    }

    /// The requests of the worker that the server was taken out of: its count while it serves,
    /// its end afterwards. What workers before it have was waited for when they were retired.
    fn count(&self, moment: &Moment, gone: usize) -> Step {
        let is_old = gone != moment.serving;
        if is_old && self.breaks(HaproxyRule::OldWorkerForgotten) {
            return Step::Acknowledged;
        }
        let busy = moment.workers.iter().take(gone + 1).any(|worker| worker.busy);
        if busy { moment.step } else { Step::Acknowledged }
    }
}

impl Explore for Haproxy {
    type Moment = Moment;

    fn steps(&mut self, moment: &Moment) -> Vec<(String, Moment)> {
        let mut steps = Vec::new();
        for (number, worker) in moment.workers.iter().enumerate() {
            let mut next = moment.clone();
            if worker.busy {
                next.workers[number].busy = false;
                steps.push((format!("worker {number}: the leaver has answered"), next));
            } else if number == moment.serving && worker.ready {
                next.workers[number].busy = true;
                steps.push((format!("worker {number}: a request goes to the leaver"), next));
            }
        }
        // One place is kept for the reload of the next confsync.
        if moment.serving + 2 < WORKERS
            && let Some(next) = Self::reloaded(moment)
        {
            steps.push(("somebody reloads HAProxy".to_owned(), next));
        }
        steps.push(self.work(moment));
        let works = !matches!(
            moment.step,
            Step::Dead | Step::Reload | Step::WaitForOld { .. } | Step::Acknowledged
        );
        if works && !moment.died {
            let next = Moment { died: true, step: Step::Dead, ..moment.clone() };
            steps.push(("confsync dies".to_owned(), next));
        }
        steps
    }

    fn judge(&self, moment: &Moment) -> Result<(), String> {
        let dead = moment.step == Step::Acknowledged;
        if dead && moment.workers.iter().any(|worker| worker.busy) {
            return Err("the leaver is dead, and has a request".to_owned());
        }
        if moment.applied && moment.workers[moment.serving].ready {
            return Err("it is applied, and new requests go to the leaver".to_owned());
        }
        Ok(())
    }

    fn has_ended(&self, moment: &Moment) -> bool {
        moment.step == Step::Acknowledged
    }
}

fn explore(broken: Option<HaproxyRule>) -> Result<usize, String> {
    let mut workers = [WorkerView { ready: false, busy: false }; WORKERS];
    workers[0].ready = true;
    let (serving, in_file, applied, died) = (0, true, false, false);
    let first = Moment { workers, serving, in_file, step: Step::Ask, applied, died };
    exhaustive::explore(Haproxy { broken }, first)
}

#[track_caller]
fn is_detected(rule: HaproxyRule) {
    match explore(Some(rule)) {
        Ok(moments) => panic!("{rule:?} is broken, and {moments} moments show nothing"),
        Err(why) => {
            println!("{rule:?}: {why}");
            assert!(why.starts_with("the leaver is dead") || why.starts_with("it is applied"));
        }
    }
}

#[test]
fn no_backend_ends_with_a_request_and_applied_stays_applied() {
    let moments = explore(None).unwrap();
    println!("{moments} moments");
    assert!(moments > 100, "{moments} moments are too few to mean anything");
}

#[test]
fn every_rule_is_needed() {
    for rule in [
        HaproxyRule::AppliedBeforeWritten,
        HaproxyRule::ReloadMissed,
        HaproxyRule::OldWorkerForgotten,
        HaproxyRule::NothingPublished,
    ] {
        is_detected(rule);
    }
}
