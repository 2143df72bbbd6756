//! The values that templates compute with: Go's values, as far as a template can see them.
//!
//! Knows nothing of stores, engines or output. A list remembers what Go's type
//! of its elements would be, because functions accept one and refuse the other.
//! Lists and maps know their depth, so that no value can be nested so deep that
//! printing or dropping it would exhaust the stack.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::model::StoredValue;

use super::time::Time;

/// How deep lists and maps may be nested; `encoding/json` data is far flatter.
pub(crate) const MAX_DEPTH: u16 = 200;

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// No value at all: a missing map key, the dot of the outermost template.
    Absent,
    /// An interface that holds nothing: JSON's `null`.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// Go's `int`.
    Int(i64),
    /// Go's `uint8` or `uint16`.
    Uint(Uint),
    /// Go's `float64`, which every JSON number is.
    Float(f64),
    /// Go's `string`: bytes, most often UTF-8.
    Str(StoredValue),
    /// A slice.
    List(List),
    /// A `map[string]interface{}`, sorted as Go prints it.
    Map(Map),
    /// A struct: a `KVPair`, a service record.
    Record(Arc<Record>),
    /// What `datetime` returns.
    Time(Time),
}

/// A whole number that Go does not take for an `int`: no parameter accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uint {
    /// A byte of a text: `index "abc" 0`.
    Byte(u8),
    /// A port, a priority, a weight.
    Short(u16),
}

/// Go's type of a slice's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elem {
    /// `interface{}`
    Any,
    /// `string`
    Str,
    /// `int`
    Int,
    /// `memkv.KVPair`, in the named type that `gets` returns.
    Pairs,
    /// `memkv.KVPair`
    Pair,
    /// `*net.SRV`
    Service,
}

/// A slice of values.
#[derive(Debug, Clone)]
pub(crate) struct List {
    /// The element type that Go would report.
    pub(crate) elem: Elem,
    items: Arc<Vec<Value>>,
    depth: u16,
    is_nil: bool,
    is_null: bool,
}

/// A map of values by name.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    entries: Arc<BTreeMap<StoredValue, Value>>,
    depth: u16,
    is_nil: bool,
}

/// A struct with named fields.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Go's name of the type.
    pub(crate) name: &'static str,
    /// The fields, in Go's order.
    pub(crate) fields: Vec<(&'static str, Value)>,
}

/// A value would be nested deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lists and maps are nested more than {MAX_DEPTH} deep")]
pub(crate) struct TooDeep;

fn depth_over<'a>(values: impl Iterator<Item = &'a Value>) -> Result<u16, TooDeep> {
    let depth = 1 + values.map(Value::depth).max().unwrap_or(0);
    if depth > MAX_DEPTH { Err(TooDeep) } else { Ok(depth) }
}

impl List {
    /// A slice of these.
    pub(crate) fn new(elem: Elem, items: Vec<Value>) -> Result<Self, TooDeep> {
        let depth = if elem == Elem::Any { depth_over(items.iter())? } else { 1 };
        Ok(Self { elem, items: Arc::new(items), depth, is_nil: false, is_null: false })
    }

    /// A `[]string`.
    pub(crate) fn strings<S: Into<StoredValue>>(items: impl IntoIterator<Item = S>) -> Self {
        Self::flat(Elem::Str, items.into_iter().map(|s| Value::Str(s.into())).collect())
    }

    /// A slice of one flat type: texts, ints, pairs, service records.
    pub(crate) fn flat(elem: Elem, items: Vec<Value>) -> Self {
        Self { elem, items: Arc::new(items), depth: 1, is_nil: false, is_null: false }
    }

    /// A nil slice, which Go treats as an empty one nearly everywhere.
    pub(crate) fn nil(elem: Elem) -> Self {
        Self { is_nil: true, is_null: true, ..Self::flat(elem, Vec::new()) }
    }

    /// What `gets` returns when no key matches: an empty slice in confd, a nil one in its fork.
    pub(crate) fn no_pairs() -> Self {
        Self { is_null: true, ..Self::flat(Elem::Pairs, Vec::new()) }
    }

    /// Whether it is nil in confd: what `eq` and `%#v` see.
    pub(crate) fn is_nil(&self) -> bool {
        self.is_nil
    }

    /// Whether it is nil in confd's fork, which alone has `toJson`.
    pub(crate) fn is_null(&self) -> bool {
        self.is_null
    }

    /// The same, of another type.
    pub(crate) fn of(&self, elem: Elem) -> Self {
        Self { elem, ..self.clone() }
    }

    /// The elements in the reverse order. confd reverses the slice itself, so that nil stays nil;
    /// its fork makes a new one, except of what `gets` returned.
    pub(crate) fn reversed(&self) -> Self {
        let items = self.items.iter().rev().cloned().collect();
        let is_null = self.is_null && self.elem == Elem::Pairs;
        Self { items: Arc::new(items), is_null, ..self.clone() }
    }

    /// The elements.
    pub(crate) fn items(&self) -> &[Value] {
        &self.items
    }

    /// The elements between two places, which the caller has checked.
    pub(crate) fn part(&self, from: usize, to: usize) -> Self {
        let items = self.items.get(from..to).unwrap_or_default().to_vec();
        Self { items: Arc::new(items), ..self.clone() }
    }
}

impl Map {
    /// A map of these.
    pub(crate) fn new(entries: BTreeMap<StoredValue, Value>) -> Result<Self, TooDeep> {
        let depth = depth_over(entries.values())?;
        Ok(Self { entries: Arc::new(entries), depth, is_nil: false })
    }

    /// A nil map, which Go treats as an empty one nearly everywhere.
    pub(crate) fn nil() -> Self {
        Self { entries: Arc::default(), depth: 1, is_nil: true }
    }

    pub(crate) fn is_nil(&self) -> bool {
        self.is_nil
    }

    /// The entries, by name.
    pub(crate) fn entries(&self) -> &BTreeMap<StoredValue, Value> {
        &self.entries
    }
}

impl Record {
    /// Whether values of it are pointers in Go, which are equal if they point to the same.
    pub(crate) fn is_pointer(&self) -> bool {
        self.name.starts_with('*')
    }

    /// A field by its name.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

impl Uint {
    /// The number.
    pub(crate) fn int(self) -> i64 {
        match self {
            Self::Byte(n) => n.into(),
            Self::Short(n) => n.into(),
        }
    }

    /// The numbers below it, in its type.
    pub(crate) fn below(self) -> impl Iterator<Item = Self> {
        let (bytes, shorts) = match self {
            Self::Byte(n) => (0..n, 0..0),
            Self::Short(n) => (0..0, 0..n),
        };
        bytes.map(Self::Byte).chain(shorts.map(Self::Short))
    }
}

impl Value {
    /// A string.
    pub(crate) fn str(text: impl Into<StoredValue>) -> Self {
        Self::Str(text.into())
    }

    /// A key with its value, as `get` and `gets` return it.
    pub(crate) fn pair(key: impl Into<StoredValue>, value: impl Into<StoredValue>) -> Self {
        let fields = vec![("Key", Self::str(key)), ("Value", Self::str(value))];
        Self::Record(Arc::new(Record { name: "memkv.KVPair", fields }))
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&[u8]> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The number, if it is a whole one of any type.
    pub(crate) fn as_whole(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Uint(n) => Some(n.int()),
            _ => None,
        }
    }

    /// Whether `if` takes it for true: not zero, not empty.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Absent | Self::Nil => false,
            Self::Bool(b) => *b,
            Self::Int(n) => *n != 0,
            Self::Uint(n) => n.int() != 0,
            Self::Float(f) => *f != 0.0,
            Self::Str(s) => !s.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.entries.is_empty(),
            Self::Record(_) | Self::Time(_) => true,
        }
    }

    /// Go's name of its type.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Absent | Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(Uint::Byte(_)) => "uint8",
            Self::Uint(Uint::Short(_)) => "uint16",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(list) => match list.elem {
                Elem::Any => "[]interface {}",
                Elem::Str => "[]string",
                Elem::Int => "[]int",
                Elem::Pairs => "memkv.KVPairs",
                Elem::Pair => "[]memkv.KVPair",
                Elem::Service => "[]*net.SRV",
            },
            Self::Map(_) => "map[string]interface {}",
            Self::Record(record) => record.name,
            Self::Time(_) => "time.Time",
        }
    }

    fn depth(&self) -> u16 {
        match self {
            Self::List(list) => list.depth,
            Self::Map(map) => map.depth,
            _ => 0,
        }
    }

    /// An empty interface as an expression sees it: absent.
    pub(crate) fn or_absent(self) -> Self {
        if matches!(self, Self::Nil) { Self::Absent } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_where_the_value_is_made() {
        let mut value = Value::Int(1);
        for _ in 0..MAX_DEPTH {
            value = Value::List(List::new(Elem::Any, vec![value]).unwrap());
        }
        assert_eq!(List::new(Elem::Any, vec![value]).unwrap_err(), TooDeep);
    }

    #[test]
    fn truth_is_go_s() {
        assert!(!Value::Float(0.0).is_true());
        assert!(!Value::Float(-0.0).is_true());
        assert!(Value::Float(f64::NAN).is_true());
        assert!(!Value::List(List::strings(Vec::<String>::new())).is_true());
        assert!(Value::pair("", "").is_true());
    }
}
