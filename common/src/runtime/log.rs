//! Logs through `tracing`, to stderr: text for people, JSON for programs, and with
//! journald's level prefixes when systemd reads them.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Compact, DefaultFields, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `level` is a level (`info`) or a `tracing` filter
/// (`info,register=debug`).
///
/// # Errors
/// When `level` is neither.
pub fn start_log(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = filter(level).map_err(|why| super::Usage(format!("--log-level: {why}")))?;
    // A reader of our standard error that goes away must not end anything: what the
    // subscriber says about its own trouble goes to the same place, and panics there.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
    // A second start, in tests, is not worth an error.
    let _ = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text if journal => log.with_ansi(false).event_format(Journal::new()).try_init(),
        LogFormat::Text => {
            log.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
        }
    };
    Ok(())
}

/// The libraries below that are of no use to an operator, however much is asked for.
const BELOW: &str = "h2=info,hyper=info,hyper_util=info,tower=info,rustls=info,reqwest=info";

fn filter(level: &str) -> Result<EnvFilter, String> {
    let word = level.trim().to_ascii_lowercase();
    let text = match word.as_str() {
        "error" | "warn" | "info" | "off" => word,
        "debug" | "trace" => format!("{word},{BELOW}"),
        // A bare word would be the name of a module, and silence all others.
        _ if !level.contains('=') => {
            return Err(format!("`{level}` is none of error, warn, info, debug, trace"));
        }
        _ => level.to_owned(),
    };
    EnvFilter::try_new(text).map_err(|error| format!("`{level}`: {error}"))
}

/// journald takes a line's level from a `<N>` in front (`sd-daemon(3)`) and adds
/// time and unit itself.
struct Journal(Format<Compact, ()>);

impl Journal {
    fn new() -> Self {
        Self(Format::default().compact().without_time().with_level(false).with_target(false))
    }
}

impl<S> FormatEvent<S, DefaultFields> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    DefaultFields: for<'w> FormatFields<'w>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{level}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_of_the_five_or_a_filter() {
        for level in ["error", "INFO", "debug", "trace", "off", "info,register=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["", "foo", "inof", "register=loud"] {
            assert!(filter(level).is_err_and(|why| why.contains(level)), "{level}");
        }
        assert!(filter("debug").unwrap().to_string().contains("h2=info"));
    }
}
