//! `register check`: every probe once, now; one line each.

use std::fmt::Write as _;
use std::time::Duration;

use common::model::format_span;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::config::{Service, UsageError, UsageErrors};
use crate::probe::{Probe, Verdict};

/// What one probe found.
#[derive(Debug)]
pub struct Line {
    /// The service's key.
    pub key: String,
    /// The check, as it can be written after `--check`.
    pub check: String,
    /// Its answer.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// Makes the probes of all services ready.
///
/// # Errors
/// Everything that an operator has to put right: certificates, commands.
pub fn prepare(services: &[Service]) -> Result<Vec<(&Service, Vec<Probe>)>, UsageErrors> {
    let mut ready = Vec::new();
    let mut wrong = Vec::new();
    for service in services {
        match service.probes() {
            Ok(probes) => ready.push((service, probes)),
            Err(problems) => wrong.extend(
                problems.into_iter().map(|problem| UsageError { place: "--check".into(), problem }),
            ),
        }
    }
    if wrong.is_empty() { Ok(ready) } else { Err(UsageErrors(wrong)) }
}

/// Asks every probe once, one service after the other.
pub async fn ask(services: &[(&Service, Vec<Probe>)]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (service, probes) in services {
        lines.extend(join_all(probes.iter().map(|probe| one(service, probe))).await);
    }
    lines
}

async fn one(service: &Service, probe: &Probe) -> Line {
    let began = Instant::now();
    let verdict = probe.ask().await;
    let key = service.target.key.to_string();
    Line { key, check: probe.to_string(), verdict, took: began.elapsed() }
}

/// Whether all of them passed. Exit code 0, else 1.
#[must_use]
pub fn healthy(lines: &[Line]) -> bool {
    lines.iter().all(|line| line.verdict.passed())
}

/// One line a probe.
#[must_use]
pub fn render(lines: &[Line]) -> String {
    let mut text = String::new();
    for Line { key, check, verdict, took } in lines {
        let took = format_span(*took);
        // Writing into a text cannot fail.
        let _ = match verdict {
            Verdict::Pass => writeln!(text, "pass  {key}  {check}  ({took})"),
            Verdict::Fail(why) => writeln!(text, "FAIL  {key}  {check}  ({took}): {why}"),
        };
    }
    text
}
