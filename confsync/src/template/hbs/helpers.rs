//! The functions of `functions`, Go's own, and those of `own`, as helpers.

use std::collections::BTreeSet;
use std::sync::Arc;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError,
    RenderErrorReason, ScopedJson,
};
use serde_json::Value as Json;

use super::{json, own, safe};
use crate::template::Input;
use crate::template::functions::{self, Budget, Call, Fault, Function, Ty};
use crate::template::go::builtins;

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
pub(super) fn arguments<'h>(helper: &'h Helper<'_>) -> Result<Vec<&'h Json>, RenderError> {
    helper
        .params()
        .iter()
        .map(|param| {
            if param.is_value_missing() {
                Err(RenderError::strict_error(param.relative_path()))
            } else {
                Ok(param.value())
            }
        })
        .collect()
}

struct FunctionHelper<'a> {
    function: &'static Function,
    state: Arc<State<'a>>,
}

impl FunctionHelper<'_> {
    fn result(&self, args: &[&Json]) -> Result<Json, Fault> {
        let Function { name, params, rest, call } = self.function;
        let fixed = params.len();
        if args.len() < fixed || (args.len() > fixed && rest.is_none()) {
            let least = if rest.is_some() { "at least " } else { "" };
            let what = format!("it needs {least}{fixed} arguments, not {}", args.len());
            return Err(Fault::new(
                what,
                format!("see `{name}` in the documentation of the helpers"),
            ));
        }
        let ty = |i: usize| params.get(i).copied().or(*rest).unwrap_or(Ty::Raw);
        let values = args.iter().enumerate().map(|(i, arg)| json::to_value(arg, ty(i)));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let budget = &self.state.budget;
        let value = call(&Call { kv: &self.state.input.kv, budget }, &values)?;
        budget.made(&value)?;
        Ok(json::from_value(&value))
    }
}

impl HelperDef for FunctionHelper<'_> {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        // These three exist to ask after what may be missing.
        let args = if matches!(self.function.name, "default" | "coalesce" | "empty") {
            helper.params().iter().map(|param| param.value()).collect()
        } else {
            arguments(helper)?
        };
        let named = |fault| named(self.function.name, &args, fault);
        self.result(&args).map(ScopedJson::Derived).map_err(|fault| fail(named(fault)))
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
        let args = arguments(helper)?;
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
        let args = arguments(helper)?;
        let expression = args.get(1).and_then(|e| e.as_str()).unwrap_or_default();
        let value = args.first().copied().unwrap_or(&Json::Null);
        let checked = self.state.budget.steps(1).and_then(|()| match value {
            Json::String(s) => safe::plain(s, expression),
            Json::Array(_) | Json::Object(_) => Err(Fault::new(
                format!("{expression} is a list or an object, not text"),
                "walk it with `{{#each}}`, or write it with `join` or `toJson`",
            )),
            _ => Ok(()),
        });
        checked.map_err(fail)?;
        Ok(first(helper))
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
        // An iteration here costs what five do in a Go template.
        self.state.budget.steps(5).map_err(fail)
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
        arguments(helper)?;
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
