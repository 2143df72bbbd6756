//! What templates ask of the backends. To know it saves making what nobody looks at.
//!
//! Rather too much is made than too little: any name that could lead to them counts.

/// What is asked of the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asks {
    /// Anything at all.
    pub(super) any: bool,
    /// More than to walk them one by one: all of them as one value.
    pub(super) whole: bool,
}

impl Asks {
    /// Notes a name that a template looks up, in the context of an item or outside.
    pub(super) fn name(&mut self, name: &str, of_item: bool) {
        let leaves = name.contains("..") || name.starts_with("@root");
        let everything = is_everything(name) && (leaves || !of_item);
        if everything || name.contains("backends") {
            *self = Self { any: true, whole: true };
        }
    }
}

/// A name that may stand for all there is in the outermost context.
fn is_everything(name: &str) -> bool {
    let nowhere = |step: &str| matches!(step.trim_matches(['[', ']']), "" | "this" | "@root");
    name.split(['.', '/']).all(nowhere)
}
