//! Floats, as their verb wants them.

use super::Spec;
use super::padding::{pad, sign};
use crate::template::print::{self, BoundedText, Full};

/// Writes a float; false for a verb that is not one of floats.
pub(super) fn real(out: &mut BoundedText, spec: Spec, verb: char, f: f64) -> Result<bool, Full> {
    if !matches!(verb, 'v' | 'g' | 'G' | 'e' | 'E' | 'f' | 'F' | 'b' | 'x' | 'X') {
        return Ok(false);
    }
    if print::not_a_number(f).is_some() {
        let infinite = Spec { plus: spec.plus || f == f64::INFINITY, ..spec };
        let word = match f.is_nan() {
            true => format!("{}NaN", sign(spec, false)),
            false if spec.space && !spec.plus => format!("{}Inf", sign(spec, f < 0.0)),
            false => format!("{}Inf", sign(infinite, f < 0.0)),
        };
        pad(out, Spec { zero: false, ..spec }, word)?;
        return Ok(true);
    }
    let size = f.abs();
    let digits = match (verb, spec.precision) {
        ('f' | 'F', precision) => fixed(size, precision.unwrap_or(6)),
        ('e' | 'E', precision) => exponent(&scientific(size, precision.unwrap_or(6))),
        ('b', _) => binary(size),
        ('x' | 'X', precision) => hexadecimal(size, precision),
        (_, None) => print::general(size, 6),
        (_, Some(precision)) => significant(size, precision.max(1)),
    };
    let digits = if verb.is_ascii_uppercase() { digits.to_uppercase() } else { digits };
    let digits = if spec.sharp && verb != 'b' { pointed(spec, verb, &digits) } else { digits };
    let sign = sign(spec, f.is_sign_negative());
    match spec.width {
        // Zeros go between sign and digits.
        Some(width) if spec.zero && !spec.minus => {
            out.put(sign)?;
            pad(out, Spec { width: Some(width.saturating_sub(sign.len())), ..spec }, &digits)?;
        }
        _ => pad(out, Spec { zero: false, ..spec }, format!("{sign}{digits}"))?,
    }
    Ok(true)
}

/// No float has more digits behind its point; further ones are zeros. Rust formats at most
/// 65 535 of them.
const DIGITS: usize = 1100;

fn fixed(size: f64, precision: usize) -> String {
    let zeros = "0".repeat(precision.saturating_sub(DIGITS));
    format!("{size:.*}{zeros}", precision.min(DIGITS))
}

fn scientific(size: f64, precision: usize) -> String {
    let text = format!("{size:.*e}", precision.min(DIGITS));
    match text.split_once('e') {
        Some((mantissa, power)) if precision > DIGITS => {
            format!("{mantissa}{}e{power}", "0".repeat(precision - DIGITS))
        }
        _ => text,
    }
}

/// Rust's `1e5` in Go's form, `1e+05`.
fn exponent(text: &str) -> String {
    let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

/// `%.3g`: so many digits, without the zeros at the end.
fn significant(size: f64, precision: usize) -> String {
    let text = scientific(size, precision - 1);
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    let trim = |t: &str| {
        if t.contains('.') {
            t.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            t.to_owned()
        }
    };
    let places = i32::try_from(precision).unwrap_or(i32::MAX);
    if size != 0.0 && (power < -4 || power >= places) {
        return exponent(&format!("{}e{power}", trim(mantissa)));
    }
    let decimals = usize::try_from(places - 1 - power).unwrap_or(0);
    trim(&fixed(size, decimals))
}

/// The bits of a float: `mantissa * 2^(power - 52)`.
fn parts(size: f64) -> (u64, i32) {
    let bits = size.to_bits();
    let mantissa = bits & ((1 << 52) - 1);
    match i32::try_from(bits >> 52).unwrap_or(0) {
        0 => (mantissa, -1022),
        power => (mantissa | 1 << 52, power - 1023),
    }
}

/// `%b`: `4503599627370496p-52`.
fn binary(size: f64) -> String {
    let (mantissa, power) = parts(size);
    format!("{mantissa}p{:+}", power - 52)
}

/// `%x`: `0x1.8p+01`.
fn hexadecimal(size: f64, precision: Option<usize>) -> String {
    let (mantissa, mut power) = parts(size);
    // One digit before the point, in bit 60, and fifteen behind it.
    let mut mantissa = mantissa << 8;
    if mantissa == 0 {
        power = 0;
    } else {
        let shift = mantissa.leading_zeros() - 3;
        mantissa <<= shift;
        power -= i32::try_from(shift).unwrap_or(0);
    }
    if let Some(kept) = precision.filter(|kept| *kept < 15) {
        let shift = kept * 4;
        let extra = (mantissa << shift) & ((1 << 60) - 1);
        mantissa >>= 60 - shift;
        // To the nearest, and to the even one of two.
        if extra | (mantissa & 1) > 1 << 59 {
            mantissa += 1;
        }
        mantissa <<= 60 - shift;
        if mantissa >> 61 == 1 {
            mantissa >>= 1;
            power += 1;
        }
    }
    let digits = format!("{:015x}", mantissa & ((1 << 60) - 1));
    let digits = match precision {
        None => digits.trim_end_matches('0').to_owned(),
        Some(kept) => {
            let zeros = "0".repeat(kept.saturating_sub(digits.len()));
            format!("{digits}{zeros}").get(..kept).unwrap_or_default().to_owned()
        }
    };
    let point = if digits.is_empty() { "" } else { "." };
    let sign = if power < 0 { '-' } else { '+' };
    format!("0x{}{point}{digits}p{sign}{:02}", mantissa >> 60, power.abs())
}

/// `#`: with a point in any case, and for `%g` with the zeros at the end.
fn pointed(spec: Spec, verb: char, number: &str) -> String {
    let hex = matches!(verb, 'x' | 'X');
    let end = number.find(if hex { ['p', 'P'] } else { ['e', 'E'] }).unwrap_or(number.len());
    let (body, tail) = number.split_at(end);
    let wanted = match verb {
        'v' | 'g' | 'G' | 'x' => spec.precision.unwrap_or(6),
        _ => 0,
    };
    let digits = body.chars().filter(|c| *c != '.');
    let had = if body == "0" { 1 } else { digits.skip_while(|c| *c == '0').count() };
    let point = if body.contains('.') { "" } else { "." };
    format!("{body}{point}{}{tail}", "0".repeat(wanted.saturating_sub(had)))
}
