//! Whole numbers, as digits of a base or as characters.

use super::Spec;
use super::padding::{pad, sign};
use super::quote::quoted_char;
use crate::template::print::{BoundedText, Full};
use crate::template::runes::is_print;

pub(super) fn integer(out: &mut BoundedText, spec: Spec, verb: char, n: i64) -> Result<bool, Full> {
    let size = n.unsigned_abs();
    let mut digits = match verb {
        'd' | 'v' => size.to_string(),
        'b' => format!("{size:b}"),
        'o' | 'O' => format!("{size:o}"),
        'x' => format!("{size:x}"),
        'X' => format!("{size:X}"),
        _ => return character(out, spec, verb, n),
    };
    let unfilled = Spec { zero: false, ..spec };
    let sign = sign(spec, n < 0);
    // Zeros come from the precision, else from the flag, which leaves room for the sign.
    let least = match (spec.precision, spec.width) {
        (Some(0), _) if n == 0 => {
            pad(out, unfilled, "")?;
            return Ok(true);
        }
        (Some(least), _) => least,
        (None, Some(width)) if spec.zero && !spec.minus => width.saturating_sub(sign.len()),
        _ => 0,
    };
    digits.insert_str(0, &"0".repeat(least.saturating_sub(digits.len())));
    let prefix = match verb {
        'O' if spec.sharp && !digits.starts_with('0') => "0o0",
        'O' => "0o",
        'b' if spec.sharp => "0b",
        'o' if spec.sharp && !digits.starts_with('0') => "0",
        'x' if spec.sharp => "0x",
        'X' if spec.sharp => "0X",
        _ => "",
    };
    pad(out, unfilled, format!("{sign}{prefix}{digits}"))?;
    Ok(true)
}

/// A number as the character that it is the code of.
fn character(out: &mut BoundedText, spec: Spec, verb: char, n: i64) -> Result<bool, Full> {
    let known = u32::try_from(n).ok().and_then(char::from_u32);
    match verb {
        'c' => pad(out, spec, known.unwrap_or('\u{FFFD}').to_string())?,
        'q' => pad(out, spec, quoted_char(known.unwrap_or('\u{FFFD}'), spec.plus))?,
        'U' => {
            // Of a negative number the bits.
            let digits = format!("{:X}", n.cast_unsigned());
            let zeros = "0".repeat(spec.precision.unwrap_or(0).max(4).saturating_sub(digits.len()));
            let shown = known.filter(|c| spec.sharp && is_print(*c)).map(|c| format!(" '{c}'"));
            let text = format!("U+{zeros}{digits}{}", shown.unwrap_or_default());
            pad(out, Spec { zero: false, ..spec }, &text)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
