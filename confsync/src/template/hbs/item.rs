//! The items of a loop: JSON, a function's values, or backends, queried field by field.
//!
//! All three give the same results as the JSON of the whole item, which need not be built then:
//! with thousands of backends it would be ten times their own size. Pure.

use std::borrow::Cow;

use handlebars::{JsonRender, JsonTruthy, RenderError, RenderErrorReason};
use serde_json::{Map, Value as Json};

use super::json;
use crate::template::NamedBackend;
use crate::template::runes::to_str;
use crate::template::value::{Record, Value};

/// A field's value.
pub(super) enum Leaf<'a> {
    Text(Cow<'a, str>),
    Other(Cow<'a, Json>),
}

impl<'a> Leaf<'a> {
    /// A text is always [`Leaf::Text`].
    pub(super) fn of(json: &'a Json) -> Self {
        match json {
            Json::String(text) => Self::Text(Cow::Borrowed(text)),
            json => Self::Other(Cow::Borrowed(json)),
        }
    }

    fn made(json: Json) -> Self {
        match json {
            Json::String(text) => Self::Text(Cow::Owned(text)),
            json => Self::Other(Cow::Owned(json)),
        }
    }

    /// Whether it counts as true in `if`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Other(json) => json.is_truthy(false),
        }
    }

    /// As it is written.
    pub(super) fn shown(&'a self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Other(json) => Cow::Owned(json.render()),
        }
    }
}

/// The value at a path; `None` where there is no such field.
pub(super) type FieldResult<'a> = Result<Option<Leaf<'a>>, RenderError>;

/// An item of a loop.
pub(super) trait Item {
    /// The field at the end of a path; of an empty path, the item.
    ///
    /// # Errors
    /// When a list is asked for what is not a number.
    fn at(&self, path: &[&str]) -> FieldResult<'_>;
}

/// An item during its iteration.
pub(super) struct Turn<'i, I> {
    pub(super) item: &'i I,
    /// The name of a field of an object.
    pub(super) key: Option<&'i str>,
    pub(super) index: usize,
    pub(super) last: bool,
}

/// What a body can query of an iteration.
pub(super) enum Ask<'t> {
    Field(Vec<&'t str>),
    First,
    Last,
    Index,
    Key,
    /// The key of an object's item, the index of a list's.
    Place,
}

impl<I: Item> Turn<'_, I> {
    /// The value of a query.
    ///
    /// # Errors
    /// When a list is asked for what is not a number.
    pub(super) fn answer(&self, ask: &Ask<'_>) -> FieldResult<'_> {
        let key = self.key.map(|key| Leaf::Text(Cow::Borrowed(key)));
        Ok(match ask {
            Ask::Field(path) => return self.item.at(path),
            Ask::First => Some(Leaf::made((self.index == 0).into())),
            Ask::Last => Some(Leaf::made(self.last.into())),
            Ask::Index => Some(Leaf::made(self.index.into())),
            Ask::Key => key,
            Ask::Place => Some(key.unwrap_or_else(|| Leaf::made(self.index.into()))),
        })
    }
}

fn index(name: &str) -> Result<usize, RenderError> {
    name.parse().map_err(|_| RenderErrorReason::InvalidJsonIndex(name.to_owned()).into())
}

impl Item for Json {
    fn at(&self, path: &[&str]) -> FieldResult<'_> {
        let Some((name, rest)) = path.split_first() else {
            return Ok(Some(Leaf::of(self)));
        };
        let next = match self {
            Json::Array(items) => items.get(index(name)?),
            Json::Object(fields) => fields.get(*name),
            _ => None,
        };
        next.map_or(Ok(None), |next| next.at(rest))
    }
}

impl Item for Value {
    fn at(&self, path: &[&str]) -> FieldResult<'_> {
        let Some((name, rest)) = path.split_first() else {
            return Ok(Some(match self {
                Value::Str(text) => Leaf::Text(to_str(text)),
                value => Leaf::made(json::from_value(value)),
            }));
        };
        let next = match self {
            Value::List(list) => list.items().get(index(name)?),
            Value::Map(map) => map.entries().get(name.as_bytes()),
            Value::Record(record) => field(record, name),
            _ => None,
        };
        next.map_or(Ok(None), |next| next.at(rest))
    }
}

/// A field by its name in JSON, which is in small letters.
fn field<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    let small = |field: &str| field.chars().flat_map(char::to_lowercase).eq(name.chars());
    record.fields.iter().find(|(field, _)| small(field)).map(|(_, value)| value)
}

impl Item for NamedBackend {
    fn at(&self, path: &[&str]) -> FieldResult<'_> {
        let text = |text| Some(Leaf::Text(Cow::Borrowed(text)));
        Ok(match path {
            [] => Some(Leaf::made(backend(self))),
            ["addr"] => Some(Leaf::Text(Cow::Owned(self.backend.addr.to_string()))),
            ["host"] => Some(Leaf::Text(Cow::Owned(host(&self.backend.addr.to_string())))),
            ["port"] => Some(Leaf::made(self.backend.addr.port().into())),
            ["weight"] => Some(Leaf::made(self.backend.weight.into())),
            ["zone"] => self.backend.zone.as_deref().map_or(Some(Leaf::made(Json::Null)), text),
            ["meta"] => Some(Leaf::made(meta(self))),
            ["meta", name] => self.backend.meta.get(*name).map(String::as_str).and_then(text),
            ["key"] => text(&self.key),
            ["service"] => text(&self.service),
            ["id"] => text(self.id()),
            _ => None,
        })
    }
}

/// The address without the port, in brackets where it is IPv6.
fn host(addr: &str) -> String {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host).to_owned()
}

fn meta(named: &NamedBackend) -> Json {
    let entries = named.backend.meta.iter();
    Json::Object(entries.map(|(k, v)| (k.clone(), v.as_str().into())).collect())
}

/// What a backend has.
pub(super) const FIELDS: [&str; 9] =
    ["addr", "host", "port", "weight", "zone", "meta", "key", "service", "id"];

/// The whole of a backend.
pub(super) fn backend(named: &NamedBackend) -> Json {
    let backend = &named.backend;
    let addr = backend.addr.to_string();
    let mut fields = Map::new();
    let mut field = |name: &str, value: Json| fields.insert(name.to_owned(), value);
    field("host", host(&addr).into());
    field("addr", addr.into());
    field("port", backend.addr.port().into());
    field("weight", backend.weight.into());
    field("zone", backend.zone.as_deref().into());
    field("meta", meta(named));
    field("key", (*named.key).into());
    field("service", (*named.service).into());
    field("id", named.id().into());
    Json::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::model::Backend;

    fn shown(item: &impl Item, path: &[&str]) -> Result<Option<String>, String> {
        let leaf = item.at(path).map_err(|error| error.to_string())?;
        Ok(leaf.map(|leaf| leaf.shown().into_owned()))
    }

    /// Every path that there is, and some that there are not.
    const PATHS: [&[&str]; 18] = [
        &[],
        &["addr"],
        &["host"],
        &["port"],
        &["weight"],
        &["zone"],
        &["meta"],
        &["meta", "rack"],
        &["meta", "none"],
        &["key"],
        &["service"],
        &["id"],
        &["Key"],
        &["value"],
        &["addr", "0"],
        &["0"],
        &["1", "value"],
        &["9"],
    ];

    #[test]
    fn a_backend_answers_as_its_json_does() {
        let values = [
            "10.0.0.1:80",
            "[::1]:8080",
            "web.example:1",
            r#"{"addr":"10.0.0.1:80","weight":3,"zone":"a","meta":{"rack":"7"}}"#,
        ];
        for value in values {
            let backend = Backend::parse(value.as_bytes()).unwrap();
            let key = "/services/web/one".into();
            let named = NamedBackend { key, service: "web".into(), backend };
            let whole = super::backend(&named);
            for path in PATHS {
                assert_eq!(shown(&named, path), shown(&whole, path), "{value} {path:?}");
            }
        }
    }

    #[test]
    fn a_function_s_value_answers_as_its_json_does() {
        use crate::template::value::{Elem, List, Map};
        let pair = Value::pair("/a", "x");
        let record = List::flat(Elem::Pair, vec![pair.clone(), pair.clone()]);
        let map = [("zone".into(), Value::Nil), ("0".into(), Value::Float(3.0))].into();
        let values = [
            pair,
            Value::str("text"),
            Value::Bool(true),
            Value::List(record),
            Value::Map(Map::new(map).unwrap()),
        ];
        for value in values {
            let whole = json::from_value(&value);
            for path in PATHS {
                assert_eq!(shown(&value, path), shown(&whole, path), "{value:?} {path:?}");
            }
        }
    }
}
