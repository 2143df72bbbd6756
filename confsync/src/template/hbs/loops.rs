//! `{{#each}}` where handlebars' own loop would be too expensive.
//!
//! Handlebars' loop over a helper's result copies the list, then each item. These loops create an
//! item when its iteration comes, and with a plain body not even that.

use std::sync::Arc;

use handlebars::{
    BlockContext, BlockParams, Context, Handlebars, Helper, HelperDef, HelperResult, Output,
    RenderContext, RenderError, RenderErrorReason, Renderable, ScopedJson,
};
use serde_json::Value as Json;

use super::definition::{RenderState, register_value};
use super::each::{ANY, BACKENDS, OF, PLAIN, PLAIN_OF};
use super::invoke::{Made, call_ours};
use super::item::{self, Item, Turn};
use super::json;
use super::plain::{LastWritten, Names, PlainBody};
use crate::template::value::Value;

/// Registers the loops.
pub(super) fn register<'a>(registry: &mut Handlebars<'a>, state: &Arc<RenderState<'a>>) {
    let of_any = Arc::clone(state);
    register_value(registry, ANY, move |_| {
        Ok(ScopedJson::Derived(Json::Bool(!of_any.input.backends().is_empty())))
    });
    let each = |over| Box::new(Each { over, state: Arc::clone(state) });
    registry.register_helper(BACKENDS, each(Over::Backends));
    registry.register_helper(PLAIN, each(Over::Json));
    registry.register_helper(OF, each(Over::Made { plain: false }));
    registry.register_helper(PLAIN_OF, each(Over::Made { plain: true }));
}

struct Each<'a> {
    over: Over,
    state: Arc<RenderState<'a>>,
}

/// The source of the items.
#[derive(Clone, Copy)]
enum Over {
    Backends,
    Json,
    Made { plain: bool },
}

impl HelperDef for Each<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        data: &'rc Context,
        context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let plain = plain(helper);
        let run = LoopRun { helper, registry, data, context, out, state: &self.state };
        match self.over {
            Over::Backends => run.backends(plain.as_ref()),
            Over::Json => {
                let none = || RenderErrorReason::ParamNotFoundForIndex("each", 0);
                let value = helper.param(0).ok_or_else(none)?;
                run.json(plain.as_ref(), value.value(), value.relative_path())
            }
            Over::Made { plain: is_plain } => {
                let plain = plain.as_ref().filter(|_| is_plain);
                match call_ours(helper, &self.state)? {
                    Made::Json(json) if plain.is_some() => run.json(plain, &json, None),
                    Made::Json(json) => run.own_json(json),
                    Made::Value(value) => run.value(plain, &value),
                }
            }
        }
    }
}

fn plain<'rc>(helper: &Helper<'rc>) -> Option<PlainBody<'rc>> {
    let pair = helper.block_param_pair();
    let item = helper.block_param().or(pair.map(|(item, _)| item));
    PlainBody::of(helper.template()?, Names { item, place: pair.map(|(_, place)| place) })
}

/// One loop being run.
struct LoopRun<'l, 'a, 'reg, 'rc> {
    helper: &'l Helper<'rc>,
    registry: &'reg Handlebars<'reg>,
    data: &'rc Context,
    context: &'l mut RenderContext<'reg, 'rc>,
    out: &'l mut dyn Output,
    state: &'l RenderState<'a>,
}

impl<'reg: 'rc, 'rc> LoopRun<'_, '_, 'reg, 'rc> {
    fn backends(self, plain: Option<&PlainBody<'_>>) -> HelperResult {
        let backends = self.state.input.backends();
        if backends.is_empty() && self.helper.inverse().is_some() {
            return self.nothing(None);
        }
        match plain {
            Some(plain) => self.write(plain, backends.len(), backends.iter().map(unnamed)),
            None => {
                let made = backends.iter().map(|named| (None, item::backend(named)));
                self.walk(backends.len(), made)
            }
        }
    }

    fn json(
        self,
        plain: Option<&PlainBody<'_>>,
        json: &Json,
        path: Option<&String>,
    ) -> HelperResult {
        let may_be_empty = self.helper.inverse().is_none();
        let Some(plain) = plain else { return Ok(()) };
        match json {
            Json::Array(items) if may_be_empty || !items.is_empty() => {
                self.write(plain, items.len(), items.iter().map(unnamed))
            }
            Json::Object(fields) if may_be_empty || !fields.is_empty() => {
                let items = fields.iter().map(|(key, item)| (Some(key.as_str()), item));
                self.write(plain, fields.len(), items)
            }
            _ => self.nothing(path),
        }
    }

    fn own_json(self, json: Json) -> HelperResult {
        let may_be_empty = self.helper.inverse().is_none();
        match json {
            Json::Array(items) if may_be_empty || !items.is_empty() => {
                self.walk(items.len(), items.into_iter().map(|item| (None, item)))
            }
            Json::Object(fields) if may_be_empty || !fields.is_empty() => {
                self.walk(fields.len(), fields.into_iter().map(|(key, item)| (Some(key), item)))
            }
            _ => self.nothing(None),
        }
    }

    fn value(self, plain: Option<&PlainBody<'_>>, value: &Value) -> HelperResult {
        let may_be_empty = self.helper.inverse().is_none();
        match (value, plain) {
            (Value::List(list), Some(plain)) if may_be_empty || !list.items().is_empty() => {
                self.write(plain, list.items().len(), list.items().iter().map(unnamed))
            }
            (Value::List(list), None) if may_be_empty || !list.items().is_empty() => {
                let items = list.items().iter().map(|item| (None, json::from_value(item)));
                self.walk(list.items().len(), items)
            }
            (value, plain) => match json::from_value(value) {
                json if plain.is_some() => self.json(plain, &json, None),
                json => self.own_json(json),
            },
        }
    }

    /// A loop with a plain body.
    fn write<'i, I: Item + 'i>(
        self,
        plain: &PlainBody<'_>,
        count: usize,
        items: impl Iterator<Item = (Option<&'i str>, &'i I)>,
    ) -> HelperResult {
        let mut written = LastWritten::default();
        for (index, (key, item)) in items.enumerate() {
            // So does handlebars at each body.
            self.context.set_current_template_name(None);
            let turn = Turn { item, key, index, last: index + 1 == count };
            plain.write(&turn, self.state, &mut written, self.out)?;
        }
        written.tell(self.context);
        Ok(())
    }

    /// A loop with any body: each item becomes the body's context.
    fn walk(
        self,
        count: usize,
        items: impl Iterator<Item = (Option<String>, Json)>,
    ) -> HelperResult {
        let Some(body) = self.helper.template() else { return Ok(()) };
        self.context.push_block(BlockContext::new());
        for (index, (key, item)) in items.enumerate() {
            if let Some(block) = self.context.block_mut() {
                block.set_local_var("first", (index == 0).into());
                block.set_local_var("last", (index + 1 == count).into());
                block.set_local_var("index", index.into());
                let place = key.map_or_else(|| Json::from(index), Json::String);
                if place.is_string() {
                    block.set_local_var("key", place.clone());
                }
                name_item(self.helper, block, place, &item)?;
                block.set_base_value(item);
            }
            body.render(self.registry, self.data, self.context, self.out)?;
        }
        self.context.pop_block();
        Ok(())
    }

    /// Writes the `else` branch of an empty loop.
    fn nothing(self, path: Option<&String>) -> HelperResult {
        match self.helper.inverse() {
            Some(inverse) => inverse.render(self.registry, self.data, self.context, self.out),
            None => Err(RenderError::strict_error(path)),
        }
    }
}

fn unnamed<I>(item: &I) -> (Option<&str>, &I) {
    (None, item)
}

/// Sets the names in `as |item place|`.
fn name_item<'rc>(
    helper: &Helper<'rc>,
    block: &mut BlockContext<'rc>,
    place: Json,
    item: &Json,
) -> HelperResult {
    let mut names = BlockParams::new();
    if let Some(name) = helper.block_param() {
        names.add_value(name, item.clone())?;
    } else if let Some((name, of_place)) = helper.block_param_pair() {
        names.add_value(name, item.clone())?;
        names.add_value(of_place, place)?;
    } else {
        return Ok(());
    }
    block.set_block_params(names);
    Ok(())
}
