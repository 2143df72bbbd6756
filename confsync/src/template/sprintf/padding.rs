//! Width and sign, which all verbs share.

use super::Spec;
use crate::template::print::{BoundedText, Full};
use crate::template::runes::runes;

/// Fills up to the width, on the left unless `-` says right.
pub(super) fn pad(out: &mut BoundedText, spec: Spec, text: impl AsRef<[u8]>) -> Result<(), Full> {
    let text = text.as_ref();
    let missing = spec.width.unwrap_or(0).saturating_sub(runes(text).count());
    let fill = if spec.zero && !spec.minus { "0" } else { " " }.repeat(missing);
    let fill = fill.as_bytes();
    let (before, after) = if spec.minus { (&b""[..], fill) } else { (fill, &b""[..]) };
    [before, text, after].iter().try_for_each(|part| out.put(part))
}

/// The sign of a number, if it shows.
pub(super) fn sign(spec: Spec, negative: bool) -> &'static str {
    match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    }
}
