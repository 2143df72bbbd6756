//! Registers the functions of `functions`, some of Go's, and those of `own` as helpers.

use std::collections::BTreeSet;
use std::sync::Arc;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, PathAndJson, RenderContext,
    RenderError, RenderErrorReason, Renderable, ScopedJson, StringOutput,
};
use serde_json::Value as Json;

use super::{checks, json, loops, own};
use crate::template::functions::{self, Budget, Call, Fault, Function, Ty};
use crate::template::go::builtins;
use crate::template::value::Value;
use crate::template::{Escape, Input};

/// What handlebars brings itself.
const BUILT_IN: [&str; 14] = [
    "if", "unless", "each", "with", "raw", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or", "not",
];
/// Go's own functions that handlebars does not have under the same name.
const FROM_GO: [&str; 7] = ["print", "println", "index", "slice", "html", "js", "urlquery"];

/// The names of all helpers.
#[derive(Debug)]
pub(super) struct Helpers {
    names: BTreeSet<&'static str>,
}

impl Helpers {
    pub(super) fn new() -> Self {
        let own = own::HELPERS.iter().map(|(name, _)| *name);
        let names = functions::all().map(|f| f.name).chain(BUILT_IN).chain(FROM_GO);
        Self { names: names.chain(own).chain(["len"]).collect() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.iter().copied()
    }

    /// Whether a bare name means this helper and not a field.
    #[expect(clippy::unused_self, reason = "asked beside the others")]
    pub(super) fn stands_alone(&self, name: &str) -> bool {
        matches!(name, "hostname" | "datetime")
    }

    /// Whether its result comes from us, not from handlebars.
    #[expect(clippy::unused_self, reason = "asked beside the others")]
    pub(super) fn is_ours(&self, name: &str) -> bool {
        own(name).is_some() || functions::find(name).is_some()
    }

    /// Whether a helper's result is quoted already and needs no check.
    #[expect(clippy::unused_self, reason = "asked beside the others")]
    pub(super) fn quotes(&self, name: &str) -> bool {
        matches!(name, "quote" | "servers" | "upstream")
    }
}

/// What the helpers of one render share.
pub(super) struct RenderState<'a> {
    pub(super) input: &'a Input,
    pub(super) budget: Budget,
    pub(super) escape: Escape,
}

impl RenderState<'_> {
    /// Charges one run of a body: an iteration here costs as much as five in a Go template.
    pub(super) fn tick(&self) -> Result<(), Fault> {
        self.budget.steps(5)
    }
}

/// Registers all helpers.
pub(super) fn register<'a>(registry: &mut Handlebars<'a>, state: &Arc<RenderState<'a>>) {
    let go = builtins::FUNCTIONS.iter().filter(|f| FROM_GO.contains(&f.name));
    for function in functions::all().chain(go) {
        let helper = Box::new(FunctionHelper { function, state: Arc::clone(state) });
        registry.register_helper(function.name, helper);
    }
    for (name, call) in own::HELPERS {
        let helper = Box::new(OwnHelper { name, call: *call, state: Arc::clone(state) });
        registry.register_helper(name, helper);
    }
    registry.register_helper("upstream", Box::new(UpstreamHelper { state: Arc::clone(state) }));
    registry.unregister_helper("log");
    loops::register(registry, state);
    checks::register(registry, state);
}

/// A fault wrapped for handlebars; `super` unwraps it.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.what)]
pub(super) struct Carried(pub(super) Fault);

pub(super) fn fail(fault: Fault) -> RenderError {
    RenderErrorReason::NestedError(Box::new(Carried(fault))).into()
}

/// The arguments of a call; one that has no value is an error.
pub(super) fn arguments<'h>(params: &'h [PathAndJson<'_>]) -> Result<Vec<&'h Json>, RenderError> {
    let argument = |param: &'h PathAndJson<'_>| match param.is_value_missing() {
        true => Err(RenderError::strict_error(param.relative_path())),
        false => Ok(param.value()),
    };
    params.iter().map(argument).collect()
}

struct FunctionHelper<'a> {
    function: &'static Function,
    state: Arc<RenderState<'a>>,
}

/// The result of one of our helpers, unconverted.
pub(super) enum Made {
    Json(Json),
    Value(Value),
}

fn own(name: &str) -> Option<own::HelperFunction> {
    own::HELPERS.iter().find(|(own, _)| *own == name).map(|(_, call)| *call)
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

fn call_own(
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
        _ => call(&args, &hash, &*state.input.system),
    };
    paid.and_then(|()| make()).map_err(|fault| fail(named(name, &args, fault)))
}

/// What a function makes of these arguments.
fn call_function(
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
    let budget = &state.budget;
    let Input { kv, system, mark, .. } = state.input;
    let value = call(&Call { kv, budget, system: &**system, mark }, &values)?;
    budget.made(&value)?;
    Ok(value)
}

impl HelperDef for FunctionHelper<'_> {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let value = call_function(self.function, helper.params(), &self.state)?;
        Ok(ScopedJson::Derived(json::from_value(&value)))
    }
}

/// `upstream`, whose second argument may be a body.
struct UpstreamHelper<'a> {
    state: Arc<RenderState<'a>>,
}

impl HelperDef for UpstreamHelper<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        data: &'rc Context,
        context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let Some(body) = helper.template() else {
            let value = self.call_inner(helper, registry, data, context)?;
            out.write(&value.render())?;
            return Ok(());
        };
        let mut more = StringOutput::new();
        body.render(registry, data, context, &mut more)?;
        let more = more.into_string()?;
        let args = arguments(helper.params())?;
        let service = args.first().and_then(|name| name.as_str()).unwrap_or_default();
        let fault = |fault| fail(named("upstream", &args, fault));
        let text = self.state.input.mark.upstream(service, &more).map_err(fault)?;
        out.write(&text)?;
        Ok(())
    }

    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let function = functions::find("upstream")
            .ok_or_else(|| RenderErrorReason::HelperNotFound("upstream".to_owned()))?;
        let value = call_function(function, helper.params(), &self.state)?;
        Ok(ScopedJson::Derived(json::from_value(&value)))
    }
}

/// Adds the helper's name and its first text argument, which may be a key, to the fault.
fn named(name: &str, args: &[&Json], fault: Fault) -> Fault {
    let what = match args.first() {
        Some(Json::String(s)) => {
            format!("{name} {:?}: {}", s.chars().take(80).collect::<String>(), fault.what)
        }
        _ => format!("{name}: {}", fault.what),
    };
    Fault { what, ..fault }
}

struct OwnHelper<'a> {
    name: &'static str,
    call: own::HelperFunction,
    state: Arc<RenderState<'a>>,
}

impl HelperDef for OwnHelper<'_> {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        call_own(self.name, self.call, helper.params(), helper, &self.state)
            .map(ScopedJson::Derived)
    }
}
