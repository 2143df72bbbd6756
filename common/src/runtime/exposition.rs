//! `/metrics`: OpenMetrics for scrapers that ask for it, as Prometheus does; the older text
//! format, which has neither units nor infos, for all others.

use hyper::Request;

use super::http::{StatusResponse, plain};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The answer in the format that the scraper understands; `text` is in the OpenMetrics format.
#[must_use]
pub fn metrics<B>(request: &Request<B>, text: String) -> StatusResponse {
    let accepted = request.headers().get_all("accept").iter();
    let open = accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"));
    if open { plain(200, OPENMETRICS, text) } else { plain(200, PLAIN, to_plain(&text)) }
}

/// In the older format the name of a counter or an info includes its suffix, an info is a
/// gauge, and nothing marks the end.
fn to_plain(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let kind = |name: &str| {
        let of = |line: &&str| {
            let (it, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            (it == name).then(|| kind.to_owned())
        };
        lines.iter().find_map(of)
    };
    let mut plain = String::new();
    for line in &lines {
        let comment = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        let Some((keyword, rest)) = comment else {
            if *line != "# EOF" {
                plain.push_str(line);
                plain.push('\n');
            }
            continue;
        };
        let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
        let (suffix, text) = match (keyword, kind(name).as_deref()) {
            ("UNIT", _) => continue,
            ("TYPE", Some("info")) => ("_info", "gauge"),
            (_, Some("info")) => ("_info", help),
            (_, Some("counter")) => ("_total", help),
            _ => ("", help),
        };
        plain.push_str(&format!("# {keyword} {name}{suffix} {text}\n"));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENMETRICS_TEXT: &str = "# HELP x_build What runs.\n# TYPE x_build info\n\
        x_build_info{version=\"1\"} 1\n# HELP x_loads Loads.\n# TYPE x_loads counter\n\
        x_loads_total{set=\"# a\"} 2\n# HELP x_up_seconds Up.\n# TYPE x_up_seconds gauge\n\
        # UNIT x_up_seconds seconds\nx_up_seconds 0.5\n# EOF\n";

    #[test]
    fn the_older_format_is_served_unless_openmetrics_is_asked_for() {
        let ask = |accept: &str| {
            let request = Request::builder().header("accept", accept).body(());
            let answer = metrics(&request.unwrap_or_default(), OPENMETRICS_TEXT.to_owned());
            answer.headers().get("content-type").and_then(|t| t.to_str().ok()).map(str::to_owned)
        };
        assert_eq!(ask("*/*").as_deref(), Some(PLAIN));
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(ask(prometheus).as_deref(), Some(OPENMETRICS));
        assert_eq!(
            to_plain(OPENMETRICS_TEXT),
            "# HELP x_build_info What runs.\n# TYPE x_build_info gauge\n\
             x_build_info{version=\"1\"} 1\n# HELP x_loads_total Loads.\n\
             # TYPE x_loads_total counter\nx_loads_total{set=\"# a\"} 2\n\
             # HELP x_up_seconds Up.\n# TYPE x_up_seconds gauge\nx_up_seconds 0.5\n"
        );
    }
}
