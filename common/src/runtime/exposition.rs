//! `/metrics`: OpenMetrics for clients that accept it, as Prometheus does; for all others the older
//! text format, which has neither units nor infos.

use hyper::Request;

use super::status_server::{DocumentSource, SharedDocument, StatusResponse, plain};

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of `source` in both formats, each rendered once for all clients.
#[derive(Debug)]
pub struct SharedMetrics<S> {
    open: SharedDocument<S>,
    plain: SharedDocument<S>,
}

impl<S: DocumentSource + Clone> SharedMetrics<S> {
    /// Nothing is rendered before the first request.
    pub fn new(source: S) -> Self {
        Self { open: SharedDocument::new(source.clone()), plain: SharedDocument::new(source) }
    }

    /// The answer that a scraper understands; `render` makes the OpenMetrics format.
    pub fn answer<B>(
        &self,
        request: &Request<B>,
        render: impl FnOnce(&S) -> String,
    ) -> StatusResponse {
        let accepted = request.headers().get_all("accept").iter();
        let open = accepted
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains("application/openmetrics-text"));
        if open {
            plain(200, OPEN, self.open.get(render))
        } else {
            plain(200, PLAIN, self.plain.get(|source| to_plain(&render(source))))
        }
    }
}

/// There the name of a counter or an info includes its ending, an info is a gauge, and
/// nothing marks the end.
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
        let Some((word, rest)) = comment else {
            if *line != "# EOF" {
                plain.push_str(line);
                plain.push('\n');
            }
            continue;
        };
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let (ending, text) = match (word, kind(name).as_deref()) {
            ("UNIT", _) => continue,
            ("TYPE", Some("info")) => ("_info", "gauge"),
            (_, Some("info")) => ("_info", text),
            (_, Some("counter")) => ("_total", text),
            _ => ("", text),
        };
        plain.push_str(&format!("# {word} {name}{ending} {text}\n"));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_TEXT: &str = "# HELP x_build What runs.\n# TYPE x_build info\n\
        x_build_info{version=\"1\"} 1\n# HELP x_loads Loads.\n# TYPE x_loads counter\n\
        x_loads_total{set=\"# a\"} 2\n# HELP x_up_seconds Up.\n# TYPE x_up_seconds gauge\n\
        # UNIT x_up_seconds seconds\nx_up_seconds 0.5\n# EOF\n";

    #[test]
    fn scrapers_that_do_not_ask_for_openmetrics_get_the_plain_format() {
        let ask = |accept: &str| {
            let request = Request::builder().header("accept", accept).body(());
            let metrics = SharedMetrics::new(tokio::sync::watch::channel(()).1);
            let answer = metrics.answer(&request.unwrap_or_default(), |_| OPEN_TEXT.to_owned());
            answer.headers().get("content-type").and_then(|t| t.to_str().ok()).map(str::to_owned)
        };
        assert_eq!(ask("*/*").as_deref(), Some(PLAIN));
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        assert_eq!(ask(prometheus).as_deref(), Some(OPEN));
        assert_eq!(
            to_plain(OPEN_TEXT),
            "# HELP x_build_info What runs.\n# TYPE x_build_info gauge\n\
             x_build_info{version=\"1\"} 1\n# HELP x_loads_total Loads.\n\
             # TYPE x_loads_total counter\nx_loads_total{set=\"# a\"} 2\n\
             # HELP x_up_seconds Up.\n# TYPE x_up_seconds gauge\nx_up_seconds 0.5\n"
        );
    }
}
