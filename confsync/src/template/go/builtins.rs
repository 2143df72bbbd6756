//! The functions that Go's `text/template` brings itself, without `and` and `or`,
//! which do not evaluate what they do not need.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::template::functions::{Call, Fault, Function, FunctionResult, MAX_TEXT, Ty, too_large};
use crate::template::print::{self, BoundedText};
use crate::template::runes::{is_print, runes};
use crate::template::sprintf::sprintf;
use crate::template::value::{Uint, Value};

pub(crate) const FUNCTIONS: &[Function] = &[
    Function::new("not", &[Ty::Raw], not),
    Function::new("len", &[Ty::Raw], len),
    Function::variadic("index", &[Ty::Raw], Ty::Raw, index),
    Function::variadic("slice", &[Ty::Raw], Ty::Raw, slice),
    Function::variadic("print", &[], Ty::Any, |_, args| sprint(args)),
    Function::variadic("println", &[], Ty::Any, println),
    Function::variadic("printf", &[Ty::Str], Ty::Any, printf),
    Function::variadic("html", &[], Ty::Raw, |_, args| escaped(args, html_escaped)),
    Function::variadic("js", &[], Ty::Raw, |_, args| escaped(args, js_escaped)),
    Function::variadic("urlquery", &[], Ty::Raw, |_, args| escaped(args, url_escaped)),
    Function::variadic("call", &[Ty::Raw], Ty::Raw, call),
    Function::variadic("eq", &[Ty::Raw], Ty::Raw, eq),
    Function::new("ne", &[Ty::Raw, Ty::Raw], ne),
    Function::new("lt", &[Ty::Raw, Ty::Raw], |_, args| ordered(args, Ordering::is_lt)),
    Function::new("le", &[Ty::Raw, Ty::Raw], |_, args| ordered(args, Ordering::is_le)),
    Function::new("gt", &[Ty::Raw, Ty::Raw], |_, args| ordered(args, Ordering::is_gt)),
    Function::new("ge", &[Ty::Raw, Ty::Raw], |_, args| ordered(args, Ordering::is_ge)),
];

fn not(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Bool(!args.first().is_some_and(Value::is_true)))
}

fn len(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let length = match args.first() {
        Some(Value::Str(s)) => s.len(),
        Some(Value::List(list)) => list.items().len(),
        Some(Value::Map(map)) => map.entries().len(),
        other => return Err(format!("len of type {}", type_name(other)).into()),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn type_name(value: Option<&Value>) -> &'static str {
    value.map_or("nil", Value::type_name)
}

fn place(index: &Value, end: usize) -> Result<usize, Fault> {
    let Some(n) = index.as_whole() else {
        return Err(format!("cannot index slice/array with type {}", index.type_name()).into());
    };
    usize::try_from(n).ok().filter(|n| *n <= end).ok_or_else(|| {
        Fault::new(format!("index out of range: {n}"), format!("there are {end}; test with `len`"))
    })
}

fn index(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let mut item = args.first().cloned().unwrap_or(Value::Absent);
    if matches!(item, Value::Absent | Value::Nil) {
        return Err(Fault::new("index of untyped nil", "test it with `if` first"));
    }
    for index in args.iter().skip(1) {
        item = match (&item, index) {
            (Value::List(list), _) => {
                let at = place(index, list.items().len().saturating_sub(1))?;
                let found = list.items().get(at).cloned();
                found.ok_or_else(|| Fault::new("index out of range: 0", "the list is empty"))?
            }
            (Value::Str(s), _) => {
                let at = place(index, s.len())?;
                let byte = s.get(at).copied();
                Value::Uint(Uint::Byte(byte.ok_or_else(|| format!("index out of range: {at}"))?))
            }
            (Value::Map(map), Value::Str(name)) => {
                map.entries().get(&**name).cloned().unwrap_or(Value::Nil)
            }
            (Value::Map(_), other) => {
                return Err(
                    format!("value has type {}; should be string", other.type_name()).into()
                );
            }
            (Value::Nil, _) => return Err("index of nil pointer".into()),
            (other, _) => {
                return Err(format!("can't index item of type {}", other.type_name()).into());
            }
        };
    }
    Ok(item)
}

fn slice(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let (item, length) = match args.first() {
        Some(item @ Value::Str(s)) => (item, s.len()),
        Some(item @ Value::List(list)) => (item, list.items().len()),
        other => return Err(format!("can't slice item of type {}", type_name(other)).into()),
    };
    if args.len() > 4 {
        return Err(format!("too many slice indexes: {}", args.len() - 1).into());
    }
    let at = |i: usize, default: usize| args.get(i).map_or(Ok(default), |v| place(v, length));
    let (from, to) = (at(1, 0)?, at(2, length)?);
    if from > to || at(3, length)? < to {
        return Err(format!("invalid slice index: {from} > {to}").into());
    }
    match item {
        Value::Str(_) if args.len() == 4 => Err("cannot 3-index slice a string".into()),
        Value::Str(s) => Ok(Value::str(s.get(from..to).unwrap_or_default())),
        Value::List(list) => Ok(Value::List(list.part(from, to))),
        _ => Ok(Value::Nil),
    }
}

/// Go's `Sprint`: a space between two operands when neither is a string.
fn sprint(args: &[Value]) -> FunctionResult {
    let mut out = BoundedText::new(MAX_TEXT);
    let mut after_text = true;
    for arg in args {
        let text = matches!(arg, Value::Str(_));
        let space = if after_text || text { "" } else { " " };
        let done = out.put(space).and_then(|()| print::print(&mut out, arg));
        done.map_err(|_| too_large())?;
        after_text = text;
    }
    Ok(Value::str(out.into_text()))
}

fn println(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let mut out = BoundedText::new(MAX_TEXT);
    for (i, arg) in args.iter().enumerate() {
        let done = if i > 0 { out.put(" ") } else { Ok(()) };
        done.and_then(|()| print::print(&mut out, arg)).map_err(|_| too_large())?;
    }
    out.put("\n").map_err(|_| too_large())?;
    Ok(Value::str(out.into_text()))
}

fn printf(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let Some((Value::Str(format), rest)) = args.split_first() else {
        return Ok(Value::str(""));
    };
    sprintf(format, rest, MAX_TEXT).map(Value::str).map_err(|_| too_large())
}

/// To the escaping functions nothing is a text: `<no value>`.
fn escaped(args: &[Value], escape: fn(&[u8]) -> Vec<u8>) -> FunctionResult {
    let shown = |arg: &Value| match arg {
        Value::Absent | Value::Nil => Value::str("<no value>"),
        arg => arg.clone(),
    };
    match sprint(&args.iter().map(shown).collect::<Vec<_>>())? {
        Value::Str(s) if s.len() <= MAX_TEXT / 6 => Ok(Value::str(escape(&s))),
        _ => Err(too_large()),
    }
}

fn html_escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b'\0' => out.extend_from_slice("\u{fffd}".as_bytes()),
            b'"' => out.extend_from_slice(b"&#34;"),
            b'\'' => out.extend_from_slice(b"&#39;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            byte => out.push(*byte),
        }
    }
    out
}

fn js_escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (rune, bytes) in runes(text) {
        match rune {
            '\\' | '\'' | '"' => out.extend([b"\\", bytes].concat()),
            '<' | '>' | '&' | '=' | '\0'..' ' => {
                out.extend(format!("\\u{:04X}", u32::from(rune)).bytes());
            }
            rune if rune.is_ascii() || is_print(rune) => out.extend_from_slice(bytes),
            rune => out.extend(format!("\\u{:04X}", u32::from(rune)).bytes()),
        }
    }
    out
}

fn url_escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' => out.push(b'+'),
            b'-' | b'_' | b'.' | b'~' => out.push(*byte),
            byte if byte.is_ascii_alphanumeric() => out.push(*byte),
            byte => out.extend(format!("%{byte:02X}").bytes()),
        }
    }
    out
}

fn call(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let kind = type_name(args.first());
    Err(Fault::new(
        format!("non-function of type {kind}"),
        "write the function's name without `call`",
    ))
}

/// Equal, unequal, or not to be compared.
fn same(a: &Value, b: &Value) -> Result<bool, Fault> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        #[expect(clippy::float_cmp, reason = "Go's eq is exact")]
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::Str(a), Value::Str(b)) => Ok(a == b),
        (Value::Int(_) | Value::Uint(_), Value::Int(_) | Value::Uint(_)) => {
            Ok(a.as_whole() == b.as_whole())
        }
        _ if is_basic(a) || is_basic(b) => match is_nothing(a) || is_nothing(b) {
            true => Ok(false),
            false => Err(incompatible(a, b)),
        },
        _ => same_composite(a, b),
    }
}

/// The same for two that are no numbers, texts or truths: a nil one equals only a nil one.
fn same_composite(a: &Value, b: &Value) -> Result<bool, Fault> {
    let is_struct = |value: &Value| match value {
        Value::Record(record) => !record.is_pointer(),
        other => matches!(other, Value::Time(_)),
    };
    let of_one_kind = match (a, b) {
        (Value::List(_), Value::List(_)) | (Value::Map(_), Value::Map(_)) => true,
        (Value::Record(a), Value::Record(b)) if a.is_pointer() && b.is_pointer() => true,
        (a, b) => is_struct(a) && is_struct(b),
    };
    match (a, b) {
        _ if !(of_one_kind || is_nothing(a) || is_nothing(b)) => Err(incompatible(a, b)),
        _ if is_nil(a) || is_nil(b) => Ok(is_nil(a) && is_nil(b)),
        (Value::List(_) | Value::Map(_), _) => {
            Err(Fault::new("lists and maps cannot be compared", "compare their `len` or elements"))
        }
        (Value::Time(a), Value::Time(b)) => Ok(a == b),
        (Value::Record(a), Value::Record(b)) if a.is_pointer() => Ok(Arc::ptr_eq(a, b)),
        (Value::Record(a), Value::Record(b)) if a.name == b.name => {
            let pairs = a.fields.iter().zip(&b.fields);
            pairs.map(|((_, x), (_, y))| same(x, y)).try_fold(true, |all, one| Ok(all && one?))
        }
        _ => Ok(false),
    }
}

fn is_basic(value: &Value) -> bool {
    matches!(value, Value::Bool(_) | Value::Float(_) | Value::Str(_)) || value.as_whole().is_some()
}

fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Absent | Value::Nil)
}

fn is_nil(value: &Value) -> bool {
    match value {
        Value::List(list) => list.is_nil(),
        Value::Map(map) => map.is_nil(),
        other => is_nothing(other),
    }
}

fn incompatible(a: &Value, b: &Value) -> Fault {
    let remedy = match (a, b) {
        (Value::Float(_), Value::Int(_)) | (Value::Int(_), Value::Float(_)) => {
            "numbers from JSON are float64; write the other with a point: `1.0`"
        }
        (Value::Str(_), Value::Int(_)) | (Value::Int(_), Value::Str(_)) => {
            "put the number in quotes, or make the text a number with `atoi`"
        }
        _ => "compare values of one type",
    };
    let (a, b) = (a.type_name(), b.type_name());
    Fault::new(format!("incompatible types for comparison: {a} and {b}"), remedy)
}

fn eq(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let Some((first, others)) = args.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("missing argument for comparison".into());
    };
    for other in others {
        if same(first, other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn ne(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    match args {
        [a, b] => Ok(Value::Bool(!same(a, b)?)),
        _ => Err("missing argument for comparison".into()),
    }
}

/// Whether the order of two values is as wanted; a NaN has none.
fn ordered(args: &[Value], is_wanted: fn(Ordering) -> bool) -> FunctionResult {
    Ok(Value::Bool(order(args)?.is_some_and(is_wanted)))
}

fn order(args: &[Value]) -> Result<Option<Ordering>, Fault> {
    match args {
        [Value::Float(a), Value::Float(b)] => Ok(a.partial_cmp(b)),
        [Value::Str(a), Value::Str(b)] => Ok(Some(a.cmp(b))),
        [Value::Bool(_), Value::Bool(_)] => Err("invalid type for comparison".into()),
        [a, b] => match (a.as_whole(), b.as_whole()) {
            (Some(a), Some(b)) => Ok(Some(a.cmp(&b))),
            _ if is_basic(a) && is_basic(b) => Err(incompatible(a, b)),
            _ => Err("invalid type for comparison".into()),
        },
        _ => Err("missing argument for comparison".into()),
    }
}
