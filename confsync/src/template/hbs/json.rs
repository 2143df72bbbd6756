//! Conversion between JSON, which handlebars uses, and Go's values, which the functions use.

use std::collections::BTreeMap;

use common::model::StoredValue;
use serde_json::Value as Json;

use crate::template::functions::{Fault, Ty};
use crate::template::runes::to_str;
use crate::template::value::{Elem, List, Map, Value};

/// The largest float up to which whole numbers are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A value as JSON. A whole float is a whole number: nothing here is `1e+06`.
pub(super) fn from_value(value: &Value) -> Json {
    match value {
        Value::Absent | Value::Nil => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => (*n).into(),
        Value::Uint(n) => n.int().into(),
        #[expect(clippy::cast_possible_truncation, reason = "whole, and checked to be exact")]
        Value::Float(f) if f.fract() == 0.0 && f.abs() < EXACT => (*f as i64).into(),
        Value::Float(f) => Json::from(*f),
        Value::Str(s) => Json::String(to_str(s).into_owned()),
        Value::Time(time) => Json::String(time.format("2006-01-02T15:04:05Z07:00")),
        Value::List(list) => Json::Array(list.items().iter().map(from_value).collect()),
        Value::Map(map) => Json::Object(
            map.entries().iter().map(|(k, v)| (to_str(k).into_owned(), from_value(v))).collect(),
        ),
        Value::Record(record) => {
            let fields = record.fields.iter();
            Json::Object(fields.map(|(k, v)| (k.to_lowercase(), from_value(v))).collect())
        }
    }
}

/// JSON as a value of the type that a function wants.
///
/// # Errors
/// When it is of another type, or nested too deep.
pub(super) fn to_value(json: &Json, ty: Ty) -> Result<Value, Fault> {
    let value = match (ty, json) {
        (Ty::Str, Json::Number(n)) => Value::str(n.to_string()),
        (Ty::Str, Json::Bool(b)) => Value::str(b.to_string()),
        (Ty::Bool, json) => Value::Bool(any(json)?.is_true()),
        (Ty::Strings, Json::Array(items)) => {
            let texts: Option<Vec<String>> = items.iter().map(text).collect();
            let texts = texts.ok_or("expected a list of texts")?;
            Value::List(List::strings(texts))
        }
        (Ty::Pairs, Json::Array(items)) => {
            let pairs: Option<Vec<Value>> = items.iter().map(pair).collect();
            let pairs = pairs.ok_or("expected a list of pairs, as `gets` returns it")?;
            Value::List(List::flat(Elem::Pair, pairs))
        }
        (_, json) => any(json)?,
    };
    ty.accept(value).map_err(|fault| Fault { remedy: advice(ty), ..fault })
}

fn advice(ty: Ty) -> Option<String> {
    let advice = match ty {
        Ty::Int => "make text a number with `(atoi …)`",
        Ty::Str => "is the value null? Test it with `#if`",
        _ => return None,
    };
    Some(advice.into())
}

fn text(json: &Json) -> Option<String> {
    match json {
        Json::String(s) => Some(s.clone()),
        Json::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

fn pair(json: &Json) -> Option<Value> {
    Some(Value::pair(json.get("key")?.as_str()?, json.get("value")?.as_str()?))
}

fn any(json: &Json) -> Result<Value, Fault> {
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => {
            n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or(0.0)), Value::Int)
        }
        Json::String(s) => Value::str(s.as_str()),
        Json::Array(items) => {
            let items = items.iter().map(any).collect::<Result<_, _>>()?;
            Value::List(List::new(Elem::Any, items)?)
        }
        Json::Object(fields) => {
            let entries: Result<BTreeMap<StoredValue, Value>, Fault> =
                fields.iter().map(|(k, v)| Ok((k.as_str().into(), any(v)?))).collect();
            Value::Map(Map::new(entries?)?)
        }
    })
}
