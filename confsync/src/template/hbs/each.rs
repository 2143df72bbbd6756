//! `{{#each}}` where handlebars' own would make far more than it needs.
//!
//! Reading a template (`tree`) turns a loop into one of these where that changes
//! nothing but the cost: over backends in the outermost context, and over anything
//! with a body that `plain` can write.

use std::collections::HashMap;
use std::sync::Arc;

use handlebars::template::{BlockParam, HelperTemplate, Parameter, Subexpression, TemplateElement};
use handlebars::{
    BlockContext, Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext,
    RenderError, RenderErrorReason, Renderable, ScopedJson,
};
use serde_json::Value as Json;

use super::helpers::{Helpers, State, call_function};
use super::item::{self, Item};
use super::plain::{Plain, Written};
use crate::template::functions;
use crate::template::value::Value;

/// `{{#each backends}}` in the outermost context. No template can name these four.
pub(super) const BACKENDS: &str = " each backend";
/// `backends` where only its emptiness is asked for.
pub(super) const ANY: &str = " any backend";
/// A plain loop over JSON.
pub(super) const JSON: &str = " each";
/// A plain loop over what a function returns; the function's name comes first.
pub(super) const OF: &str = " each of";

/// Puts the loops into a registry.
pub(super) fn register<'a>(registry: &mut Handlebars<'a>, state: &Arc<State<'a>>) {
    registry.register_helper(BACKENDS, Box::new(EachBackend { state: Arc::clone(state) }));
    registry.register_helper(ANY, Box::new(AnyBackend { state: Arc::clone(state) }));
    registry.register_helper(JSON, Box::new(EachJson { state: Arc::clone(state) }));
    registry.register_helper(OF, Box::new(EachOf { state: Arc::clone(state) }));
}

/// Whether a call is over all backends and nothing else.
pub(super) fn is_of_backends(call: &HelperTemplate) -> bool {
    matches!(call.params.as_slice(), [Parameter::Path(_)])
        && call.params.first().and_then(Parameter::as_name) == Some("backends")
        && call.hash.is_empty()
}

/// Makes a block ask whether there are backends, instead of for all of them.
pub(super) fn ask_for_any(call: &mut HelperTemplate) {
    let ask = Subexpression::new(Parameter::Name(ANY.into()), Vec::new(), HashMap::new());
    call.params = vec![Parameter::Subexpression(ask)];
}

fn is_plain(call: &HelperTemplate) -> bool {
    let Some(body) = &call.template else { return false };
    let item = match &call.block_param {
        None => None,
        Some(BlockParam::Single(name)) => name.as_name(),
        // One for its place as well.
        Some(_) => return false,
    };
    Plain::of(body, item).is_some()
}

/// Makes a loop over backends ask for them one by one, if that is no dearer: a body that
/// names the items would be given a copy of each.
pub(super) fn lend_backends(call: &mut HelperTemplate) -> bool {
    let lent = call.block_param.is_none() || is_plain(call);
    if lent {
        call.name = Parameter::Name(BACKENDS.into());
        call.params.clear();
    }
    lent
}

/// Makes a loop one of ours if its body is plain. Nothing outside the loop may have a
/// name for a value: it would go before the items' fields.
pub(super) fn write_plainly(call: &mut HelperTemplate, helpers: &Helpers) {
    if !is_plain(call) || !call.hash.is_empty() {
        return;
    }
    let function = match call.params.as_slice() {
        [Parameter::Subexpression(inner)] => match inner.as_element() {
            TemplateElement::Expression(inner) if inner.hash.is_empty() => {
                let name = inner.name.as_name().unwrap_or_default();
                helpers.is_function(name).then(|| (name.to_owned(), inner.params.clone()))
            }
            _ => None,
        },
        _ => None,
    };
    let name = match function {
        Some((name, arguments)) => {
            call.params = vec![Parameter::Literal(Json::String(name))];
            call.params.extend(arguments);
            OF
        }
        None => JSON,
    };
    call.name = Parameter::Name(name.into());
}

fn plain<'rc>(helper: &Helper<'rc>) -> Option<Plain<'rc>> {
    if helper.block_param_pair().is_some() {
        return None;
    }
    Plain::of(helper.template()?, helper.block_param())
}

/// What a plain loop writes, and to whom it tells so.
struct Loop<'l, 'a, 'reg, 'rc> {
    helper: &'l Helper<'rc>,
    state: &'l State<'a>,
    context: &'l mut RenderContext<'reg, 'rc>,
    out: &'l mut dyn Output,
}

impl<'reg: 'rc, 'rc> Loop<'_, '_, 'reg, 'rc> {
    fn run<'i, I: Item + 'i>(self, items: impl Iterator<Item = &'i I>) -> HelperResult {
        let Some(plain) = plain(self.helper) else { return Ok(()) };
        let mut written = Written::default();
        for item in items {
            // So does handlebars at each body.
            self.context.set_current_template_name(None);
            plain.write(item, self.state, &mut written, self.out)?;
        }
        written.tell(self.context);
        Ok(())
    }

    /// What is written where there is nothing to loop over.
    fn inverse(
        self,
        registry: &'reg Handlebars<'reg>,
        data: &'rc Context,
        path: Option<&String>,
    ) -> HelperResult {
        match self.helper.inverse() {
            Some(inverse) => inverse.render(registry, data, self.context, self.out),
            None => Err(RenderError::strict_error(path)),
        }
    }
}

struct EachJson<'a> {
    state: Arc<State<'a>>,
}

impl HelperDef for EachJson<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        data: &'rc Context,
        context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let none = || RenderErrorReason::ParamNotFoundForIndex("each", 0);
        let value = helper.param(0).ok_or_else(none)?;
        let may_be_empty = helper.inverse().is_none();
        let each = Loop { helper, state: &self.state, context, out };
        match value.value() {
            Json::Array(items) if may_be_empty || !items.is_empty() => each.run(items.iter()),
            Json::Object(fields) if may_be_empty || !fields.is_empty() => each.run(fields.values()),
            _ => each.inverse(registry, data, value.relative_path()),
        }
    }
}

struct EachOf<'a> {
    state: Arc<State<'a>>,
}

impl HelperDef for EachOf<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        data: &'rc Context,
        context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let name = helper.param(0).and_then(|name| name.value().as_str()).unwrap_or_default();
        let function = functions::find(name);
        let function = function.ok_or(RenderErrorReason::ParamNotFoundForIndex("each", 0))?;
        let arguments = helper.params().get(1..).unwrap_or_default();
        let value = call_function(function, arguments, &self.state)?;
        let may_be_empty = helper.inverse().is_none();
        let each = Loop { helper, state: &self.state, context, out };
        match &value {
            Value::List(list) if may_be_empty || !list.items().is_empty() => {
                each.run(list.items().iter())
            }
            Value::Map(map) if may_be_empty || !map.entries().is_empty() => {
                each.run(map.entries().values())
            }
            // Its fields in the order of their names, as those of an object are.
            Value::Record(record) => {
                let mut fields: Vec<_> = record.fields.iter().collect();
                fields.sort_by_key(|(name, _)| name.to_lowercase());
                each.run(fields.into_iter().map(|(_, value)| value))
            }
            _ => each.inverse(registry, data, None),
        }
    }
}

struct AnyBackend<'a> {
    state: Arc<State<'a>>,
}

impl HelperDef for AnyBackend<'_> {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        _: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        Ok(ScopedJson::Derived(Json::Bool(!self.state.input.backends.is_empty())))
    }
}

struct EachBackend<'a> {
    state: Arc<State<'a>>,
}

impl HelperDef for EachBackend<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        data: &'rc Context,
        context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let backends = &self.state.input.backends;
        if backends.is_empty() {
            return match helper.inverse() {
                Some(inverse) => inverse.render(registry, data, context, out),
                None => Ok(()),
            };
        }
        if plain(helper).is_some() {
            let each = Loop { helper, state: &self.state, context, out };
            return each.run(backends.iter());
        }
        let Some(body) = helper.template() else { return Ok(()) };
        context.push_block(BlockContext::new());
        for (i, named) in backends.iter().enumerate() {
            if let Some(block) = context.block_mut() {
                block.set_local_var("first", (i == 0).into());
                block.set_local_var("last", (i + 1 == backends.len()).into());
                block.set_local_var("index", i.into());
                block.set_base_value(item::backend(named));
            }
            body.render(registry, data, context, out)?;
        }
        context.pop_block();
        Ok(())
    }
}
