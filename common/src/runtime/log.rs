//! Logs through `tracing`, to stderr: text for people, JSON for programs, and with
//! journald's level prefixes when systemd reads them.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
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
    let filter = filter(level)?;
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

/// A lone word that is no level would be taken for the name of a module, and the log
/// would be silent.
fn filter(level: &str) -> Result<EnvFilter, super::Usage> {
    let wrong = |why: &str| super::Usage(format!("--log-level `{}`: {why}", level.escape_debug()));
    for part in level.split(',').map(str::trim) {
        if !part.contains('=') && part.parse::<LevelFilter>().is_err() {
            return Err(wrong("write error, warn, info, debug or trace"));
        }
    }
    let filter = EnvFilter::try_new(level).map_err(|e| wrong(&e.to_string()))?;
    // What it says is said again, with more sense, by whoever made the connection.
    Ok(match "rustls_platform_verifier=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    })
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
    use super::filter;

    #[test]
    fn a_word_that_is_no_level_does_not_silence_the_log() {
        for level in ["info", "WARN", "off", "info,register=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["warning", "nonsense", "info,loud"] {
            let said = filter(level).unwrap_err().to_string();
            assert!(said.contains("write error, warn, info"), "{level}: {said}");
        }
    }
}
