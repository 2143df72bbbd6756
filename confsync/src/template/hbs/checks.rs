//! The helpers that `tree` wraps around every expression: they check that a value exists and is
//! safe to write, and charge the budget.

use std::sync::Arc;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError,
    ScopedJson,
};
use serde_json::Value as Json;

use super::definition::{RenderState, arguments, fail, register_value};
use super::item::Leaf;
use super::safe;
use crate::template::functions::Fault;

/// The helper that every `{{x}}` passes; no template can name it.
pub(super) const SAFE: &str = " safe";
/// The helper for `{{{x}}}`, and for values that are quoted already.
pub(super) const RAW: &str = " raw";
/// The helper that counts steps.
pub(super) const TICK: &str = " tick";

/// Registers them.
pub(super) fn register<'a>(registry: &mut Handlebars<'a>, state: &Arc<RenderState<'a>>) {
    let of_safe = Arc::clone(state);
    register_value(registry, SAFE, move |helper| safe_value(helper, &of_safe));
    register_value(registry, RAW, |helper| arguments(helper.params()).map(|_| first(helper)));
    registry.register_helper(TICK, Box::new(Tick { state: Arc::clone(state) }));
}

/// `{{x}}`: the value, if it is plain text wherever it is in the file.
fn safe_value<'rc>(
    helper: &Helper<'rc>,
    state: &RenderState<'_>,
) -> Result<ScopedJson<'rc>, RenderError> {
    let args = arguments(helper.params())?;
    let expression = args.get(1).and_then(|e| e.as_str()).unwrap_or_default();
    let value = args.first().copied().unwrap_or(&Json::Null);
    safe_text(&Leaf::of(value), expression, state).map_err(fail)?;
    Ok(first(helper))
}

/// The value as text, if it is safe to write unquoted.
pub(super) fn safe_text(
    value: &Leaf<'_>,
    expression: &str,
    state: &RenderState<'_>,
) -> Result<(), Fault> {
    state.budget.steps(1)?;
    match value {
        Leaf::Text(text) => safe::plain(state.escape, text, expression),
        Leaf::Other(json) if json.is_array() || json.is_object() => Err(Fault::new(
            format!("{expression} is a list or an object, not text"),
            "walk it with `{{#each}}`, or write it with `join` or `toJson`",
        )),
        Leaf::Other(_) => Ok(()),
    }
}

/// Charges one run of a body, and writes nothing.
struct Tick<'a> {
    state: Arc<RenderState<'a>>,
}

impl HelperDef for Tick<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        _: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        _: &mut dyn Output,
    ) -> HelperResult {
        self.state.tick().map_err(fail)
    }
}

/// The first argument, without a copy where there is something to point to.
fn first<'rc>(helper: &Helper<'rc>) -> ScopedJson<'rc> {
    match helper.param(0) {
        Some(param) => match param.try_get_constant_value() {
            Some(constant) => ScopedJson::Constant(constant),
            None => ScopedJson::Derived(param.value().clone()),
        },
        None => ScopedJson::Derived(Json::Null),
    }
}
