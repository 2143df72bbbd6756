//! What is logged, and how.

use std::str::FromStr;

use tracing_subscriber::filter::Targets;

use super::{Environment, Group, Layer, Mistakes, Reader};
use crate::runtime::{LogFormat, log_filter};

crate::settings! {
    FORMAT: "log_format", "LOG_FORMAT", "FORMAT", "Format of the log lines"
        .choices(&["text", "json"]).default("text");
    LEVEL: "log_level", "LOG_LEVEL", "LEVEL",
        "Lowest level that is logged: error, warn, info, debug, trace".default("info");
}

/// How the log is written.
#[derive(Debug)]
pub struct LogSettings {
    /// The form of its lines.
    pub format: LogFormat,
    /// What is logged at all.
    pub filter: Targets,
}

/// Both.
pub static GROUP: Group = Group { heading: "Log", settings: &[&FORMAT, &LEVEL] };

/// How the log is written, by flags, environment and what is `below` them (a file).
///
/// # Errors
/// All mistakes at once.
pub fn read(
    matches: &clap::ArgMatches,
    environment: Environment<'_>,
    below: &Layer,
) -> Result<LogSettings, Mistakes> {
    let layer = Layer::from_matches(matches, GROUP.settings, environment).over(below);
    let mut mistakes = Mistakes::default();
    let mut from = Reader::new(&layer, "", &mut mistakes);
    let format = from.get(&FORMAT, LogFormat::from_str).unwrap_or(LogFormat::Text);
    let filter = from.get(&LEVEL, log_filter).unwrap_or_default();
    mistakes.none_or(LogSettings { format, filter })
}
