//! Calls our helpers and the functions of both languages with the arguments of handlebars.

use handlebars::{Helper, PathAndJson, RenderError, RenderErrorReason};
use serde_json::Value as Json;

use super::definition::{RenderState, arguments, fail};
use super::{json, own};
use crate::template::functions::{self, Call, Fault, Function, Ty};
use crate::template::value::Value;

/// The result of one of our helpers, unconverted.
pub(super) enum Made {
    Json(Json),
    Value(Value),
}

fn own(name: &str) -> Option<own::HelperFunction> {
    own::HELPERS.iter().find(|(own, _)| *own == name).map(|(_, call)| *call)
}

/// Whether a helper's result comes from us, not from handlebars.
pub(super) fn is_ours(name: &str) -> bool {
    own(name).is_some() || functions::find(name).is_some()
}

/// Calls the helper that the first argument names, with the other arguments.
pub(super) fn call_ours(helper: &Helper<'_>, state: &RenderState<'_>) -> Result<Made, RenderError> {
    let (name, params) = match helper.params().split_first() {
        Some((name, params)) => (name.value().as_str().unwrap_or_default(), params),
        None => return Err(RenderErrorReason::ParamNotFoundForIndex("each", 0).into()),
    };
    // As registered: a helper takes precedence over a function of the same name.
    match (own(name), functions::find(name)) {
        (Some(call), _) => call_own(name, call, params, helper, state).map(Made::Json),
        (None, Some(function)) => call_function(function, params, state).map(Made::Value),
        (None, None) => Err(RenderErrorReason::HelperNotFound(name.to_owned()).into()),
    }
}

pub(super) fn call_own(
    name: &str,
    call: own::HelperFunction,
    params: &[PathAndJson<'_>],
    helper: &Helper<'_>,
    state: &RenderState<'_>,
) -> Result<Json, RenderError> {
    let args = arguments(params)?;
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
