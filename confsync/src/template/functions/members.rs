//! The functions `upstream` and `servers`: each writes a mark, at which the output is cut later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::model::is_upstream_name;

use super::{Call, Fault, Function, FunctionResult, Ty, text};
use crate::template::value::Value;

/// The two functions, for both languages.
pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("servers", &[Ty::Str], servers),
    Function::variadic("upstream", &[Ty::Str], Ty::Str, upstream),
];

/// The placeholder in the output while a template runs. It is random, so no template
/// and no value can contain it. Clones share whether it was used.
#[derive(Debug, Clone)]
pub(in crate::template) struct Mark {
    text: String,
    used: Arc<AtomicBool>,
}

impl Default for Mark {
    fn default() -> Self {
        // No letters, so that functions which change the case leave it unchanged.
        Self { text: format!("\u{1}{:039}\u{1}", fastrand::u128(..)), used: Arc::default() }
    }
}

impl Mark {
    pub(in crate::template) fn text(&self) -> &str {
        &self.text
    }

    pub(in crate::template) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(in crate::template) fn servers(&self, service: &str) -> Result<String, Fault> {
        check(service)?;
        self.used.store(true, Ordering::Relaxed);
        Ok(format!("{0}{service}\n{0}", self.text))
    }

    pub(in crate::template) fn upstream(&self, service: &str, more: &str) -> Result<String, Fault> {
        check(service)?;
        if more.contains(&self.text) {
            return Err(Fault::new(
                "`servers` or `upstream` is inside an `upstream`",
                "an `upstream` has its servers by itself; to list servers in an upstream of your \
                 own, write `upstream NAME { … }` out",
            ));
        }
        self.used.store(true, Ordering::Relaxed);
        Ok(format!("{0}{service}\n\u{1}{more}{0}", self.text))
    }
}

/// Checks that a name is valid for an upstream of nginx, and does not lead out of the services'
/// folder.
pub(in crate::template) fn check(service: &str) -> Result<(), Fault> {
    let mut parts = service.strip_prefix('/').unwrap_or(service).split('/');
    if service.len() <= 200 && parts.all(is_upstream_name) {
        return Ok(());
    }
    let shown: String = service.chars().take(80).collect();
    Err(Fault::new(
        format!("{shown:?} is not the name of a service"),
        "write the service's name, or the path of its keys; letters, digits, `_`, `-` and `.`",
    ))
}

fn servers(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    call.mark().servers(&text(args, 0)).map(Value::str)
}

fn upstream(call: &Call<'_>, args: &[Value]) -> FunctionResult {
    if args.len() > 2 {
        return Err(Fault::new(
            format!("it needs one or two arguments, not {}", args.len()),
            "the second is all that is wanted in the upstream: `upstream \"apache\" \"keepalive 64;\"`",
        ));
    }
    let more = if args.len() > 1 { text(args, 1) } else { "".into() };
    call.mark().upstream(&text(args, 0), &more).map(Value::str)
}
