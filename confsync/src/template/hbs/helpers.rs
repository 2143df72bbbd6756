//! Registers the functions of `functions`, some of Go's, and those of `own` as helpers.

use std::collections::BTreeSet;
use std::sync::Arc;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, RenderError,
    RenderErrorReason, Renderable, ScopedJson, StringOutput,
};

use super::definition::{RenderState, arguments, fail, register_value};
use super::invoke::{call_function, call_own, named};
use super::{checks, json, loops, own};
use crate::template::functions;
use crate::template::go::builtins;
use crate::template::value::Value;

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
}

/// Whether a bare name means this helper and not a field.
pub(super) fn stands_alone(name: &str) -> bool {
    matches!(name, "hostname" | "datetime")
}

/// Whether a helper's result is quoted already and needs no check.
pub(super) fn quotes(name: &str) -> bool {
    matches!(name, "quote" | "servers" | "upstream")
}

/// Registers all helpers.
pub(super) fn register<'a>(registry: &mut Handlebars<'a>, state: &Arc<RenderState<'a>>) {
    let go = builtins::FUNCTIONS.iter().filter(|f| FROM_GO.contains(&f.name));
    for function in functions::all().chain(go) {
        let state = Arc::clone(state);
        register_value(registry, function.name, move |helper| {
            call_function(function, helper.params(), &state).map(derived)
        });
    }
    for (name, call) in own::HELPERS {
        let state = Arc::clone(state);
        register_value(registry, name, move |helper| {
            call_own(name, *call, helper.params(), helper, &state).map(ScopedJson::Derived)
        });
    }
    registry.register_helper("upstream", Box::new(UpstreamHelper { state: Arc::clone(state) }));
    registry.unregister_helper("log");
    loops::register(registry, state);
    checks::register(registry, state);
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
        call_function(function, helper.params(), &self.state).map(derived)
    }
}

fn derived(value: Value) -> ScopedJson<'static> {
    ScopedJson::Derived(json::from_value(&value))
}
