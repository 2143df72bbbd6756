//! Calls our helpers and the functions of both languages with the arguments of handlebars.

use handlebars::{Helper, PathAndJson, RenderError};
use serde_json::Value as Json;

use super::definition::{RenderState, arguments, fail};
use super::{json, own};
use crate::template::functions::{Call, Fault, Function, Ty};
use crate::template::value::Value;

/// What one of our helpers makes of its arguments.
pub(super) fn call_own(
    name: &str,
    call: own::HelperFunction,
    helper: &Helper<'_>,
    state: &RenderState<'_>,
) -> Result<Json, RenderError> {
    let args = arguments(helper.params())?;
    let hash = |key: &str| helper.hash_get(key).map(|value| value.value().clone());
    let size: usize = args.iter().map(|arg| arg.as_array().map_or(1, Vec::len)).sum();
    let paid = state.budget.steps(1 + size);
    let make = || match name {
        // The one whose result depends on the syntax of the file.
        "quote" => own::quote_for(state.escape, &args, &hash),
        _ => call(&args, &hash, state.input),
    };
    paid.and_then(|()| make()).map_err(|fault| fail(named(name, &args, fault)))
}

/// What a function makes of these arguments.
pub(super) fn call_function(
    function: &Function,
    params: &[PathAndJson<'_>],
    state: &RenderState<'_>,
) -> Result<Value, RenderError> {
    // These three accept missing arguments.
    let args = if matches!(function.name, "default" | "coalesce" | "empty") {
        params.iter().map(PathAndJson::value).collect()
    } else {
        arguments(params)?
    };
    let named = |fault| fail(named(function.name, &args, fault));
    result(function, &args, state).map_err(named)
}

fn result(function: &Function, args: &[&Json], state: &RenderState<'_>) -> Result<Value, Fault> {
    let Function { name, params, rest, call } = function;
    let fixed = params.len();
    if args.len() < fixed || (args.len() > fixed && rest.is_none()) {
        let least = if rest.is_some() { "at least " } else { "" };
        let what = format!("it needs {least}{fixed} arguments, not {}", args.len());
        return Err(Fault::new(what, format!("see `{name}` in docs/handlebars.md")));
    }
    let ty = |i: usize| params.get(i).copied().or(*rest).unwrap_or(Ty::Raw);
    let values = args.iter().enumerate().map(|(i, arg)| json::to_value(arg, ty(i)));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let value = call(&Call::new(state.input, &state.budget), &values)?;
    state.budget.made(&value)?;
    Ok(value)
}

/// Adds the helper's name and its first text argument, which may be a key, to the fault.
pub(super) fn named(name: &str, args: &[&Json], fault: Fault) -> Fault {
    let what = match args.first() {
        Some(Json::String(s)) => {
            format!("{name} {:?}: {}", s.chars().take(80).collect::<String>(), fault.what)
        }
        _ => format!("{name}: {}", fault.what),
    };
    Fault { what, ..fault }
}
