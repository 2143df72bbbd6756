//! Replaces loops by those of `loops` when a template is compiled, where that changes nothing but
//! the cost.

use std::collections::HashMap;

use handlebars::template::{BlockParam, HelperTemplate, Parameter, Subexpression, TemplateElement};
use serde_json::Value as Json;

use super::invoke::is_ours;
use super::plain::{Names, PlainBody};

/// `{{#each backends}}` in the outermost context. No template can name these five.
pub(super) const BACKENDS: &str = " each backend";
/// `backends`, where only whether there are any matters.
pub(super) const ANY: &str = " any backend";
/// A plain loop over JSON.
pub(super) const PLAIN: &str = " each plainly";
/// A loop over what a helper returns; the helper's name comes first.
pub(super) const OF: &str = " each of";
/// The same with a plain body.
pub(super) const PLAIN_OF: &str = " each plainly of";

/// Whether a call has `backends` as its only argument.
pub(super) fn is_of_backends(call: &HelperTemplate) -> bool {
    matches!(call.params.as_slice(), [Parameter::Path(_)])
        && call.params.first().and_then(Parameter::as_name) == Some("backends")
        && call.hash.is_empty()
}

/// Makes a block test whether there are backends, instead of building all of them.
pub(super) fn ask_for_any(call: &mut HelperTemplate) {
    let ask = Subexpression::new(Parameter::Name(ANY.into()), Vec::new(), HashMap::new());
    call.params = vec![Parameter::Subexpression(ask)];
}

/// Makes a loop over backends take them one by one, if that is no more expensive: a body that names
/// the items would get a copy of each.
pub(super) fn lend_backends(call: &mut HelperTemplate) -> bool {
    let lent = call.block_param.is_none() || is_plain(call);
    if lent {
        call.name = Parameter::Name(BACKENDS.into());
        call.params.clear();
    }
    lent
}

/// Replaces a loop by one of ours. It can be a plain one if no outer block has named a value, since
/// such names take precedence over the items' fields.
pub(super) fn lighten(call: &mut HelperTemplate, may_be_plain: bool) {
    if !call.hash.is_empty() {
        return;
    }
    let plain = may_be_plain && is_plain(call);
    let name = match source(call) {
        Some((name, params, hash)) => {
            call.params = vec![Parameter::Literal(Json::String(name))];
            call.params.extend(params);
            call.hash = hash;
            if plain { PLAIN_OF } else { OF }
        }
        None if plain => PLAIN,
        None => return,
    };
    call.name = Parameter::Name(name.into());
}

type ListCall = (String, Vec<Parameter>, HashMap<String, Parameter>);

/// The helper that builds the list, if it is one of ours.
fn source(call: &HelperTemplate) -> Option<ListCall> {
    let [Parameter::Subexpression(made)] = call.params.as_slice() else { return None };
    let TemplateElement::Expression(made) = made.as_element() else { return None };
    let name = made.name.as_name().filter(|name| is_ours(name))?;
    Some((name.to_owned(), made.params.clone(), made.hash.clone()))
}

fn is_plain(call: &HelperTemplate) -> bool {
    let name = Parameter::as_name;
    let names = match &call.block_param {
        None => Names::default(),
        Some(BlockParam::Single(item)) => Names { item: name(item), place: None },
        Some(BlockParam::Pair((item, place))) => Names { item: name(item), place: name(place) },
        Some(_) => return false,
    };
    call.template.as_ref().is_some_and(|body| PlainBody::of(body, names).is_some())
}
