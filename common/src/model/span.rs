//! Time spans as people write them in flags and TOML: `500ms`, `30s`, `2m`; `10` is
//! ten seconds, everywhere.

use std::time::Duration;

/// Why a text is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a time span; write `500ms`, `30s`, `2m`, or a number of seconds", .0.escape_debug())]
pub struct SpanError(String);

/// Reads a span; a number without a unit is in seconds, as confd and most tools have it.
///
/// # Errors
/// With the text, cut to 40 characters.
pub fn parse_span(text: &str) -> Result<Duration, SpanError> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).map_err(|_| SpanError(text.chars().take(40).collect()))
}

/// The span for a person, with three digits: `1.24s` rather than `1s 238ms 114us`.
pub fn format_span(span: Duration) -> String {
    let ms = span.as_millis();
    match ms {
        0 if span.is_zero() => "0s".to_owned(),
        0 => format!("{}us", span.as_micros()),
        1..1_000 => format!("{ms}ms"),
        1_000..10_000 => {
            let text = format!("{:.2}", span.as_secs_f64());
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        10_000..120_000 => format!("{}s", span.as_secs()),
        _ => humantime::format_duration(Duration::from_secs(span.as_secs())).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_in_seconds() {
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_span("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_span(" 10 "), Ok(Duration::from_secs(10)));
        assert!(parse_span("10 apples").unwrap_err().to_string().contains("30s"));
        assert!(parse_span("1.5").is_err());
        assert!(parse_span("").is_err());
        assert!(parse_span("-1s").is_err());
    }

    #[test]
    fn printed_for_people() {
        for (ms, text) in [
            (0, "0s"),
            (40, "40ms"),
            (1_240, "1.24s"),
            (3_000, "3s"),
            (61_000, "61s"),
            (180_000, "3m"),
        ] {
            assert_eq!(format_span(Duration::from_millis(ms)), text);
        }
    }
}
