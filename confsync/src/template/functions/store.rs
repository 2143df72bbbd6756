//! The seven functions that read the keys: `exists get gets getv getvs ls lsdir`.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use common::model::StoredValue;

use super::{Call, Fault, Function, FunctionResult, Ty, text};
use crate::template::path::{self, Pattern};
use crate::template::value::{Elem, List, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("exists", &[Ty::Str], exists),
    Function::new("get", &[Ty::Str], get),
    Function::new("gets", &[Ty::Str], gets),
    Function::variadic("getv", &[Ty::Str], Ty::Str, getv),
    Function::new("getvs", &[Ty::Str], getvs),
    Function::new("ls", &[Ty::Str], ls),
    Function::new("lsdir", &[Ty::Str], lsdir),
];

fn exists(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Bool(call.keys().contains_key(&*text(args, 0))))
}

fn missing(call: &Call<'_>, key: &str) -> Fault {
    let remedy = if key.starts_with('/') {
        let near = call.keys().keys().find(|k| path::base(k) == path::base(key));
        let near = near.map(|k| format!(" (there is `{k}`)")).unwrap_or_default();
        format!(
            "give a default: `getv \"{key}\" \"…\"`, or ask first with `exists`; \
             a key is seen only if `keys` covers it, and without `prefix`{near}"
        )
    } else {
        format!("keys begin with `/`: `/{key}`")
    };
    Fault::new(format!("key does not exist: {key}"), remedy)
}

fn pair(key: &Arc<str>, value: &StoredValue) -> Value {
    Value::pair(Arc::clone(key), value.clone())
}

fn get(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let key = text(args, 0);
    let (key, value) = call.keys().get_key_value(&*key).ok_or_else(|| missing(call, &key))?;
    Ok(pair(key, value))
}

fn getv(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let key = text(args, 0);
    match (call.keys().get(&*key), args.get(1)) {
        (Some(value), _) => Ok(Value::Str(value.clone())),
        (None, Some(default)) => Ok(default.clone()),
        (None, None) => Err(missing(call, &key)),
    }
}

type KeyPair<'a> = (&'a Arc<str>, &'a StoredValue);

/// Calls `each` for every key that matches a pattern, in byte order. Only keys with the pattern's
/// literal prefix are examined.
fn fitting(call: &Call<'_>, pattern: &str, mut each: impl FnMut(KeyPair<'_>)) -> Result<(), Fault> {
    if call.keys().is_empty() {
        // confd reads the pattern only when it has a key to match.
        return Ok(());
    }
    let read = Pattern::new(pattern).map_err(|e| {
        Fault::new(
            format!("{e}: `{pattern}`"),
            "a `[` needs its `]`; a literal `[` or `*` is written `\\\\[`, `\\\\*`",
        )
    })?;
    beginning(call, &read.prefix(), |(key, value)| {
        if read.fits(key) {
            each((key, value));
        }
    })
}

/// Calls `each` for every key with a prefix. Charges one step each.
fn beginning<'a>(
    call: &Call<'a>,
    text: &str,
    mut each: impl FnMut(KeyPair<'a>),
) -> Result<(), Fault> {
    let from = (Bound::Included(text), Bound::Unbounded);
    let all = call.keys().range::<_, str>(from).take_while(|(key, _)| key.starts_with(text));
    for entry in all {
        call.budget.steps(1)?;
        each(entry);
    }
    Ok(())
}

fn gets(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let mut pairs = Vec::new();
    fitting(call, &text(args, 0), |(key, value)| pairs.push(pair(key, value)))?;
    let none = pairs.is_empty();
    Ok(Value::List(if none { List::no_pairs() } else { List::flat(Elem::Pairs, pairs) }))
}

fn getvs(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    // There may be thousands of addresses, which mostly differ in their first bytes.
    let mut values = Vec::new();
    fitting(call, &text(args, 0), |(_, value)| values.push((head(value), value.clone())))?;
    values.sort_unstable();
    let values = values.into_iter().map(|(_, value)| Value::Str(value));
    Ok(Value::List(List::flat(Elem::Str, values.collect())))
}

/// The first bytes of a text as a number that compares as they do; a text that ends before has
/// zeros.
fn head(text: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    u128::from_be_bytes(bytes)
}

/// The parts of a path as confd compares them: `/` has two, both empty, which is
/// why `ls "/"` sees leaves only.
fn terms(path: &str) -> Vec<String> {
    path::clean(path).split('/').map(str::to_owned).collect()
}

fn under(prefix: &[String], other: &[String]) -> bool {
    other.len() >= prefix.len() && other.iter().zip(prefix).all(|(a, b)| a == b)
}

fn ls(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let dir = &*text(args, 0);
    let prefix = terms(dir);
    // A folder written cleanly is where its keys begin; else every key is looked at.
    let plain = dir.trim_end_matches('/');
    let begin = if path::clean(dir) == plain { plain } else { "" };
    let mut names = BTreeSet::new();
    beginning(call, begin, |(key, _)| {
        if **key == *dir {
            names.insert(path::base(key));
        } else if under(&prefix, &terms(&path::dir(key))) {
            let rest = key.strip_prefix(dir).unwrap_or(key);
            let rest = rest.strip_prefix('/').unwrap_or(rest);
            names.insert(rest.split('/').next().unwrap_or(rest));
        }
    })?;
    Ok(Value::List(List::strings(names)))
}

fn lsdir(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    let dir = &*text(args, 0);
    // confd finds nothing under `/`: it compares two empty parts. A mistake, so
    // not copied.
    let prefix = if dir == "/" { vec![String::new()] } else { terms(dir) };
    let mut names = BTreeSet::new();
    beginning(call, dir, |(key, _)| {
        let parts = terms(&path::dir(key));
        let name = parts.get(prefix.len()).filter(|name| !name.is_empty());
        if let Some(name) = name.filter(|_| under(&prefix, &parts)) {
            names.insert(name.clone());
        }
    })?;
    Ok(Value::List(List::strings(names)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_order_texts_as_their_bytes_do(mut texts: Vec<(bool, Vec<u8>)>) {
            // Some are alike in more than a head has.
            let whole = |(long, text): &(bool, Vec<u8>)| {
                let start: &[u8] = if *long { b"backend-0001.example.org:" } else { b"" };
                [start, text].concat()
            };
            let mut sorted: Vec<_> = texts.iter().map(whole).collect();
            sorted.sort();
            texts.sort_by_cached_key(|text| (head(&whole(text)), whole(text)));
            prop_assert_eq!(texts.iter().map(whole).collect::<Vec<_>>(), sorted);
        }
    }
}
