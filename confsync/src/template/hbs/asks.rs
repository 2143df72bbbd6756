//! Which backend data templates use, so that unused data need not be built.
//!
//! When in doubt, data counts as used: any name that could lead to it does.

/// The backend data that a template uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asks {
    /// Any backend data.
    pub(super) any: bool,
    /// As values: more than the lines that `upstream` and `servers` write.
    pub(super) values: bool,
}

impl Asks {
    /// Notes a name that a template refers to, inside or outside of a loop's item.
    pub(super) fn name(&mut self, name: &str, of_item: bool) {
        let leaves = name.contains("..") || name.starts_with("@root");
        let everything = is_everything(name) && (leaves || !of_item);
        if everything || name.contains("backends") {
            *self = Self { any: true, values: true };
        }
    }
}

/// Whether a name may refer to the whole outermost context.
fn is_everything(name: &str) -> bool {
    let nowhere = |step: &str| matches!(step.trim_matches(['[', ']']), "" | "this" | "@root");
    name.split(['.', '/']).all(nowhere)
}
