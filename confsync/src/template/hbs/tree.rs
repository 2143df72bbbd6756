//! Checks a template's tree before it runs: finds undefined names, and wraps every `{{x}}` in the
//! check of `safe`.
//!
//! A tick is inserted at the start of every body, so that iterations are counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use handlebars::template::{
    DecoratorTemplate, HelperTemplate, Parameter, Subexpression, Template, TemplateElement,
};
use serde_json::Value as Json;

use super::asks::Asks;
use super::checks::{RAW, SAFE, TICK};
use super::helpers::{Helpers, UPSTREAM_BLOCK, quotes, stands_alone};
use super::{NAMES, backend, missing};
use crate::template::functions::{Fault, nearest};

/// Line and column, and what is wrong there.
pub(super) type LocatedFault = ((usize, usize), Fault);

/// One template being compiled.
pub(super) struct TemplateTree<'a> {
    /// The lines of its source.
    pub(super) lines: Vec<&'a str>,
    pub(super) helpers: &'a Helpers,
    /// Partials that exist, by name.
    pub(super) partials: BTreeSet<String>,
    /// Partials this one uses.
    pub(super) uses: BTreeSet<String>,
    /// What inline partials use, by name.
    pub(super) inline: BTreeMap<String, BTreeSet<String>>,
    /// What names mean in the body we are in.
    pub(super) scope: NameScope,
    /// The backend data that is used.
    pub(super) asks: Asks,
}

/// What names mean in a body.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NameScope {
    /// Its context is not the outermost: any name may be a field.
    moved: bool,
    /// It sees an item of a list, or what `with` chose, since the partial it is in began.
    chosen: bool,
    /// A name may mean a value from outside instead of a field: it is in a partial, or in a block
    /// that names what it sees.
    shadowed: bool,
    /// The fields of what a loop goes over, inside it, where they are known.
    fields: Option<&'static [&'static str]>,
}

impl NameScope {
    /// A partial, which sees what its caller sees; a body that a partial will see, wherever it is called.
    pub(super) fn lent(self) -> Self {
        Self { moved: true, chosen: false, shadowed: true, ..self }
    }
}

impl TemplateTree<'_> {
    /// Notes the names of inline partials, which may be used before they are written.
    pub(super) fn names(&mut self, template: &Template) {
        for element in &template.elements {
            if let TemplateElement::DecoratorBlock(inline) = element
                && let Some(Parameter::Literal(Json::String(name))) = inline.params.first()
            {
                self.partials.insert(name.clone());
            }
        }
    }

    /// Checks a body and makes it safe.
    ///
    /// # Errors
    /// The first name that is unknown.
    pub(super) fn body(&mut self, template: &mut Template) -> Result<(), LocatedFault> {
        for (i, element) in template.elements.iter_mut().enumerate() {
            let at = template.mapping.get(i).map_or((0, 0), |m| (m.0, m.1));
            self.element(element, at)
                .map_err(|(inner, fault)| (if inner == (0, 0) { at } else { inner }, fault))?;
        }
        Ok(())
    }

    fn element(
        &mut self,
        element: &mut TemplateElement,
        at: (usize, usize),
    ) -> Result<(), LocatedFault> {
        match element {
            TemplateElement::Expression(call) => {
                self.call(call)?;
                let call = self.checked(call, at, SAFE);
                *element = TemplateElement::HtmlExpression(Box::new(call));
            }
            TemplateElement::HtmlExpression(call) => {
                self.call(call)?;
                **call = self.checked(call, at, RAW);
            }
            TemplateElement::HelperBlock(call) => self.block(call)?,
            TemplateElement::PartialExpression(partial)
            | TemplateElement::PartialBlock(partial) => {
                self.partial(partial)?;
            }
            TemplateElement::DecoratorBlock(inline) => self.inline(inline)?,
            TemplateElement::DecoratorExpression(_) => {
                return Err(((0, 0), "decorators are not supported".into()));
            }
            TemplateElement::RawString(_) | TemplateElement::Comment(_) | _ => {}
        }
        Ok(())
    }

    fn block(&mut self, call: &mut HelperTemplate) -> Result<(), LocatedFault> {
        self.block_name(call)?;
        let name = call.name.as_name().unwrap_or_default();
        let (is_upstream, moves) = (name == "upstream", matches!(name, "each" | "with"));
        let mut scope = self.scope;
        scope.shadowed |= call.block_param.is_some();
        if moves {
            let fields = call.params.first().and_then(|list| self.fields_of(list));
            let fields = fields.filter(|_| !scope.shadowed);
            scope = NameScope { moved: true, chosen: true, fields, ..scope };
        }
        self.call(call)?;
        if let Some(body) = &mut call.template {
            self.inner(body, scope)?;
        }
        if let Some(body) = &mut call.inverse {
            self.inner(body, self.scope)?;
        }
        if is_upstream {
            call.name = Parameter::Name(UPSTREAM_BLOCK.into());
        }
        Ok(())
    }

    /// The fields that each of a list has, or the one thing that is chosen.
    fn fields_of(&self, list: &Parameter) -> Option<&'static [&'static str]> {
        if let (Parameter::Path(_), Some("backends")) = (list, list.as_name()) {
            return (!self.scope.moved).then_some(&backend::FIELDS);
        }
        let Parameter::Subexpression(inner) = list else { return None };
        let TemplateElement::Expression(call) = inner.as_element() else { return None };
        match call.name.as_name()? {
            "get" | "gets" => Some(&backend::PAIR_FIELDS),
            "where" | "reverse" | "sort" | "sortBy" | "unique" | "sortKVByLength" => {
                self.fields_of(call.params.first()?)
            }
            _ => None,
        }
    }

    /// A body inside a block or a partial.
    fn inner(&mut self, body: &mut Template, scope: NameScope) -> Result<(), LocatedFault> {
        let outer = std::mem::replace(&mut self.scope, scope);
        self.body(body)?;
        self.scope = outer;
        tick(body);
        Ok(())
    }

    /// A call's name and those in its arguments.
    fn call(&mut self, call: &HelperTemplate) -> Result<(), LocatedFault> {
        let name = call.name.as_name();
        self.asks.any |= matches!(name, Some("upstream" | "servers"));
        match name {
            Some(name) if has_arguments(call) => self.known(name)?,
            Some(name) if !call.block && !stands_alone(name) => self.field(name)?,
            _ => {}
        }
        let mut arguments = call.params.iter().chain(call.hash.values());
        arguments.try_for_each(|param| self.parameter(param))
    }

    /// A name in the outermost context, where we know all there are.
    fn field(&mut self, name: &str) -> Result<(), LocatedFault> {
        self.asks.name(name, self.scope.chosen);
        let first = name.split(['.', '/', '[']).next().unwrap_or_default();
        let known =
            matches!(first, "" | "this") || first.starts_with('@') || NAMES.contains(&first);
        if let Some(fields) = self.scope.fields.filter(|fields| !known && !fields.contains(&first))
        {
            return Err(((0, 0), no_field(name, fields)));
        }
        if known || self.scope.moved { Ok(()) } else { Err(((0, 0), missing(Some(name)))) }
    }

    fn parameter(&mut self, parameter: &Parameter) -> Result<(), LocatedFault> {
        if let (Parameter::Path(_), Some(name)) = (parameter, parameter.as_name()) {
            return self.field(name);
        }
        let Parameter::Subexpression(inner) = parameter else { return Ok(()) };
        let TemplateElement::Expression(call) = inner.as_element() else { return Ok(()) };
        if let Some(name) = call.name.as_name() {
            self.known(name)?;
        }
        self.call(call)
    }

    fn known(&self, name: &str) -> Result<(), LocatedFault> {
        if self.helpers.has(name) {
            return Ok(());
        }
        let remedy = match nearest(name, self.helpers.names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "docs/handlebars.md lists what there is".into(),
        };
        Err(((0, 0), Fault::new(format!("no helper is called `{name}`"), remedy)))
    }

    fn block_name(&self, call: &HelperTemplate) -> Result<(), LocatedFault> {
        let name = call.name.as_name().unwrap_or_default();
        if matches!(name, "if" | "unless" | "each" | "with" | "raw" | "upstream") {
            return Ok(());
        }
        let remedy = "write `{{#each name}}`, `{{#if name}}` or `{{#with name}}`";
        Err(((0, 0), Fault::new(format!("`{{{{#{name}}}}}` is not a block"), remedy)))
    }

    fn partial(&mut self, partial: &mut DecoratorTemplate) -> Result<(), LocatedFault> {
        let Some(name) = partial.name.as_name().map(str::to_owned) else {
            let remedy = "choose with `{{#if}}` between partials written out";
            return Err(((0, 0), Fault::new("the name of a partial is computed", remedy)));
        };
        let own_body = partial.template.is_some();
        partial.params.iter().chain(partial.hash.values()).try_for_each(|p| self.parameter(p))?;
        if name != "@partial-block" && !own_body && !self.partials.contains(&name) {
            let near = nearest(&name, self.partials.iter().map(String::as_str));
            let near = near.map(|n| format!(" (there is `{n}`)")).unwrap_or_default();
            let remedy = format!("put it into `templates/partials/{name}.hbs`{near}");
            return Err(((0, 0), Fault::new(format!("no partial is called `{name}`"), remedy)));
        }
        self.uses.insert(name);
        if let Some(body) = &mut partial.template {
            self.inner(body, self.scope.lent())?;
        }
        Ok(())
    }

    /// `{{#*inline "name"}}`: a partial of this template alone.
    fn inline(&mut self, inline: &mut DecoratorTemplate) -> Result<(), LocatedFault> {
        let name = match inline.params.first() {
            Some(Parameter::Literal(Json::String(name)))
                if inline.name.as_name() == Some("inline") =>
            {
                name.clone()
            }
            _ => {
                let remedy = "the one decorator there is: `{{#*inline \"name\"}}`";
                return Err(((0, 0), Fault::new("unknown decorator", remedy)));
            }
        };
        self.partials.insert(name.clone());
        let outer = std::mem::take(&mut self.uses);
        if let Some(body) = &mut inline.template {
            self.inner(body, self.scope.lent())?;
        }
        let used = std::mem::replace(&mut self.uses, outer);
        self.inline.entry(name).or_default().extend(used);
        Ok(())
    }

    /// `{{x}}` as `{{{safe x "{{x}}"}}}`: the check names the expression. A bare name
    /// is a field, not the helper of that name, unless the helper takes no arguments.
    fn checked(&self, call: &HelperTemplate, at: (usize, usize), check: &str) -> HelperTemplate {
        let mut checked = call.clone();
        let name = call.name.as_name().unwrap_or_default();
        let is_call = has_arguments(call) || stands_alone(name);
        let value = if is_call {
            let element = Box::new(TemplateElement::Expression(Box::new(call.clone())));
            let mut inner = Subexpression::new(call.name.clone(), Vec::new(), HashMap::new());
            inner.element = element;
            Parameter::Subexpression(inner)
        } else {
            match Parameter::parse(name) {
                Ok(path @ Parameter::Path(_)) => path,
                _ => call.name.clone(),
            }
        };
        let check = if is_call && quotes(name) { RAW } else { check };
        checked.name = Parameter::Name(check.into());
        checked.params = vec![value, Parameter::Literal(Json::String(self.shown(at)))];
        checked.hash = HashMap::new();
        checked
    }

    /// The expression as it was written.
    fn shown(&self, (line, column): (usize, usize)) -> String {
        let text = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let from = text.char_indices().nth(column.saturating_sub(1)).map_or(0, |(at, _)| at);
        let text = text.get(from..).unwrap_or_default();
        let end = text.find("}}").map_or(text.len(), |at| at + 2);
        let shown: String = text.get(..end).unwrap_or(text).chars().take(80).collect();
        format!("`{}`", shown.trim())
    }
}

/// There is no such field, whatever the values say.
fn no_field(name: &str, fields: &'static [&'static str]) -> Fault {
    let remedy = match nearest(name, fields.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", fields.join(", ")),
    };
    Fault::new(format!("`{name}` is not there"), remedy)
}

fn has_arguments(call: &HelperTemplate) -> bool {
    !call.params.is_empty() || !call.hash.is_empty()
}

/// Counts one step whenever the body is run.
fn tick(body: &mut Template) {
    let Ok(mut one) = Template::compile("{{{x}}}") else { return };
    let (element, mapping) = (one.elements.pop(), one.mapping.pop());
    if let (Some(TemplateElement::HtmlExpression(mut call)), Some(mapping)) = (element, mapping) {
        call.name = Parameter::Name(TICK.into());
        body.elements.insert(0, TemplateElement::HtmlExpression(call));
        body.mapping.insert(0, mapping);
    }
}
