//! Logs through `tracing`, to stderr: text for people, JSON for programs, and with
//! journald's level prefixes when systemd reads them. An event is one line, also where it quotes
//! a program that writes several.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{Compact, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("write text or json"),
        }
    }
}

/// Starts the log with what [`log_filter`] lets through.
pub fn start_log(format: LogFormat, filter: Targets) {
    // A closed stderr must not end anything: the subscriber reports its own errors to the
    // same place, and panics there.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let log = tracing_subscriber::registry();
    let terminal = std::io::stderr().is_terminal();
    let journal = std::env::var_os("JOURNAL_STREAM").is_some() && !terminal;
    // A second start, in tests, is not worth an error.
    let _ = match format {
        LogFormat::Json => log.with(lines.json().flatten_event(true)).with(filter).try_init(),
        LogFormat::Text if journal => {
            let lines = lines.with_ansi(false).fmt_fields(Logfmt).event_format(Journal::new());
            log.with(lines).with(filter).try_init()
        }
        LogFormat::Text => {
            let format = Terminal::new(terminal);
            let lines = lines.with_ansi(terminal).fmt_fields(Logfmt).event_format(format);
            log.with(lines).with(filter).try_init()
        }
    };
}

/// Libraries whose details are of no use to an operator, whatever level is asked for. What the
/// first of them logs is reported by the maker of the connection, with the endpoint.
const LIBRARIES: [(&str, LevelFilter); 7] = [
    ("rustls_platform_verifier", LevelFilter::OFF),
    ("h2", LevelFilter::INFO),
    ("hyper", LevelFilter::INFO),
    ("hyper_util", LevelFilter::INFO),
    ("reqwest", LevelFilter::INFO),
    ("rustls", LevelFilter::INFO),
    ("tower", LevelFilter::INFO),
];

/// The target of what is logged at each wake-up, if the level is `trace`. Its events have the level
/// `debug`: those of the level `trace`, thousands in the libraries, are not part of a release.
pub const STEPS: &str = "steps";

/// What is logged with a level (`info`), or one for each part of the program
/// (`info,register=debug`).
///
/// Not `EnvFilter`: its further features are about spans, of which there are none here, and it
/// brings regular expressions into a program that has to be small.
///
/// # Errors
/// What is no level, and what to write.
pub fn log_filter(level: &str) -> Result<Targets, String> {
    // `Targets` takes a single name for a target, and would log nothing else.
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    let part = |part: &str| part.contains('=') || is_level(part);
    let level = level.replace(' ', "");
    if let Some(text) = level.split(',').find(|text| !part(text)) {
        return Err(format!(
            "`{text}` is not a level; write error, warn, info, debug, trace or off, or levels by \
             part such as `info,register=debug`"
        ));
    }
    let asked: Targets =
        level.parse().map_err(|e: tracing_subscriber::filter::ParseError| e.to_string())?;
    // A library asked for by name is left as asked; none logs more than the rest.
    let most = asked.default_level().unwrap_or(LevelFilter::OFF);
    let named: Vec<String> = asked.iter().map(|(name, _)| name.to_owned()).collect();
    let quiet = LIBRARIES.into_iter().filter(|(name, _)| !named.iter().any(|n| n == name));
    let traced =
        most == LevelFilter::TRACE || asked.iter().any(|(_, level)| level == LevelFilter::TRACE);
    let steps = if traced { LevelFilter::DEBUG } else { LevelFilter::INFO.min(most) };
    let steps = Some((STEPS, steps)).filter(|(name, _)| !named.iter().any(|n| n == name));
    Ok(asked.with_targets(quiet.map(|(name, least)| (name, least.min(most))).chain(steps)))
}

/// The message, then `name=value`: a value in quotes where a reader could not see its end.
struct Logfmt;

impl<'writer> FormatFields<'writer> for Logfmt {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = LogfmtLine { writer, is_first: true, outcome: Ok(()) };
        fields.record(&mut line);
        line.outcome
    }
}

struct LogfmtLine<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    outcome: fmt::Result,
}

impl Visit for LogfmtLine<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let gap = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let text = format!("{value:?}");
        let written = match field.name() {
            "message" => write!(self.writer, "{gap}{text}"),
            name => write!(self.writer, "{gap}{name}={}", quoted(&text)),
        };
        self.outcome = self.outcome.and(written);
    }
}

/// A text is in quotes already; what is printed as it is may need them.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && c != '"' && c != '=';
    match text.starts_with('"') || !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

/// With time and level, and colours on a terminal.
struct Terminal(Format<Full>);

impl Terminal {
    fn new(colours: bool) -> Self {
        Self(Format::default().with_target(false).with_ansi(colours))
    }
}

impl<S> FormatEvent<S, Logfmt> for Terminal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Logfmt>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        writeln!(writer, "{}", on_one_line(&text))
    }
}

/// The lines of a text one after the other, each once: nginx tries five times to bind.
fn on_one_line(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !parts.contains(&line) {
            parts.push(line);
        }
    }
    parts.join(" | ").replace(": | ", ": ")
}

/// journald takes a line's level from a `<N>` in front (`sd-daemon(3)`) and adds
/// time and unit itself.
struct Journal(Format<Compact, ()>);

impl Journal {
    fn new() -> Self {
        Self(Format::default().compact().without_time().with_level(false).with_target(false))
    }
}

impl<S> FormatEvent<S, Logfmt> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Logfmt>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        writeln!(writer, "<{level}>{}", on_one_line(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_quotes_where_its_end_could_not_be_seen() {
        for (text, printed) in [
            ("12ms", "12ms"),
            ("\"web\"", "\"web\""),
            ("", "\"\""),
            ("Permission denied", "\"Permission denied\""),
            ("a=b", "\"a=b\""),
        ] {
            assert_eq!(quoted(text), printed);
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let text = "INFO refused: nginx: no\nstill no\n\nstill no\n set=\"web\"\n";
        assert_eq!(on_one_line(text), "INFO refused: nginx: no | still no | set=\"web\"");
        assert_eq!(on_one_line("INFO ready\n"), "INFO ready");
        assert_eq!(on_one_line("WARN kept:\na: no\nb: no\n"), "WARN kept: a: no | b: no");
    }

    #[test]
    fn a_level_or_one_for_each_part() {
        let logged = |text: &str, target: &str| {
            let filter = log_filter(text).unwrap();
            [Level::WARN, Level::INFO, Level::DEBUG]
                .map(|level| filter.would_enable(target, &level))
        };
        assert_eq!(logged("info", "register::claim"), [true, true, false]);
        assert_eq!(logged("WARN,register=debug", "register::claim"), [true, true, true]);
        assert_eq!(logged("warn, register=info", "register"), [true, true, false]);
        assert_eq!(logged("off", "register"), [false; 3]);
        assert_eq!(logged("debug", "h2::client"), [true, true, false]);
        assert_eq!(logged("warn", "h2"), [true, false, false]);
        assert_eq!(logged("debug,h2=debug", "h2"), [true, true, true]);
        assert_eq!(logged("debug", STEPS), [true, true, false]);
        assert_eq!(logged("error", STEPS), [false; 3]);
        assert_eq!(logged("trace", STEPS), [true, true, true]);
        assert_eq!(logged("info,register=trace", STEPS), [true, true, true]);
        assert_eq!(logged("info,steps=debug", STEPS), [true, true, true]);
        for mistake in ["", "verbose", "info,hyper", "register=loud"] {
            assert!(log_filter(mistake).is_err(), "{mistake}");
        }
    }
}
