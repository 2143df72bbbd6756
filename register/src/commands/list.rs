//! `register list`: the registered backends, as a table for people or as JSON for programs. Pure:
//! rows in, text out.
//!
//! A value that a load balancer would reject is listed with the reason, not left out: this is where
//! an operator looks for a missing backend.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::ArgMatches;
use common::model::{Backend, Prefix, Tree, format_span};
use common::other_api::hint;
use common::runtime::{Exit, print, print_error};
use common::settings::{Layer, Mistakes, Reader, output};
use common::store::{Store, connect, default_deadline, read_deadline};
use common::table::{self, Line, Paint, escaped};
use serde::Serialize;

use super::setup::{start, variable};
use crate::settings::{JSON, LIST, OUTPUT, SERVICE, SERVICES};

/// What is to be shown.
struct Selection {
    prefix: Prefix,
    folder: Prefix,
    json: bool,
}

/// Shows who is registered.
///
/// # Errors
/// Wrong usage, or etcd does not answer.
pub(super) async fn list(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let (Selection { prefix, folder, json }, connection) = start(matches, selection(matches))?;
    let store = connect(&connection).await?;
    let tree = Tree::below(folder);
    let found = store.read(std::slice::from_ref(&tree), read_deadline()).await?;
    if found.entries.is_empty() {
        print_error(format_args!("{}", hint(&connection, &store, &tree).await));
    }
    let mut rows = Vec::new();
    for entry in found.entries.values() {
        let left = store.time_left(entry, default_deadline()).await?;
        rows.push(Row { key: entry.key.to_string(), value: entry.value.to_vec(), ttl: left });
    }
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print(if json { as_json(&prefix, &rows) } else { as_table(&prefix, &rows, colours) });
    Ok(Exit::Done)
}

fn selection(matches: &ArgMatches) -> Result<Selection, Mistakes> {
    let layer = Layer::from_matches(matches, LIST.settings, &variable);
    let mut mistakes = Mistakes::default();
    let mut from = Reader::new(&layer, "", &mut mistakes);
    let json = output::is_json(&mut from, &OUTPUT, &JSON);
    let selection = from.get(&SERVICES, str::parse::<Prefix>).and_then(|prefix| {
        let folder = if from.is_given(&SERVICE) {
            from.get(&SERVICE, |service| prefix.folder(service))?
        } else {
            prefix.clone()
        };
        Some(Selection { prefix, folder, json })
    });
    mistakes.none_or_some(selection)
}

/// A key as etcd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// The whole key.
    key: String,
    /// Its bytes.
    value: Vec<u8>,
    /// The rest of its lifetime; `None` for a key without a TTL.
    ttl: Option<Duration>,
}

/// A key made sense of. Names and order are what `--json` shows.
#[derive(Debug, Serialize)]
struct Listed {
    key: String,
    service: String,
    id: String,
    addr: Option<String>,
    weight: Option<u16>,
    zone: Option<String>,
    meta: BTreeMap<String, String>,
    ttl_seconds: Option<u64>,
    refused: Option<String>,
}

/// In the order of services and ids.
fn listed(prefix: &Prefix, rows: &[Row]) -> Vec<Listed> {
    let mut all: Vec<Listed> = rows.iter().map(|row| one(prefix, row)).collect();
    all.sort_by(|a, b| (&a.service, &a.id).cmp(&(&b.service, &b.id)));
    all
}

fn one(prefix: &Prefix, row: &Row) -> Listed {
    let path = prefix.strip(&row.key).unwrap_or(&row.key);
    let parts = path.split_once('/');
    let (service, id) = parts.unwrap_or(("", path));
    let backend = match parts {
        Some(_) => Backend::parse(&row.value).map_err(|e| e.to_string()),
        None => Err("the key is not inside the folder of a service".to_owned()),
    };
    let (backend, refused) = match backend {
        Ok(backend) => (Some(backend), None),
        Err(why) => (None, Some(why)),
    };
    Listed {
        key: row.key.clone(),
        service: service.to_owned(),
        id: id.to_owned(),
        addr: backend.as_ref().map(|b| b.addr.to_string()),
        weight: backend.as_ref().map(|b| b.weight),
        zone: backend.as_ref().and_then(|b| b.zone.clone()),
        meta: backend.map(|b| b.meta).unwrap_or_default(),
        ttl_seconds: row.ttl.map(|ttl| ttl.as_secs()),
        refused,
    }
}

/// One JSON array, ending with a line feed.
fn as_json(prefix: &Prefix, rows: &[Row]) -> String {
    // Texts and numbers have no way to fail.
    let text = serde_json::to_string_pretty(&listed(prefix, rows)).unwrap_or_default();
    format!("{text}\n")
}

const HEADINGS: [&str; 7] = ["SERVICE", "ID", "ADDRESS", "WEIGHT", "ZONE", "META", "TTL LEFT"];

/// An aligned table; `colours` for a terminal. The columns for zone and meta appear only if used.
fn as_table(prefix: &Prefix, rows: &[Row], colours: bool) -> String {
    if rows.is_empty() {
        return format!("no backends are registered under {prefix}\n");
    }
    let headings = HEADINGS.map(str::to_owned).to_vec();
    let mut lines = vec![Line { cells: headings, note: String::new(), paint: Paint::Bold }];
    lines.extend(listed(prefix, rows).iter().map(|one| {
        let note = one.refused.as_ref().map_or(String::new(), |why| format!("refused: {why}"));
        let paint = match (&one.refused, one.ttl_seconds) {
            (Some(_), _) => Paint::Red,
            (None, None) => Paint::Yellow,
            _ => Paint::Plain,
        };
        Line { cells: cells(one), note, paint }
    }));
    table::table(&lines, colours)
}

fn cells(one: &Listed) -> Vec<String> {
    let meta: Vec<String> = one
        .meta
        .iter()
        .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
        .collect();
    vec![
        escaped(&one.service),
        escaped(&one.id),
        one.addr.clone().unwrap_or_default(),
        one.weight.map(|weight| weight.to_string()).unwrap_or_default(),
        one.zone.as_deref().map(escaped).unwrap_or_default(),
        meta.join(" "),
        one.ttl_seconds.map_or("unlimited".to_owned(), |s| format_span(Duration::from_secs(s))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(key: &str, value: &str, ttl: Option<u64>) -> Row {
        Row { key: key.into(), value: value.into(), ttl: ttl.map(Duration::from_secs) }
    }

    fn services() -> Prefix {
        "/services".parse().unwrap()
    }

    fn some() -> Vec<Row> {
        vec![
            row("/services/web/10.0.0.2", "10.0.0.2", Some(8)),
            row("/services/web/10.0.0.1", "10.0.0.1:80", None),
            row(
                "/services/apache/a:1",
                r#"{"addr":"[::1]:7777","weight":3,"meta":{"v":"2\u001b"}}"#,
                Some(24),
            ),
            row("/services/stray", "10.0.0.1:80", Some(9)),
        ]
    }

    #[test]
    fn a_table_is_aligned_and_says_what_is_refused() {
        assert_eq!(
            as_table(&services(), &some(), false),
            "\
SERVICE  ID        ADDRESS      WEIGHT  META       TTL LEFT
         stray                                     9s        refused: the key is not inside the folder of a service
apache   a:1       [::1]:7777   3       v=2\\u{1b}  24s
web      10.0.0.1  10.0.0.1:80  1                  unlimited
web      10.0.0.2                                  8s        refused: no port: `host:port` is needed (IPv6 as `[address]:port`)
"
        );
    }

    #[test]
    fn colours_only_where_asked_for() {
        assert!(!as_table(&services(), &some(), false).contains('\u{1b}'));
        let painted = as_table(&services(), &some(), true);
        assert!(painted.contains("\u{1b}[31mweb      10.0.0.2"), "{painted}");
        assert!(painted.contains("\u{1b}[33mweb      10.0.0.1"), "{painted}");
    }

    #[test]
    fn programs_get_json() {
        let text = as_json(&services(), &some());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value[1]["addr"], "[::1]:7777");
        assert_eq!(value[1]["ttl_seconds"], 24);
        assert_eq!(value[2]["ttl_seconds"], serde_json::Value::Null);
        assert!(value[3]["refused"].as_str().unwrap().contains("no port"));
        assert_eq!(as_json(&services(), &[]), "[]\n");
        assert_eq!(
            as_table(&services(), &[], true),
            "no backends are registered under /services\n"
        );
    }

    proptest! {
        #[test]
        fn no_value_reaches_a_terminal_unescaped(key: String, value: Vec<u8>) {
            let rows = [Row { key: format!("/services/a/{key}"), value, ttl: None }];
            let text = as_table(&services(), &rows, false);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{:?}", text);
            prop_assert_eq!(text.lines().count(), 2);
            prop_assert!(as_json(&services(), &rows).starts_with('['));
        }
    }
}
