//! What is logged, and how.

use std::str::FromStr;

use super::{Environment, Group, Layer, Mistakes, Reader};
use crate::runtime::{LogFormat, valid_level};

crate::settings! {
    FORMAT: "log_format", "LOG_FORMAT", "FORMAT", "Format of the log lines"
        .choices(&["text", "json"]).default("text");
    LEVEL: "log_level", "LOG_LEVEL", "LEVEL",
        "Lowest level that is logged: error, warn, info, debug, trace".default("info");
}

/// Both.
pub static GROUP: Group = Group { heading: "Log", settings: &[&FORMAT, &LEVEL] };

/// Form and least level, by flags, environment and what is `below` them (a file).
///
/// # Errors
/// All mistakes at once.
pub fn read(
    matches: &clap::ArgMatches,
    environment: Environment<'_>,
    below: &Layer,
) -> Result<(LogFormat, String), Mistakes> {
    let layer = Layer::from_matches(matches, GROUP.settings, environment).over(below);
    let mut mistakes = Mistakes::default();
    let mut from = Reader::new(&layer, "", &mut mistakes);
    let format = from.get(&FORMAT, LogFormat::from_str).unwrap_or(LogFormat::Text);
    let level = from.get(&LEVEL, valid_level).unwrap_or_default();
    mistakes.none_or((format, level))
}
