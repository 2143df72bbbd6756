//! Lists and maps: sorting, reversing, building, taking apart.

use std::collections::BTreeMap;

use common::model::StoredValue;

use super::{Call, Fault, Function, FunctionResult, Ty, bytes, entries, items};
use crate::template::value::{Elem, List, Map, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("reverse", &[Ty::Any], reverse),
    Function::new("sortByLength", &[Ty::Strings], |_, args| sorted(args, Elem::Str, length)),
    Function::new("sortKVByLength", &[Ty::Pairs], sort_kv_by_length),
    Function::variadic("map", &[], Ty::Any, map),
    Function::variadic("dict", &[], Ty::Any, map),
    Function::variadic("list", &[], Ty::Any, list),
    Function::new("append", &[Ty::Items, Ty::Any], append),
    Function::new("hasKey", &[Ty::Map, Ty::Str], has_key),
    Function::new("keys", &[Ty::Map], keys),
    Function::new("values", &[Ty::Map], values),
    Function::variadic("pluck", &[Ty::Str], Ty::Map, pluck),
    Function::new("default", &[Ty::Any, Ty::Any], default),
    Function::new("ternary", &[Ty::Any, Ty::Any, Ty::Bool], ternary),
    Function::variadic("coalesce", &[], Ty::Any, coalesce),
    Function::new("empty", &[Ty::Any], empty),
];

/// Reverses strings and pairs; anything else comes back as it is. confd also
/// leaves the direct result of `gets` as it is, by mistake.
fn reverse(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    match args.first() {
        Some(Value::List(list)) if matches!(list.elem, Elem::Str | Elem::Pair | Elem::Pairs) => {
            Ok(Value::List(list.reversed()))
        }
        other => Ok(other.cloned().unwrap_or(Value::Nil)),
    }
}

fn sorted(args: &[Value], elem: Elem, length: fn(&Value) -> usize) -> FunctionResult {
    if let Some(Value::List(list)) = args.first().filter(|list| !list.is_true()) {
        return Ok(Value::List(list.of(elem)));
    }
    let mut items = items(args, 0).to_vec();
    items.sort_by_key(length);
    Ok(Value::List(List::flat(elem, items)))
}

fn length(value: &Value) -> usize {
    if let Value::Str(s) = value { s.len() } else { 0 }
}

fn sort_kv_by_length(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let key = |value: &Value| match value {
        Value::Record(record) => record.field("Key").map_or(0, length),
        _ => 0,
    };
    sorted(args, Elem::Pair, key)
}

fn map(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    if !args.len().is_multiple_of(2) {
        return Err(Fault::new("invalid map call", "give names and values in pairs"));
    }
    let mut entries: BTreeMap<StoredValue, Value> = BTreeMap::new();
    for pair in args.chunks_exact(2) {
        let [Value::Str(name), value] = pair else {
            return Err(Fault::new("map keys must be strings", "put the name in quotes"));
        };
        entries.insert(name.clone(), value.clone());
    }
    Ok(Value::Map(Map::new(entries)?))
}

fn list(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::List(List::new(Elem::Any, args.to_vec())?))
}

fn append(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let mut all = items(args, 0).to_vec();
    all.extend(args.get(1).cloned());
    Ok(Value::List(List::new(Elem::Any, all)?))
}

fn has_key(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Bool(entries(args, 0).is_some_and(|map| map.entries().contains_key(bytes(args, 1)))))
}

fn keys(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let names: Vec<StoredValue> =
        entries(args, 0).map(|map| map.entries().keys().cloned().collect()).unwrap_or_default();
    Ok(Value::List(List::strings(names)))
}

fn values(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let values =
        entries(args, 0).map(|map| map.entries().values().cloned().collect()).unwrap_or_default();
    Ok(Value::List(List::new(Elem::Any, values)?))
}

fn pluck(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let name = bytes(args, 0);
    let found = (1..args.len()).filter_map(|i| entries(args, i)?.entries().get(name).cloned());
    let found: Vec<Value> = found.collect();
    Ok(Value::List(if found.is_empty() {
        List::nil(Elem::Any)
    } else {
        List::new(Elem::Any, found)?
    }))
}

/// A struct is empty when all its fields are.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Record(record) => record.fields.iter().all(|(_, field)| is_empty(field)),
        other => !other.is_true(),
    }
}

fn default(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let given = args.get(1).filter(|value| !is_empty(value));
    Ok(given.or(args.first()).cloned().unwrap_or(Value::Nil))
}

fn ternary(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let yes = matches!(args.get(2), Some(Value::Bool(true)));
    Ok(args.get(usize::from(!yes)).cloned().unwrap_or(Value::Nil))
}

fn coalesce(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(args.iter().find(|value| !is_empty(value)).cloned().unwrap_or(Value::Nil))
}

fn empty(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Bool(args.first().is_none_or(is_empty)))
}
