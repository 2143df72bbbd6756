//! The functions of `functions`, Go's own, and those of `own`, as helpers.

use std::collections::BTreeSet;
use std::sync::Arc;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, PathAndJson, RenderContext,
    RenderError, RenderErrorReason, ScopedJson,
};
use serde_json::Value as Json;

use super::item::Leaf;
use super::{each, json, own, safe};
use crate::template::Input;
use crate::template::functions::{self, Budget, Call, Fault, Function, Ty};
use crate::template::go::builtins;
use crate::template::value::Value;

/// The helper that every `{{x}}` passes; no template can name it.
pub(super) const SAFE: &str = " safe";
/// The helper that `{{{x}}}` passes, and what is written for nginx.
pub(super) const RAW: &str = " raw";
/// The helper that counts steps.
pub(super) const TICK: &str = " tick";

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

    /// Whether a bare name is this helper and not a field.
    #[expect(clippy::unused_self, reason = "asked beside the others")]
    pub(super) fn stands_alone(&self, name: &str) -> bool {
        matches!(name, "hostname" | "datetime")
    }

    /// Whether this is a function of both languages whose arguments must have values.
    #[expect(clippy::unused_self, reason = "asked beside the others")]
    pub(super) fn is_function(&self, name: &str) -> bool {
        let ours = own::HELPERS.iter().any(|(own, _)| *own == name);
        functions::find(name).is_some() && !ours && !takes_missing(name)
    }

    /// Whether a helper's result is nginx's own syntax and needs no check.
    #[expect(clippy::unused_self, reason = "asked beside the others")]
    pub(super) fn writes_nginx(&self, name: &str) -> bool {
        name == "quote"
    }
}

/// What the helpers of one render share.
pub(super) struct State<'a> {
    pub(super) input: &'a Input,
    pub(super) budget: Budget,
}

impl State<'_> {
    /// Pays for a run of a body: an iteration here costs what five do in a Go template.
    pub(super) fn tick(&self) -> Result<(), Fault> {
        self.budget.steps(5)
    }
}

/// Puts all helpers into a registry.
pub(super) fn register<'a>(registry: &mut Handlebars<'a>, state: &Arc<State<'a>>) {
    let go = builtins::FUNCTIONS.iter().filter(|f| FROM_GO.contains(&f.name));
    for function in functions::all().chain(go) {
        let helper = Box::new(FunctionHelper { function, state: Arc::clone(state) });
        registry.register_helper(function.name, helper);
    }
    for (name, call) in own::HELPERS {
        let helper = Box::new(OwnHelper { name, call: *call, state: Arc::clone(state) });
        registry.register_helper(name, helper);
    }
    registry.unregister_helper("log");
    each::register(registry, state);
    registry.register_helper(SAFE, Box::new(Safe { state: Arc::clone(state) }));
    registry.register_helper(RAW, Box::new(Raw));
    registry.register_helper(TICK, Box::new(Tick { state: Arc::clone(state) }));
}

/// A fault as handlebars carries it; `super` unpacks it again.
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

/// These three exist to ask after what may be missing.
fn takes_missing(name: &str) -> bool {
    matches!(name, "default" | "coalesce" | "empty")
}

struct FunctionHelper<'a> {
    function: &'static Function,
    state: Arc<State<'a>>,
}

/// What a function makes of these arguments.
pub(super) fn call_function(
    function: &Function,
    params: &[PathAndJson<'_>],
    state: &State<'_>,
) -> Result<Value, RenderError> {
    let args = if takes_missing(function.name) {
        params.iter().map(PathAndJson::value).collect()
    } else {
        arguments(params)?
    };
    let named = |fault| fail(named(function.name, &args, fault));
    result(function, &args, state).map_err(named)
}

fn result(function: &Function, args: &[&Json], state: &State<'_>) -> Result<Value, Fault> {
    let Function { name, params, rest, call } = function;
    let fixed = params.len();
    if args.len() < fixed || (args.len() > fixed && rest.is_none()) {
        let least = if rest.is_some() { "at least " } else { "" };
        let what = format!("it needs {least}{fixed} arguments, not {}", args.len());
        return Err(Fault::new(what, format!("see `{name}` in the documentation of the helpers")));
    }
    let ty = |i: usize| params.get(i).copied().or(*rest).unwrap_or(Ty::Raw);
    let values = args.iter().enumerate().map(|(i, arg)| json::to_value(arg, ty(i)));
    let values = values.collect::<Result<Vec<_>, _>>()?;
    let budget = &state.budget;
    let value = call(&Call { kv: &state.input.kv, budget }, &values)?;
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

/// The fault with the helper's name and its first text, which may be a key.
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
    call: own::Call,
    state: Arc<State<'a>>,
}

impl HelperDef for OwnHelper<'_> {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let args = arguments(helper.params())?;
        let hash = |key: &str| helper.hash_get(key).map(|value| value.value().clone());
        let size: usize = args.iter().map(|arg| arg.as_array().map_or(1, Vec::len)).sum();
        let paid = self.state.budget.steps(1 + size);
        let done = paid.and_then(|()| (self.call)(&args, &hash));
        done.map(ScopedJson::Derived).map_err(|fault| fail(named(self.name, &args, fault)))
    }
}

/// `{{x}}`: the value, if nginx takes it for text wherever it stands.
struct Safe<'a> {
    state: Arc<State<'a>>,
}

impl HelperDef for Safe<'_> {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let args = arguments(helper.params())?;
        let expression = args.get(1).and_then(|e| e.as_str()).unwrap_or_default();
        let value = args.first().copied().unwrap_or(&Json::Null);
        safe_text(&Leaf::of(value), expression, &self.state.budget).map_err(fail)?;
        Ok(first(helper))
    }
}

/// Whether a value may be written as it is.
pub(super) fn safe_text(value: &Leaf<'_>, expression: &str, budget: &Budget) -> Result<(), Fault> {
    budget.steps(1)?;
    match value {
        Leaf::Text(text) => safe::plain(text, expression),
        Leaf::Other(json) if json.is_array() || json.is_object() => Err(Fault::new(
            format!("{expression} is a list or an object, not text"),
            "walk it with `{{#each}}`, or write it with `join` or `toJson`",
        )),
        Leaf::Other(_) => Ok(()),
    }
}

/// Counts a run of a body, and writes nothing.
struct Tick<'a> {
    state: Arc<State<'a>>,
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

/// `{{{x}}}`: the value as it is, if there is one.
struct Raw;

impl HelperDef for Raw {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        arguments(helper.params())?;
        Ok(first(helper))
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
