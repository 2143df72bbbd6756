//! JSON: reading it as Go's `encoding/json` does into `interface{}`, and writing it.

use std::collections::BTreeMap;

use common::model::StoredValue;
use serde_json::Value as Json;

use super::{Call, Fault, Function, FunctionResult, MAX_TEXT, Ty, text, too_large};
use crate::template::print::{self, BoundedText, Full};
use crate::template::runes::runes;
use crate::template::value::{Elem, List, Map, TooDeep, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("json", &[Ty::Str], json),
    Function::new("jsonArray", &[Ty::Str], json_array),
    Function::new("fromJson", &[Ty::Str], read),
    Function::new("toJson", &[Ty::Any], |_, args| written(args, None)),
    Function::new("toPrettyJson", &[Ty::Any], |_, args| written(args, Some(0))),
];

/// The longest JSON worth reading, in bytes; etcd's values have 1.5 MiB at most.
const MAX_JSON: usize = 8 << 20;

/// JSON as Go sees it: every number a `float64`.
pub(crate) fn value(json: Json) -> Result<Value, TooDeep> {
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(b),
        Json::Number(n) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(s) => Value::str(s),
        Json::Array(items) => {
            let items = items.into_iter().map(value).collect::<Result<_, _>>()?;
            Value::List(List::new(Elem::Any, items)?)
        }
        Json::Object(fields) => {
            let entries: Result<BTreeMap<StoredValue, Value>, TooDeep> =
                fields.into_iter().map(|(k, v)| Ok((k.into(), value(v)?))).collect();
            Value::Map(Map::new(entries?)?)
        }
    })
}

fn read(call: &Call<'_>, args: &[Value]) -> Result<Value, Fault> {
    // Bytes that are no UTF-8 are replaced, as `encoding/json` does.
    let source = &*text(args, 0);
    if source.len() > MAX_JSON {
        return Err(format!("JSON of {} bytes is too long", source.len()).into());
    }
    call.budget.steps(source.len() / 4)?;
    let json = serde_json::from_str(source).map_err(|e| {
        Fault::new(
            format!("not JSON: {e}"),
            "the value of the key must be whole JSON; look at it with `etcdctl get`",
        )
    })?;
    Ok(value(json)?)
}

fn json(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    match read(call, args)? {
        object @ Value::Map(_) => Ok(object),
        Value::Nil => Ok(Value::Map(Map::nil())),
        Value::List(_) => Err(Fault::new(
            "cannot unmarshal array into Go value of type map[string]interface {}",
            "for an array there is `jsonArray`",
        )),
        _ => Err(Fault::new("the value is JSON, but not an object", "use `fromJson`")),
    }
}

fn json_array(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    match read(call, args)? {
        array @ Value::List(_) => Ok(array),
        Value::Nil => Ok(Value::List(List::nil(Elem::Any))),
        Value::Map(_) => Err(Fault::new(
            "cannot unmarshal object into Go value of type []interface {}",
            "for an object there is `json`",
        )),
        _ => Err(Fault::new("the value is JSON, but not an array", "use `fromJson`")),
    }
}

fn written(args: &[Value], indent: Option<usize>) -> FunctionResult {
    let mut out = BoundedText::new(MAX_TEXT);
    match write(&mut out, args.first().unwrap_or(&Value::Nil), indent) {
        Ok(()) => Ok(Value::str(out.into_text())),
        Err(Wrong::Full) => Err(too_large()),
        Err(Wrong::Number) => Err("json: unsupported value: not a number".into()),
    }
}

enum Wrong {
    Full,
    Number,
}

impl From<Full> for Wrong {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

fn write(out: &mut BoundedText, value: &Value, indent: Option<usize>) -> Result<(), Wrong> {
    match value {
        Value::Absent | Value::Nil => out.put("null")?,
        Value::Bool(b) => out.put(if *b { "true" } else { "false" })?,
        Value::Int(n) => out.put(n.to_string())?,
        Value::Uint(n) => out.put(n.int().to_string())?,
        Value::Float(f) => out.put(number(*f)?)?,
        Value::Str(s) => string(out, s)?,
        Value::Time(time) => {
            string(out, time.format("2006-01-02T15:04:05.999999999Z07:00").as_bytes())?;
        }
        Value::List(list) if list.is_null() => out.put("null")?,
        Value::Map(map) if map.is_nil() => out.put("null")?,
        Value::List(list) => {
            let items = list.items().iter().map(|item| (None, item));
            group(out, ('[', ']'), items, indent)?;
        }
        Value::Map(map) => {
            let items = map.entries().iter().map(|(k, v)| (Some(&**k), v));
            group(out, ('{', '}'), items, indent)?;
        }
        Value::Record(record) => {
            let items = record.fields.iter().map(|(k, v)| (Some(k.as_bytes()), v));
            group(out, ('{', '}'), items, indent)?;
        }
    }
    Ok(())
}

fn group<'a>(
    out: &mut BoundedText,
    (open, close): (char, char),
    items: impl ExactSizeIterator<Item = (Option<&'a [u8]>, &'a Value)>,
    indent: Option<usize>,
) -> Result<(), Wrong> {
    let none = items.len() == 0;
    let line = |depth: usize| format!("\n{}", "  ".repeat(depth));
    let inner = indent.map(|depth| depth + 1);
    out.put(open.encode_utf8(&mut [0; 4]))?;
    for (i, (name, item)) in items.enumerate() {
        if i > 0 {
            out.put(",")?;
        }
        if let Some(depth) = inner {
            out.put(line(depth))?;
        }
        if let Some(name) = name {
            string(out, name)?;
            out.put(if indent.is_some() { ": " } else { ":" })?;
        }
        write(out, item, inner)?;
    }
    if let Some(depth) = indent.filter(|_| !none) {
        out.put(line(depth))?;
    }
    out.put(close.encode_utf8(&mut [0; 4]))?;
    Ok(())
}

/// As `encoding/json` writes a float: an exponent from 1e21 on and below 1e-6.
fn number(f: f64) -> Result<String, Wrong> {
    if print::not_a_number(f).is_some() {
        return Err(Wrong::Number);
    }
    let (_, point) = print::digits(f);
    if f != 0.0 && !(-5..=21).contains(&point) {
        let text = format!("{f:e}");
        return Ok(if point > 0 { text.replace('e', "e+") } else { text });
    }
    Ok(format!("{f}"))
}

/// A JSON string with the escapes Go adds for HTML. Of a byte that is no UTF-8 only that there
/// was one is kept.
fn string(out: &mut BoundedText, text: &[u8]) -> Result<(), Full> {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for (c, bytes) in runes(text) {
        match c {
            char::REPLACEMENT_CHARACTER if bytes.len() == 1 => quoted.push_str("\\ufffd"),
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    out.put(&quoted)
}
