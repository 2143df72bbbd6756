//! `register list`: the registered backends, as a table for people or as JSON for programs. Pure:
//! rows in, text out.
//!
//! A value that a load balancer would reject is listed with the reason, not left out: this is where
//! an operator looks for a missing backend.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::ArgMatches;
use common::model::{Backend, Host, Prefix, Tree, format_span};
use common::other_api::hint;
use common::runtime::{Exit, print, print_error};
use common::settings::{Layer, Mistakes, Reader, output};
use common::store::{Store, StoreError, connect, default_deadline, read_deadline};
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

/// Prints the registered backends.
///
/// # Errors
/// Wrong usage, or etcd does not answer.
pub(super) async fn list(matches: &ArgMatches) -> anyhow::Result<Exit> {
    let (Selection { prefix, folder, json }, connection) = start(matches, selection(matches))?;
    let store = connect(&connection).await?;
    let tree = Tree::below(folder.clone());
    let found = store.read(std::slice::from_ref(&tree), read_deadline()).await?;
    if found.entries.is_empty() {
        print_error(format_args!("{}", hint(&connection, &store, &tree).await));
    }
    let mut rows = Vec::new();
    for entry in found.entries.values() {
        let ttl = time_left(store.time_left(entry, default_deadline()).await)?;
        rows.push(Row { key: entry.key.to_string(), value: entry.value.to_vec(), ttl });
    }
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print(if json { as_json(&prefix, &rows) } else { as_table(&prefix, &folder, &rows, colours) });
    Ok(Exit::Done)
}

/// etcd 3.0 knows how long a key is still kept, and has no call to say it.
fn time_left(answer: Result<Option<Duration>, StoreError>) -> Result<TimeLeft, StoreError> {
    match answer {
        Ok(left) => Ok(left.map_or(TimeLeft::Unlimited, TimeLeft::Span)),
        Err(StoreError::Unsupported(_)) => Ok(TimeLeft::Unknown),
        Err(error) => Err(error),
    }
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
    key: String,
    value: Vec<u8>,
    /// The rest of its lifetime.
    ttl: TimeLeft,
}

/// How long a key is kept if it is not refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeLeft {
    Span(Duration),
    /// It has no TTL.
    Unlimited,
    /// It has one, and etcd cannot say what is left of it.
    Unknown,
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
    /// Whether etcd removes it unless it is refreshed.
    expires: bool,
    refused: Option<String>,
    /// Whether its address is a DNS name.
    #[serde(skip)]
    is_name: bool,
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
        is_name: backend.as_ref().is_some_and(|b| matches!(b.addr.host(), Host::Name(_))),
        addr: backend.as_ref().map(|b| b.addr.to_string()),
        weight: backend.as_ref().map(|b| b.weight),
        zone: backend.as_ref().and_then(|b| b.zone.clone()),
        meta: backend.map(|b| b.meta).unwrap_or_default(),
        ttl_seconds: match row.ttl {
            TimeLeft::Span(ttl) => Some(ttl.as_secs()),
            TimeLeft::Unlimited | TimeLeft::Unknown => None,
        },
        expires: row.ttl != TimeLeft::Unlimited,
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

/// An aligned table; `colours` for a terminal. The columns for zone and meta appear only
/// if used. All rows are below `folder`.
fn as_table(prefix: &Prefix, folder: &Prefix, rows: &[Row], colours: bool) -> String {
    if rows.is_empty() {
        return format!("no backends are registered under {folder}\n");
    }
    let headings = HEADINGS.map(str::to_owned).to_vec();
    let mut lines = vec![Line { cells: headings, note: String::new(), paint: Paint::Bold }];
    lines.extend(listed(prefix, rows).iter().map(|one| {
        let note = match &one.refused {
            Some(why) => format!("rejected: {why}"),
            None if one.is_name => {
                "a name: rejected unless the resource has names = true".to_owned()
            }
            None => String::new(),
        };
        let paint = match (&one.refused, one.expires && !one.is_name) {
            (Some(_), _) => Paint::Red,
            (None, false) => Paint::Yellow,
            (None, true) => Paint::Plain,
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
        match one.ttl_seconds {
            Some(left) => format_span(Duration::from_secs(left)),
            None if one.expires => "unknown".to_owned(),
            None => "unlimited".to_owned(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(key: &str, value: &str, ttl: Option<u64>) -> Row {
        let ttl = time_left(Ok(ttl.map(Duration::from_secs))).unwrap();
        Row { key: key.into(), value: value.into(), ttl }
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
    fn a_table_is_aligned_and_shows_what_is_rejected() {
        assert_eq!(
            as_table(&services(), &services(), &some(), false),
            "\
SERVICE  ID        ADDRESS      WEIGHT  META       TTL LEFT
         stray                                     9s         rejected: the key is not inside the folder of a service
apache   a:1       [::1]:7777   3       v=2\\u{1b}  24s
web      10.0.0.1  10.0.0.1:80  1                  unlimited
web      10.0.0.2                                  8s         rejected: no port: `host:port` is needed (IPv6 as `[address]:port`)
"
        );
    }

    #[test]
    fn colours_only_where_asked_for() {
        assert!(!as_table(&services(), &services(), &some(), false).contains('\u{1b}'));
        let painted = as_table(&services(), &services(), &some(), true);
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
            as_table(&services(), &services(), &[], true),
            "no backends are registered under /services\n"
        );
    }

    /// A load balancer decides by its resource, which is not known here.
    #[test]
    fn a_name_is_listed_with_what_most_load_balancers_make_of_it() {
        let rows = [row("/services/web/1", "app.internal:80", Some(9))];
        let text = as_table(&services(), &services(), &rows, false);
        assert!(text.contains("app.internal:80"), "{text}");
        assert!(text.contains("a name: rejected unless the resource has names = true"), "{text}");
        assert!(as_json(&services(), &rows).contains("\"refused\": null"));
    }

    #[test]
    fn a_rest_that_etcd_cannot_say_is_unknown_and_not_unlimited() {
        let cannot = Err(StoreError::Unsupported("unknown method".to_owned()));
        let ttl = time_left(cannot).unwrap();
        let rows = [Row { ttl, ..row("/services/web/10.0.0.1", "10.0.0.1:80", None) }];
        let text = as_table(&services(), &services(), &rows, true);
        assert!(text.lines().nth(1).unwrap().ends_with("unknown"), "{text}");
        assert!(!text.contains("\u{1b}[33m"), "{text}");
        let value: serde_json::Value = serde_json::from_str(&as_json(&services(), &rows)).unwrap();
        assert_eq!(value[0]["ttl_seconds"], serde_json::Value::Null);
        assert_eq!(value[0]["expires"], true);
        let away = StoreError::Unreachable("no".to_owned());
        assert_eq!(time_left(Err(away.clone())), Err(away));
    }

    proptest! {
        #[test]
        fn no_value_reaches_a_terminal_unescaped(key: String, value: Vec<u8>) {
            let rows = [Row { key: format!("/services/a/{key}"), value, ttl: TimeLeft::Unlimited }];
            let text = as_table(&services(), &services(), &rows, false);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{:?}", text);
            prop_assert_eq!(text.lines().count(), 2);
            prop_assert!(as_json(&services(), &rows).starts_with('['));
        }
    }
}
