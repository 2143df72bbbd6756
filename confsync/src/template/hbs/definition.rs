//! How a helper is defined: the state that all helpers of a render share, arguments, and faults as
//! handlebars carries them.

use handlebars::{
    Context, Handlebars, Helper, HelperDef, PathAndJson, RenderContext, RenderError,
    RenderErrorReason, ScopedJson,
};
use serde_json::Value as Json;

use crate::template::functions::{Budget, Fault};
use crate::template::{Escape, Input};

/// What the helpers of one render share.
pub(super) struct RenderState<'a> {
    pub(super) input: &'a Input,
    pub(super) budget: Budget,
    pub(super) escape: Escape,
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

/// Registers a helper that makes one value of its arguments.
pub(super) fn register_value<'a, F>(registry: &mut Handlebars<'a>, name: &str, make: F)
where
    F: for<'rc> Fn(&Helper<'rc>) -> Result<ScopedJson<'rc>, RenderError> + Send + Sync + 'a,
{
    registry.register_helper(name, Box::new(ValueHelper(make)));
}

struct ValueHelper<F>(F);

impl<F> HelperDef for ValueHelper<F>
where
    F: for<'rc> Fn(&Helper<'rc>) -> Result<ScopedJson<'rc>, RenderError> + Send + Sync,
{
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        (self.0)(helper)
    }
}
