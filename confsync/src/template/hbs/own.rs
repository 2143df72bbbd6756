//! The helpers that confd does not have: sorting, grouping, choosing, quoting.
//!
//! Where a function has the same name, the helper takes precedence; the documentation says which.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{json, safe};
use crate::template::Input;
use crate::template::escape::Escape;
use crate::template::functions::{Fault, MAX_TEXT, Ty, too_large};
use crate::template::runes::to_str;
use crate::template::sprintf;
use crate::template::time::Time;

/// A helper: arguments, a way to ask for `name=value`, and what is rendered.
pub(super) type HelperFunction =
    fn(&[&Json], &dyn Fn(&str) -> Option<Json>, &Input) -> Result<Json, Fault>;

pub(super) const HELPERS: &[(&str, HelperFunction)] = &[
    ("quote", quote),
    ("goQuote", go_quote),
    ("nginxName", nginx_name),
    ("concat", concat),
    ("datetime", datetime),
    ("printf", printf),
    ("lookup", lookup),
    ("first", first),
    ("last", last),
    ("reverse", reverse),
    ("sort", sort),
    ("sortBy", sort_by),
    ("groupBy", group_by),
    ("where", where_is),
    ("unique", unique),
];

type Hash<'a> = &'a dyn Fn(&str) -> Option<Json>;

fn text(args: &[&Json], at: usize) -> Result<String, Fault> {
    match args.get(at) {
        Some(Json::String(s)) => Ok(s.clone()),
        Some(Json::Number(n)) => Ok(n.to_string()),
        Some(Json::Bool(b)) => Ok(b.to_string()),
        Some(Json::Null) => Ok(String::new()),
        Some(_) => Err(format!("argument {} is a list or an object, not text", at + 1).into()),
        None => Err(format!("argument {} is missing", at + 1).into()),
    }
}

fn list<'a>(args: &[&'a Json]) -> Result<&'a [Json], Fault> {
    match args.first() {
        Some(Json::Array(items)) => Ok(items),
        _ => Err(Fault::new(
            "the first argument is not a list",
            "give it `backends` or what `gets` returns",
        )),
    }
}

fn quote(args: &[&Json], hash: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    quote_for(Escape::Nginx, args, hash)
}

/// A quoted string, in the syntax of the file.
pub(super) fn quote_for(escape: Escape, args: &[&Json], hash: Hash<'_>) -> Result<Json, Fault> {
    let dollar = hash("dollar").and_then(|d| d.as_str().map(str::to_owned));
    safe::quoted(escape, &text(args, 0)?, dollar.as_deref()).map(Json::String)
}

fn go_quote(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    Ok(sprintf::quote(text(args, 0)?.as_bytes()).into())
}

/// Converts any text to a valid name of an nginx upstream or zone.
fn nginx_name(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
    let name: String = text(args, 0)?.chars().map(plain).collect();
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic());
    Ok(if starts { name } else { format!("n{name}") }.into())
}

fn concat(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let pieces = (0..args.len()).map(|i| text(args, i)).collect::<Result<Vec<_>, _>>()?;
    Ok(pieces.concat().into())
}

fn datetime(args: &[&Json], _: Hash<'_>, input: &Input) -> Result<Json, Fault> {
    let layout = if args.is_empty() { "2006-01-02T15:04:05Z07:00".into() } else { text(args, 0)? };
    Ok(Time::from(input.system().now()).format(&layout).into())
}

/// Go's, except that a number is whole or not as the verb wants it: there is only
/// one kind of number here.
fn printf(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let values = args.iter().skip(1).map(|arg| json::to_value(arg, Ty::Any));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let made = sprintf::loose(text(args, 0)?.as_bytes(), &values, MAX_TEXT);
    made.map(|text| to_str(&text).into()).map_err(|_| too_large())
}

/// One item of a list or an object; nothing where there is none.
fn lookup(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let name = text(args, 1)?;
    let found = match args.first() {
        Some(Json::Array(items)) => name.parse::<usize>().ok().and_then(|i| items.get(i)),
        Some(other) => other.get(&name),
        None => None,
    };
    Ok(found.cloned().unwrap_or(Json::Null))
}

fn first(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    Ok(list(args)?.first().cloned().unwrap_or(Json::Null))
}

fn last(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    Ok(list(args)?.last().cloned().unwrap_or(Json::Null))
}

fn reverse(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    Ok(list(args)?.iter().rev().cloned().collect())
}

/// Numbers by size, then text by its bytes, then the rest as it is.
fn order(a: &Json, b: &Json) -> Ordering {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Json::Number(_), _) => Ordering::Less,
        (_, Json::Number(_)) => Ordering::Greater,
        (Json::String(a), Json::String(b)) => a.cmp(b),
        (Json::String(_), _) => Ordering::Less,
        (_, Json::String(_)) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

fn sort(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let mut items = list(args)?.to_vec();
    items.sort_by(order);
    Ok(items.into())
}

/// A field by its path: `weight`, `meta.version`.
fn field<'a>(item: &'a Json, path: &str) -> &'a Json {
    path.split('.').try_fold(item, |item, name| item.get(name)).unwrap_or(&Json::Null)
}

fn sort_by(args: &[&Json], hash: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let path = text(args, 1)?;
    let mut items = list(args)?.to_vec();
    let down = hash("desc") == Some(Json::Bool(true));
    items.sort_by(|a, b| {
        let order = order(field(a, &path), field(b, &path));
        if down { order.reverse() } else { order }
    });
    Ok(items.into())
}

/// An object: each value of the field, as text, with the items that have it.
fn group_by(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let path = text(args, 1)?;
    let mut groups: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for item in list(args)? {
        let name = text(&[field(item, &path)], 0)?;
        groups.entry(name).or_default().push(item.clone());
    }
    Ok(Json::Object(groups.into_iter().map(|(name, items)| (name, items.into())).collect()))
}

fn where_is(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let (path, want) = (text(args, 1)?, args.get(2).copied().ok_or("argument 3 is missing")?);
    let items = list(args)?.iter().filter(|item| field(item, &path) == want);
    Ok(items.cloned().collect())
}

fn unique(args: &[&Json], _: Hash<'_>, _: &Input) -> Result<Json, Fault> {
    let mut seen = std::collections::HashSet::new();
    let items = list(args)?.iter().filter(|item| seen.insert(item.to_string()));
    Ok(items.cloned().collect())
}
