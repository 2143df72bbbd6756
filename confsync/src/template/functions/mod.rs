//! The functions of templates: confd's thirty-nine and those of its fork, in one table for both
//! languages.
//!
//! A function gets its arguments, the keys and a budget, and does not depend on the engine.
//! Arguments are checked against the table before the call. The semantics are exactly confd's;
//! `docs/confd.md` lists the exceptions.

mod data;
mod lists;
pub(crate) mod members;
mod numbers;
mod outside;
mod regex;
mod store;
mod text;
mod words;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use members::Mark;

use super::Input;
use super::kv::Texts;
use super::runes::to_str;
use super::system::System;
use super::value::{Elem, List, Map, TooDeep, Value};

/// The longest text a template may make, in bytes; also the longest output.
pub(crate) const MAX_TEXT: usize = 64 << 20;
/// The longest list a function may return.
pub(crate) const MAX_ITEMS: usize = 1_000_000;
/// How much work one render may be: calls, iterations, keys looked at, and bytes
/// of text made, a sixty-fourth each.
pub(crate) const MAX_STEPS: u64 = 5_000_000;
/// How many bytes all values of one render may have together.
pub(crate) const MAX_BYTES: u64 = 512 << 20;

/// What a parameter accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ty {
    /// `string`
    Str,
    /// `int`
    Int,
    /// `bool`
    Bool,
    /// `interface{}`
    Any,
    /// Any value, and the lack of one.
    Raw,
    /// `[]string`
    Strings,
    /// `[]memkv.KVPair`
    Pairs,
    /// `[]interface{}`
    Items,
    /// `map[string]interface{}`
    Map,
}

/// A function as templates know it.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// The parameters that must be there.
    pub(crate) params: &'static [Ty],
    /// What may follow them, any number of times.
    pub(crate) rest: Option<Ty>,
    /// What it does.
    pub(crate) call: FunctionBody,
}

type FunctionBody = fn(&Call<'_>, &[Value]) -> FunctionResult;

impl Function {
    /// A function of just these parameters.
    pub(crate) const fn new(name: &'static str, params: &'static [Ty], call: FunctionBody) -> Self {
        Self { name, params, rest: None, call }
    }

    /// A function that takes any number of `rest` after its parameters.
    pub(crate) const fn variadic(
        name: &'static str,
        params: &'static [Ty],
        rest: Ty,
        call: FunctionBody,
    ) -> Self {
        Self { name, params, rest: Some(rest), call }
    }
}

/// What a function gets besides its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    input: &'a Input,
    /// What the render may still use.
    pub(crate) budget: &'a Budget,
}

impl<'a> Call<'a> {
    /// A call within one render of `input`.
    pub(crate) fn new(input: &'a Input, budget: &'a Budget) -> Self {
        Self { input, budget }
    }

    /// The keys and values of the resource.
    pub(crate) fn keys(&self) -> &'a Texts {
        self.input.keys()
    }

    /// The system that may be queried.
    pub(crate) fn system(&self) -> &'a dyn System {
        self.input.system()
    }

    /// The placeholder for lines that name backends.
    pub(crate) fn mark(&self) -> &'a Mark {
        &self.input.mark
    }
}

/// A function's result.
pub(crate) type FunctionResult = Result<Value, Fault>;

/// Why a function failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What went wrong, worded as confd does.
    pub(crate) what: String,
    /// What the author of the template can do.
    pub(crate) remedy: Option<String>,
}

impl Fault {
    /// A fault with advice.
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: Some(remedy.into()) }
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self { what, remedy: None }
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Self {
        what.to_owned().into()
    }
}

impl From<TooDeep> for Fault {
    fn from(error: TooDeep) -> Self {
        error.to_string().into()
    }
}

/// The limits of one render, so that no template runs or grows without bound.
#[derive(Debug)]
pub(crate) struct Budget {
    steps: AtomicU64,
    bytes: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: AtomicU64::new(MAX_STEPS), bytes: AtomicU64::new(MAX_BYTES) }
    }
}

impl Budget {
    /// Charges steps.
    ///
    /// # Errors
    /// When the budget is used up.
    pub(crate) fn steps(&self, count: usize) -> Result<(), Fault> {
        spend(&self.steps, count as u64).ok_or_else(|| {
            Fault::new(
                format!("the template needs more than {MAX_STEPS} steps"),
                "does a `range` or a `template` call repeat itself? Nested loops over many keys multiply",
            )
        })
    }

    /// Charges the memory of a value.
    ///
    /// # Errors
    /// When the budget is used up, or the value alone is too large.
    pub(crate) fn made(&self, value: &Value) -> Result<(), Fault> {
        let bytes = match value {
            Value::Str(s) => s.len(),
            Value::List(list) => list.items().len() * 96,
            Value::Map(map) => map.entries().len() * 96,
            _ => 0,
        };
        if bytes > 2 * MAX_TEXT {
            return Err(too_large());
        }
        self.steps(1 + bytes / 64)?;
        spend(&self.bytes, bytes as u64).ok_or_else(|| {
            Fault::new(
                format!(
                    "the values of the template have more than {} MiB together",
                    MAX_BYTES >> 20
                ),
                "compute a list once, before the loop that uses it",
            )
        })
    }
}

/// Subtracts from what is left, if there is enough.
fn spend(left: &AtomicU64, count: u64) -> Option<()> {
    let take = |left: u64| left.checked_sub(count);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(drop)
}

/// The fault for a value that is too large.
pub(crate) fn too_large() -> Fault {
    Fault::new(
        format!("the text would have more than {} MiB", MAX_TEXT >> 20),
        "does the template feed a text back into itself?",
    )
}

const TABLES: [&[Function]; 9] = [
    store::FUNCTIONS,
    text::FUNCTIONS,
    words::FUNCTIONS,
    regex::FUNCTIONS,
    lists::FUNCTIONS,
    numbers::FUNCTIONS,
    data::FUNCTIONS,
    outside::FUNCTIONS,
    members::FUNCTIONS,
];

pub(crate) fn all() -> impl Iterator<Item = &'static Function> {
    TABLES.iter().copied().flatten()
}

/// A longer name is not a misspelt function, and not worth comparing.
const LONGEST_NAME: usize = 40;

/// The name nearest to a misspelt one.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let lower = name.to_lowercase();
    // In a short name, two letters are half of it: the match would be another word.
    let most = if name.chars().count() < 5 { 1 } else { 2 };
    names
        .map(|n| (strsim::osa_distance(&lower, &n.to_lowercase()), n))
        .filter(|(d, n)| *d <= most && *d < n.len())
        .min()
        .map(|(_, n)| n)
}

impl Ty {
    /// Go's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Str => "string",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Any | Self::Raw => "interface {}",
            Self::Strings => "[]string",
            Self::Pairs => "[]memkv.KVPair",
            Self::Items => "[]interface {}",
            Self::Map => "map[string]interface {}",
        }
    }

    /// Converts a value to a parameter's type, as Go's `validateType` would.
    ///
    /// # Errors
    /// When the type is another.
    pub(crate) fn accept(self, value: Value) -> Result<Value, Fault> {
        let fits = match (self, &value) {
            (Self::Raw, _) | (Self::Str, Value::Str(_)) | (Self::Int, Value::Int(_)) => true,
            (Self::Any, Value::Absent) => return Ok(Value::Nil),
            (Self::Any, _) | (Self::Bool, Value::Bool(_)) | (Self::Map, Value::Map(_)) => true,
            (Self::Strings, Value::List(list)) => list.elem == Elem::Str,
            (Self::Pairs, Value::List(list)) => matches!(list.elem, Elem::Pair | Elem::Pairs),
            (Self::Items, Value::List(list)) => list.elem == Elem::Any,
            (Self::Strings, Value::Absent) => return Ok(empty(Elem::Str)),
            (Self::Pairs, Value::Absent) => return Ok(empty(Elem::Pair)),
            (Self::Items, Value::Absent) => return Ok(empty(Elem::Any)),
            (Self::Map, Value::Absent) => return Ok(Value::Map(Map::nil())),
            _ => false,
        };
        if fits {
            return Ok(value);
        }
        let remedy = match (self, &value) {
            (Self::Str, Value::Absent | Value::Nil) => {
                "the field is missing; test it with `if` first"
            }
            (Self::Int, Value::Str(_)) => "make it a number with `atoi`",
            (Self::Int, Value::Float(_)) => {
                "numbers from JSON are not integers; write `atoi (printf \"%.0f\" X)`"
            }
            (Self::Str, Value::Int(_) | Value::Float(_)) => "make it text with `print`",
            _ => "give it a value of that type",
        };
        Err(Fault::new(
            format!("wrong type for value; expected {}; got {}", self.name(), value.type_name()),
            remedy,
        ))
    }
}

fn empty(elem: Elem) -> Value {
    Value::List(List::nil(elem))
}

/// The bytes of an argument that the table says is a text.
fn bytes(args: &[Value], at: usize) -> &[u8] {
    if let Some(Value::Str(s)) = args.get(at) { s } else { b"" }
}

/// The text of an argument that the table says is one, read as Go reads runes: a byte that is
/// no UTF-8 is U+FFFD.
fn text(args: &[Value], at: usize) -> Cow<'_, str> {
    to_str(bytes(args, at))
}

/// The number of an argument that the table says is one.
fn int(args: &[Value], at: usize) -> i64 {
    if let Some(Value::Int(n)) = args.get(at) { *n } else { 0 }
}

/// The elements of an argument that the table says is a list.
fn items(args: &[Value], at: usize) -> &[Value] {
    if let Some(Value::List(list)) = args.get(at) { list.items() } else { &[] }
}

/// The entries of an argument that the table says is a map.
fn entries(args: &[Value], at: usize) -> Option<&Map> {
    if let Some(Value::Map(map)) = args.get(at) { Some(map) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_confd_s_functions_and_its_fork_s_and_our_two_words() {
        let names: BTreeSet<&str> = all().map(|f| f.name).collect();
        // `include` renders, so it belongs to the engine.
        assert_eq!(names.len(), 39 + 32 - 1 + 2);
        assert_eq!(names.len(), all().count());
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        let near = |name| nearest(name, all().map(|f| f.name));
        assert_eq!(near("getsv"), Some("gets"));
        assert_eq!(near("toupper"), Some("toUpper"));
        assert_eq!(near("jsonarray"), Some("jsonArray"));
        assert_eq!(near("frobnicate"), None);
        assert_eq!(near("foo"), None);
        assert_eq!(near("ste"), None);
    }
}
