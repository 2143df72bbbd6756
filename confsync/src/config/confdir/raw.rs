//! The contents of a resource file: TOML as people write it for confd and its fork.
//!
//! Keys match in any case, because confd's TOML library does that. Types are as loose as in confd;
//! `resource` interprets them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A resource file.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ResourceFile {
    pub template: Option<RawTemplate>,
    pub nginx: Option<RawNginx>,
    pub haproxy: Option<RawHaproxy>,
    /// Whether there was a `[guard]`, whose keys are in `template`.
    #[serde(skip)]
    pub guard: bool,
    pub backend: Option<BTreeMap<String, toml::Value>>,
}

/// `[template]`, and `[guard]` as another place for the last five.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawTemplate {
    pub src: Option<String>,
    pub dest: Option<String>,
    pub keys: Option<Vec<String>>,
    pub prefix: Option<String>,
    pub mode: Option<String>,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub owner: Option<String>,
    pub group: Option<String>,
    pub check_cmd: Option<String>,
    pub reload_cmd: Option<String>,
    pub verify_cmd: Option<String>,
    pub check_cmd_timeout: Option<toml::Value>,
    pub reload_cmd_timeout: Option<toml::Value>,
    pub quiesce_cmd: Option<String>,
    pub quiesce_after: Option<toml::Value>,
    pub min_reload_interval: Option<toml::Value>,
    pub splay: Option<toml::Value>,
    pub debounce: Option<toml::Value>,
    pub output_format: Option<String>,
    pub escape: Option<String>,
    pub values: Option<String>,
    pub names: Option<bool>,
    pub make_directories: Option<bool>,
    pub allow_in_place: Option<bool>,
    pub on_empty: Option<String>,
    pub min_backends: Option<i64>,
    pub max_loss: Option<f64>,
    pub grace: Option<toml::Value>,
    pub probe_when_stale: Option<toml::Value>,
}

/// `[nginx]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNginx {
    pub conf: Option<String>,
    pub pid_file: Option<String>,
    pub binary: Option<String>,
    pub deadline: Option<toml::Value>,
    pub max_old_generations: Option<i64>,
    pub live: Option<String>,
    pub live_dir: Option<String>,
    pub max_fails: Option<i64>,
    pub fail_timeout: Option<toml::Value>,
    pub slow_start: Option<toml::Value>,
    pub hold: Option<toml::Value>,
}

/// `[haproxy]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawHaproxy {
    /// A path, or a list of them.
    pub conf: Option<toml::Value>,
    pub socket: Option<String>,
    pub live: Option<String>,
    pub pid_file: Option<String>,
    pub binary: Option<String>,
    pub deadline: Option<toml::Value>,
    pub max_old_generations: Option<i64>,
}

impl ResourceFile {
    /// Whether it uses anything that confd does not have: then it was written for confsync.
    pub(super) fn has_own_tables(&self) -> bool {
        let is_ours = |template: &RawTemplate| {
            template.values.is_some() || template.on_empty.is_some() || template.max_loss.is_some()
        };
        self.nginx.is_some()
            || self.haproxy.is_some()
            || self.guard
            || self.template.as_ref().is_some_and(is_ours)
    }

    /// Whether it declares that its keys are backends. A table for a proxy, a `[guard]` or a rule
    /// for values does; what a value looks like does not.
    pub(super) fn declares_backends(&self) -> bool {
        let guards = |template: &RawTemplate| {
            template.values.is_some()
                || template.on_empty.is_some()
                || template.min_backends.is_some()
                || template.max_loss.is_some()
                || template.grace.is_some()
                || template.probe_when_stale.is_some()
        };
        let is_by_name = self.nginx.is_some() || self.haproxy.is_some();
        is_by_name || self.guard || self.template.as_ref().is_some_and(guards)
    }
}

pub(super) const TABLES: &[&str] = &["template", "nginx", "haproxy", "guard", "backend"];
pub(super) const GUARD: &[&str] =
    &["on_empty", "min_backends", "max_loss", "grace", "probe_when_stale"];
pub(super) const TEMPLATE: &[&str] = &[
    "src",
    "dest",
    "keys",
    "prefix",
    "mode",
    "uid",
    "gid",
    "owner",
    "group",
    "check_cmd",
    "reload_cmd",
    "verify_cmd",
    "check_cmd_timeout",
    "reload_cmd_timeout",
    "quiesce_cmd",
    "quiesce_after",
    "min_reload_interval",
    "splay",
    "debounce",
    "output_format",
    "escape",
    "values",
    "names",
    "make_directories",
    "allow_in_place",
    "on_empty",
    "min_backends",
    "max_loss",
    "grace",
    "probe_when_stale",
];
pub(super) const NGINX: &[&str] = &[
    "conf",
    "pid_file",
    "binary",
    "deadline",
    "max_old_generations",
    "live",
    "live_dir",
    "max_fails",
    "fail_timeout",
    "slow_start",
    "hold",
];

pub(super) const HAPROXY: &[&str] =
    &["conf", "socket", "live", "pid_file", "binary", "deadline", "max_old_generations"];

/// Reads a file's text; the notes name keys that are ignored.
///
/// # Errors
/// With line and column, from the TOML parser.
pub(super) fn parse(text: &str) -> Result<(ResourceFile, Vec<String>), String> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| say(&e, text))?;
    let mut notes = Vec::new();
    let mut file = toml::Table::new();
    let mut guard = false;
    for (name, value) in table {
        let lower = name.to_lowercase();
        guard |= lower == "guard";
        let known = match lower.as_str() {
            "template" => TEMPLATE,
            "nginx" => NGINX,
            "haproxy" => HAPROXY,
            "guard" => GUARD,
            "backend" => {
                file.insert(lower, value);
                continue;
            }
            _ => {
                notes.push(ignored(&name, TABLES, text));
                continue;
            }
        };
        let toml::Value::Table(inner) = value else {
            return Err(format!("`{name}` must be a table: write it as [{lower}]"));
        };
        let target = if lower == "guard" { "template" } else { &lower };
        let merged = file.entry(target).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let Some(merged) = merged.as_table_mut() {
            merge(merged, inner, known, text, &mut notes);
        }
    }
    let mut file =
        ResourceFile::deserialize(file).map_err(|error| mistyped(&error.to_string(), text))?;
    file.guard = guard;
    Ok((file, notes))
}

/// Adds the known keys of one table, in lower case.
fn merge(
    into: &mut toml::Table,
    table: toml::Table,
    known: &[&str],
    text: &str,
    notes: &mut Vec<String>,
) {
    for (key, value) in table {
        let lower = key.to_lowercase();
        if !known.contains(&lower.as_str()) {
            notes.push(ignored(&key, known, text));
        } else if into.insert(lower.clone(), value).is_some() {
            // Upper case sorts first, so the lower-case spelling wins.
            let what =
                format!("`{lower}` is given twice; `{key}` counts (in confd chance decides)");
            notes.push(what);
        }
    }
}

/// Adds key and line to an error about a wrong type: the parser appends the key as ``in
/// `template.mode` ``.
pub(crate) fn mistyped(error: &str, text: &str) -> String {
    let (what, rest) = error.trim().split_once("\nin `").unwrap_or((error.trim(), ""));
    let key = rest.trim_end_matches('`').rsplit('.').next().unwrap_or_default();
    let remedy = match what.rsplit_once("expected ").map(|(_, ty)| ty) {
        Some("a string") => "; put it in quotes",
        Some("a sequence") => "; write a list: `[\"…\"]`",
        Some("i64" | "u64") => "; write a whole number without quotes",
        _ => "",
    };
    if key.is_empty() {
        return what.to_owned();
    }
    format!("{}`{key}`: {what}{remedy}", line_of(key, text))
}

/// A mistake in the TOML itself, with its line and column.
pub(crate) fn say(error: &toml::de::Error, text: &str) -> String {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: {}", error.message().trim())
}

fn ignored(key: &str, known: &[&str], text: &str) -> String {
    let line = line_of(key, text);
    let near = known
        .iter()
        .map(|k| (strsim::osa_distance(&key.to_lowercase(), k), k))
        .filter(|(d, _)| *d <= 2)
        .min()
        .map_or(String::new(), |(_, k)| format!("; did you mean `{k}`?"));
    format!("{line}`{key}` is not known here and is ignored{near}")
}

/// The line that a key begins, as the start of a message.
fn line_of(key: &str, text: &str) -> String {
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.get(..key.len()).is_some_and(|start| start.eq_ignore_ascii_case(key))
    };
    text.lines().position(begins).map_or(String::new(), |n| format!("line {}: ", n + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_keys_are_named_with_line_and_remedy() {
        let (file, notes) =
            parse("[template]\nSRC = \"a\"\ndest = \"b\"\nreload_cmnd = \"x\"\n").unwrap();
        assert_eq!(file.template.unwrap().src.as_deref(), Some("a"));
        assert_eq!(
            notes,
            ["line 4: `reload_cmnd` is not known here and is ignored; did you mean `reload_cmd`?"]
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_key() {
        let error = parse("[template]\nsrc = \"a\"\nMode = 644\n").unwrap_err();
        assert_eq!(
            error,
            "line 3: `mode`: invalid type: integer `644`, expected a string; put it in quotes"
        );
        let error = parse("[template]\nkeys = \"/a\"\n").unwrap_err();
        assert!(error.starts_with("line 2: `keys`: invalid type: string \"/a\""), "{error}");
    }

    #[test]
    fn bad_toml_is_placed() {
        let error = parse("[template]\nsrc = \n").unwrap_err();
        assert!(error.starts_with("line 2, column 7"), "{error}");
    }

    /// The names that the list below a heading begins its items with.
    fn documented(heading: &str) -> Vec<&'static str> {
        let page = include_str!("../../../../docs/configuration.md");
        let after = page.split_once(heading).unwrap().1;
        let section = after.split("\n## ").next().unwrap();
        let items = section.lines().filter(|line| line.starts_with("* `"));
        let names = items.filter_map(|line| line.split(" (").next());
        names.flat_map(|names| names.split('`').skip(1).step_by(2)).collect()
    }

    #[test]
    fn every_key_is_on_the_page_and_no_other() {
        let tables =
            [("## `[template]`", TEMPLATE), ("## `[nginx]`", NGINX), ("## `[haproxy]`", HAPROXY)];
        for (heading, known) in tables {
            let mut page = documented(heading);
            let mut known = known.to_vec();
            page.sort_unstable();
            known.sort_unstable();
            assert_eq!(page, known, "{heading}");
        }
        assert!(GUARD.iter().all(|key| TEMPLATE.contains(key)));
    }
}
