//! The pipeline with real files and commands. Time is what a step is given.

use std::time::Duration;

use super::*;
use crate::apply::ledger::FIRST_REST;
use crate::config::rendered::RenderedFile;
use crate::config::sample::SampleConfdir;
use crate::install::DestLock;
use crate::template::{Piece, RenderedText};

const KEYS: &str = "keys = [\"/services\"]\n";

async fn pipeline_with(sample: &SampleConfdir, limits: LoadLimits) -> Pipeline {
    let group = sample.group();
    let proxy = Proxy::of(&group, None, None).await.unwrap();
    let targets = group.targets();
    let mut locks = Vec::new();
    DestLock::take_all(&targets, &mut locks).unwrap();
    Pipeline::new(group.name, proxy, targets, locks, limits).unwrap()
}

async fn pipeline(sample: &SampleConfdir) -> Pipeline {
    pipeline_with(sample, LoadLimits::default()).await
}

fn want(pipeline: &mut Pipeline, sample: &SampleConfdir, text: &str, revision: u64) {
    let group = sample.group();
    let target = group.programs[0].resource.target.clone();
    let text = RenderedText { pieces: vec![Piece::Text(text.into())] };
    let file = RenderedFile { target, text, is_for_haproxy: false };
    pipeline.want_rendered(vec![file], Revision(revision), "a test".to_owned());
}

/// The next step, as if nothing had to be waited for.
async fn step(pipeline: &mut Pipeline) -> StepOutcome {
    pipeline.step(Instant::now() + Duration::from_secs(600)).await
}

fn is_failed(outcome: &StepOutcome) -> bool {
    matches!(outcome, StepOutcome::Failed(_))
}

fn is_rejected(outcome: &StepOutcome) -> bool {
    matches!(outcome, StepOutcome::Rejected(_))
}

#[tokio::test]
async fn what_is_wanted_is_installed_loaded_and_then_nothing_is_pending() {
    let sample = SampleConfdir::new(&format!("{KEYS}reload_cmd = \"true\"\n"), "");
    let mut pipeline = pipeline(&sample).await;
    assert_eq!(step(&mut pipeline).await, StepOutcome::Idle, "nothing is wanted");
    want(&mut pipeline, &sample, "one", 5);
    assert_eq!(pipeline.applied(), None);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    assert_eq!((sample.dest().as_deref(), pipeline.applied()), (Some("one"), Some(Revision(5))));
    assert_eq!(step(&mut pipeline).await, StepOutcome::Idle);
    // The same files at a later revision are applied without a step.
    want(&mut pipeline, &sample, "one", 6);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Idle);
    assert_eq!(pipeline.applied(), Some(Revision(6)));
    let status = pipeline.status();
    assert_eq!((status.counts.loads, status.loads.len(), status.trouble), (1, 1, None));
}

#[tokio::test]
async fn rejected_files_leave_those_that_work_and_are_tried_again_after_a_rest() {
    let toml = format!("{KEYS}check_cmd = \"grep -q good {{{{.src}}}}\"\nreload_cmd = \"true\"\n");
    let sample = SampleConfdir::new(&toml, "");
    let mut pipeline = pipeline(&sample).await;
    want(&mut pipeline, &sample, "good", 5);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    want(&mut pipeline, &sample, "bad", 6);
    let now = Instant::now();
    assert!(is_rejected(&pipeline.step(now).await));
    assert_eq!((sample.dest().as_deref(), pipeline.applied()), (Some("good"), None));
    assert_eq!(pipeline.step(now).await, StepOutcome::Idle, "it rests");
    assert!(is_rejected(&pipeline.step(now + 2 * FIRST_REST).await), "and is tried again");
    let status = pipeline.status();
    assert!(status.rejection.is_some() && status.trouble.unwrap().starts_with("rejected: "));
    assert_eq!((status.counts.refusals, status.counts.failures), (2, 0));
    // The operator asks.
    pipeline.try_again();
    assert!(is_rejected(&pipeline.step(Instant::now()).await));
    // What was rejected is not wanted any more: nothing has to be loaded.
    want(&mut pipeline, &sample, "good", 7);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Idle);
    assert_eq!((pipeline.applied(), pipeline.status().trouble), (Some(Revision(7)), None));
}

#[tokio::test]
async fn a_check_of_the_installed_files_puts_the_previous_ones_back() {
    let toml = format!("{KEYS}check_cmd = \"grep -q good FOLDER/app.conf\"\n");
    let sample = SampleConfdir::new(&toml, "");
    let mut pipeline = pipeline(&sample).await;
    want(&mut pipeline, &sample, "good", 5);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    want(&mut pipeline, &sample, "bad", 6);
    assert!(is_rejected(&step(&mut pipeline).await));
    assert_eq!(sample.dest().as_deref(), Some("good"));
    assert!(!pipeline.has_unproven_files());
}

#[tokio::test]
async fn a_failed_load_stays_pending_and_is_retried_with_a_pause() {
    let toml = format!("{KEYS}reload_cmd = \"test -e FOLDER/up\"\n");
    let sample = SampleConfdir::new(&toml, "");
    let mut pipeline = pipeline(&sample).await;
    want(&mut pipeline, &sample, "one", 5);
    let now = Instant::now();
    assert!(is_failed(&pipeline.step(now).await));
    assert_eq!((sample.dest().as_deref(), pipeline.applied()), (Some("one"), None));
    let PendingStep::NotBefore(first) = pipeline.pending(now) else { panic!("no pause") };
    assert_eq!(pipeline.step(now).await, StepOutcome::Idle);
    assert!(is_failed(&pipeline.step(first).await));
    let PendingStep::NotBefore(second) = pipeline.pending(first) else { panic!("no pause") };
    assert!(second > first);
    assert_eq!(pipeline.pending(second), PendingStep::Reload, "a limit delays, it never drops");
    sample.write("up", "");
    assert_eq!(pipeline.step(second).await, StepOutcome::Loaded);
    let status = pipeline.status();
    assert_eq!((status.counts.failures, status.counts.loads, status.trouble), (2, 1, None));
    let failed: Vec<bool> = status.loads.iter().map(|load| load.failed.is_some()).collect();
    assert_eq!(failed, [true, true, false]);
}

#[tokio::test]
async fn an_operator_who_asks_has_rejected_files_tried_again_at_once() {
    let sample = SampleConfdir::new(&format!("{KEYS}check_cmd = \"test -e FOLDER/good\"\n"), "");
    let mut pipeline = pipeline(&sample).await;
    want(&mut pipeline, &sample, "one", 5);
    assert!(is_rejected(&step(&mut pipeline).await));
    sample.write("good", "");
    let now = Instant::now();
    assert_eq!(pipeline.step(now).await, StepOutcome::Idle, "what was rejected rests");
    pipeline.try_again();
    assert_eq!(pipeline.step(now).await, StepOutcome::Loaded);
    assert_eq!((sample.dest().as_deref(), pipeline.status().rejection), (Some("one"), None));
}

#[tokio::test]
async fn files_that_are_wanted_as_they_are_in_place_are_loaded_and_not_written() {
    let sample = SampleConfdir::new(&format!("{KEYS}reload_cmd = \"touch FOLDER/loaded\"\n"), "");
    sample.write("app.conf", "of an earlier run");
    let mut pipeline = pipeline(&sample).await;
    pipeline.want_what_is_in_place();
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    assert_eq!(sample.dest().as_deref(), Some("of an earlier run"));
    assert!(sample.path("loaded").exists(), "the command was run");
    assert_eq!(step(&mut pipeline).await, StepOutcome::Idle);
}

#[tokio::test]
async fn the_minimum_interval_delays_the_second_load() {
    let sample = SampleConfdir::new(KEYS, "");
    let min_interval = Duration::from_secs(60);
    let limits = LoadLimits { min_interval, ..LoadLimits::default() };
    let mut pipeline = pipeline_with(&sample, limits).await;
    want(&mut pipeline, &sample, "one", 5);
    let now = Instant::now();
    assert_eq!(pipeline.step(now).await, StepOutcome::Loaded, "the first one waits for nothing");
    want(&mut pipeline, &sample, "two", 6);
    assert_eq!(pipeline.step(now).await, StepOutcome::Idle);
    assert_eq!(sample.dest().as_deref(), Some("one"));
    let PendingStep::NotBefore(until) = pipeline.pending(now) else { panic!("no pause") };
    assert!(until >= now + min_interval);
    assert_eq!(pipeline.step(until).await, StepOutcome::Loaded);
    assert_eq!(sample.dest().as_deref(), Some("two"));
}

#[tokio::test]
async fn splay_delays_each_change_after_the_first() {
    let sample = SampleConfdir::new(KEYS, "");
    let splay = Duration::from_secs(3600);
    let limits = LoadLimits { splay, ..LoadLimits::default() };
    let mut pipeline = pipeline_with(&sample, limits).await;
    want(&mut pipeline, &sample, "one", 5);
    let now = Instant::now();
    assert_eq!(pipeline.step(now).await, StepOutcome::Loaded, "the first one waits for nothing");
    want(&mut pipeline, &sample, "two", 6);
    let PendingStep::NotBefore(until) = pipeline.pending(now) else { panic!("not delayed") };
    // A further change is not delayed anew.
    want(&mut pipeline, &sample, "three", 7);
    assert_eq!(pipeline.pending(now), PendingStep::NotBefore(until));
    assert_eq!(pipeline.step(now).await, StepOutcome::Idle);
    assert_eq!(pipeline.step(now + splay).await, StepOutcome::Loaded);
    assert_eq!(sample.dest().as_deref(), Some("three"));
}

#[tokio::test]
async fn files_changed_by_somebody_else_are_written_again() {
    let sample = SampleConfdir::new(KEYS, "");
    let mut pipeline = pipeline(&sample).await;
    want(&mut pipeline, &sample, "one", 5);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    pipeline.look_at_files().await;
    assert_eq!(step(&mut pipeline).await, StepOutcome::Idle);
    sample.write("app.conf", "another hand");
    pipeline.look_at_files().await;
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    assert_eq!(sample.dest().as_deref(), Some("one"));
    assert_eq!(pipeline.status().cause, "changed by another process");
    // Again, and so soon: perhaps a command of ours did it, and will do it each time.
    sample.write("app.conf", "another hand");
    pipeline.look_at_files().await;
    let now = Instant::now();
    let PendingStep::NotBefore(until) = pipeline.pending(now) else { panic!("not delayed") };
    assert_eq!(pipeline.step(now).await, StepOutcome::Idle);
    assert_eq!(pipeline.step(until).await, StepOutcome::Loaded);
    // What is wanted anew is not delayed.
    sample.write("app.conf", "another hand");
    pipeline.look_at_files().await;
    want(&mut pipeline, &sample, "two", 6);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    assert_eq!(sample.dest().as_deref(), Some("two"));
}

#[tokio::test]
async fn files_that_an_earlier_run_left_unproven_are_tried_once_and_then_give_way() {
    let toml = format!("{KEYS}reload_cmd = \"grep -q good FOLDER/app.conf\"\n");
    let sample = SampleConfdir::new(&toml, "");
    let mut before = pipeline(&sample).await;
    want(&mut before, &sample, "good, but old", 4);
    assert_eq!(step(&mut before).await, StepOutcome::Loaded);
    want(&mut before, &sample, "left behind", 5);
    assert!(is_failed(&step(&mut before).await));
    drop(before);
    let mut pipeline = pipeline(&sample).await;
    assert!(pipeline.has_unproven_files());
    want(&mut pipeline, &sample, "good", 6);
    assert!(is_failed(&step(&mut pipeline).await), "the files of the earlier run");
    assert_eq!(sample.dest().as_deref(), Some("left behind"));
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    assert_eq!(sample.dest().as_deref(), Some("good"));
}

#[tokio::test]
async fn a_drain_is_complete_only_after_the_time_that_old_requests_may_take() {
    let toml = format!("{KEYS}reload_cmd = \"true\"\nquiesce_after = \"30s\"\n");
    let sample = SampleConfdir::new(&toml, "");
    let mut pipeline = pipeline(&sample).await;
    want(&mut pipeline, &sample, "one", 5);
    assert_eq!(step(&mut pipeline).await, StepOutcome::Loaded);
    let now = Instant::now();
    assert_eq!(pipeline.quiesced(now), Revision::default());
    assert_eq!(pipeline.status().old_generations, 1);
    assert_eq!(pipeline.quiesced(now + Duration::from_secs(31)), Revision(5));
    pipeline.forget_revisions();
    want(&mut pipeline, &sample, "one", 2);
    assert_eq!(pipeline.quiesced(now + Duration::from_secs(31)), Revision(2), "etcd regressed");
}
