//! The helpers that `tree` wraps around every expression: they check that a value exists and is
//! safe to write, and charge the budget.

use std::sync::Arc;

use handlebars::{Handlebars, Helper, RenderError, ScopedJson};
use serde_json::Value as Json;

use super::definition::{RenderState, arguments, fail, register_value};
use super::safe;
use crate::template::functions::Fault;

/// The helper that every `{{x}}` passes; no template can name it.
pub(super) const SAFE: &str = " safe";
/// The helper for `{{{x}}}`, and for values that are quoted already.
pub(super) const RAW: &str = " raw";
/// The helper that counts steps.
pub(super) const TICK: &str = " tick";

pub(super) fn register<'a>(registry: &mut Handlebars<'a>, state: &Arc<RenderState<'a>>) {
    let of_safe = Arc::clone(state);
    register_value(registry, SAFE, move |helper| safe_value(helper, &of_safe));
    register_value(registry, RAW, |helper| arguments(helper.params()).map(|_| first(helper)));
    // An iteration here costs as much as five in a Go template.
    let of_tick = Arc::clone(state);
    register_value(registry, TICK, move |_| {
        of_tick.budget.steps(5).map(|()| ScopedJson::Derived(Json::Null)).map_err(fail)
    });
}

/// `{{x}}`: the value, if it is plain text wherever it is in the file.
fn safe_value<'rc>(
    helper: &Helper<'rc>,
    state: &RenderState<'_>,
) -> Result<ScopedJson<'rc>, RenderError> {
    let args = arguments(helper.params())?;
    let expression = args.get(1).and_then(|e| e.as_str()).unwrap_or_default();
    let value = args.first().copied().unwrap_or(&Json::Null);
    is_safe(value, expression, state).map_err(fail)?;
    Ok(first(helper))
}

/// Whether a value may be written unquoted.
fn is_safe(value: &Json, expression: &str, state: &RenderState<'_>) -> Result<(), Fault> {
    state.budget.steps(1)?;
    match value {
        Json::String(text) => safe::plain(state.escape, text, expression),
        Json::Array(_) | Json::Object(_) => Err(Fault::new(
            format!("{expression} is a list or an object, not text"),
            "walk it with `{{#each}}`, or write it with `join` or `toJson`",
        )),
        _ => Ok(()),
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
