//! `register probe`: every probe once, now; one line each.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ArgMatches;
use common::model::format_span;
use common::runtime::{Exit, Usage, print, print_error};
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::setup::sources;
use crate::config::{Service, prepare};
use crate::probe::{Probe, Verdict};

/// Asks the backends once.
///
/// # Errors
/// Wrong usage.
pub(super) async fn probe(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let config = sources(matches).load().map_err(Usage::from)?;
    for note in &config.notes {
        print_error(format_args!("note: {note}"));
    }
    let probes = prepare(&config.services).map_err(Usage::from)?;
    let lines = ask(&config.services, &probes).await;
    print(render(&lines));
    Ok(if healthy(&lines) { Exit::Done } else { Exit::Failed })
}

/// How many probes are asked side by side.
const AT_ONCE: usize = 32;

/// What one probe found.
#[derive(Debug)]
struct ProbeLine {
    /// The service's key.
    key: String,
    /// The check, as it can be written after `--check`.
    check: String,
    /// Its answer.
    verdict: Verdict,
    /// How long it took.
    took: Duration,
}

/// Asks every probe once. `probes` are those of `services`, in the same order, and
/// so are the lines.
async fn ask(services: &[Service], probes: &[Vec<Probe>]) -> Vec<ProbeLine> {
    let pairs = services.iter().zip(probes);
    let all = pairs.flat_map(|(service, probes)| probes.iter().map(move |p| one(service, p)));
    stream::iter(all).buffered(AT_ONCE).collect().await
}

async fn one(service: &Service, probe: &Probe) -> ProbeLine {
    let began = Instant::now();
    let verdict = probe.ask().await;
    let key = service.target.key.to_string();
    ProbeLine { key, check: probe.to_string(), verdict, took: began.elapsed() }
}

/// Whether all of them passed. Exit code 0, else 1.
fn healthy(lines: &[ProbeLine]) -> bool {
    lines.iter().all(|line| line.verdict.passed())
}

/// One line a probe.
fn render(lines: &[ProbeLine]) -> String {
    let mut text = String::new();
    for ProbeLine { key, check, verdict, took } in lines {
        let took = format_span(*took);
        // Writing into a text cannot fail.
        let _ = match verdict {
            Verdict::Pass => writeln!(text, "pass  {key}  {check}  ({took})"),
            Verdict::Fail(why) => writeln!(text, "FAIL  {key}  {check}  ({took}): {why}"),
            Verdict::NotMade(why) => writeln!(text, "????  {key}  {check}  not made: {why}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RegistrationTarget;
    use crate::health::HealthPolicy;
    use crate::probe::{Check, HttpOptions};
    use std::num::NonZeroU32;

    fn service(checks: &[&str]) -> Service {
        let addr = "127.0.0.1:1".parse().unwrap();
        let parse = |text: &&str| Check::parse(text, &addr, &HttpOptions::default()).unwrap();
        Service {
            checks: checks.iter().map(parse).collect(),
            value: addr.to_string(),
            target: RegistrationTarget {
                service: "a".into(),
                key: "/services/a/1".parse().unwrap(),
                addr: addr.clone(),
            },
            timeout: Duration::from_secs(2),
            policy: HealthPolicy {
                rise: NonZeroU32::MIN,
                fall: NonZeroU32::MIN,
                interval: Duration::from_secs(5),
                fast: Duration::from_secs(1),
                grace: Duration::ZERO,
            },
        }
    }

    #[tokio::test]
    async fn one_line_a_probe_and_one_failure_is_enough() {
        let services = [service(&["none", "exec:false"]), service(&["none"])];
        let lines = ask(&services, &prepare(&services).unwrap()).await;
        assert!(!healthy(&lines) && healthy(&lines[2..]));
        let text = render(&lines);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("pass  /services/a/1  none  ("), "{text}");
        assert!(lines[1].starts_with("FAIL  /services/a/1  exec:false  ("), "{text}");
        assert!(lines[1].ends_with("): exit code 1") && lines.len() == 3, "{text}");
    }

    #[test]
    fn everything_that_is_not_ready_is_reported_at_once() {
        let services = [service(&["exec:no-such-1"]), service(&["exec:no-such-2", "none"])];
        let message = prepare(&services).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 2, "{message}");
        assert!(message.starts_with("/services/a/1, `exec:no-such-1`: there is no"), "{message}");
    }
}
