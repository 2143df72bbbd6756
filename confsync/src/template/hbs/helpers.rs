//! Registers the functions of `functions`, some of Go's, and those of `own` as helpers.

use std::collections::BTreeSet;
use std::sync::Arc;

use handlebars::{
    Context, Handlebars, Helper, HelperDef, HelperResult, Output, RenderContext, Renderable,
    ScopedJson,
};

use super::definition::{RenderState, arguments, fail, register_value};
use super::invoke::{call_function, call_own, named};
use super::{checks, json, own};
use crate::template::functions;
use crate::template::go::builtins;
use crate::template::value::Value;

/// What handlebars brings itself.
const BUILT_IN: [&str; 14] = [
    "if", "unless", "each", "with", "raw", "eq", "ne", "gt", "gte", "lt", "lte", "and", "or", "not",
];
/// Go's own functions that handlebars does not have under the same name.
const FROM_GO: [&str; 7] = ["print", "println", "index", "slice", "html", "js", "urlquery"];

/// The block `upstream`; the function has the name. No template can name this.
pub(super) const UPSTREAM_BLOCK: &str = " upstream";

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
            call_own(name, *call, helper, &state).map(ScopedJson::Derived)
        });
    }
    let state_of_block = Arc::clone(state);
    registry.register_helper(UPSTREAM_BLOCK, Box::new(UpstreamBlock { state: state_of_block }));
    registry.unregister_helper("log");
    checks::register(registry, state);
}

/// `{{#upstream SERVICE}}`: what else the function writes into its `upstream` is the body.
struct UpstreamBlock<'a> {
    state: Arc<RenderState<'a>>,
}

impl HelperDef for UpstreamBlock<'_> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        registry: &'reg Handlebars<'reg>,
        data: &'rc Context,
        context: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let more = helper.template().map(|body| body.renders(registry, data, context));
        let args = arguments(helper.params())?;
        let service = args.first().and_then(|name| name.as_str()).unwrap_or_default();
        let text = self.state.input.mark.upstream(service, &more.transpose()?.unwrap_or_default());
        out.write(&text.map_err(|fault| fail(named("upstream", &args, fault)))?)?;
        Ok(())
    }
}

fn derived(value: Value) -> ScopedJson<'static> {
    ScopedJson::Derived(json::from_value(&value))
}
