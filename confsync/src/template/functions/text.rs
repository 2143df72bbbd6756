//! Text: paths, splitting, case, replacing, encodings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bstr::ByteSlice;
use sha2::{Digest, Sha256};

use super::{
    Call, Fault, Function, FunctionResult, MAX_ITEMS, MAX_TEXT, Ty, bytes, int, items, too_large,
};
use crate::template::path;
use crate::template::runes::runes;
use crate::template::sprintf;
use crate::template::value::{List, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::new("base", &[Ty::Str], base),
    Function::new("dir", &[Ty::Str], dir),
    Function::new("split", &[Ty::Str, Ty::Str], split),
    Function::new("join", &[Ty::Strings, Ty::Str], join),
    Function::new("contains", &[Ty::Str, Ty::Str], contains),
    Function::new("replace", &[Ty::Str, Ty::Str, Ty::Str, Ty::Int], replace),
    Function::new("trimSuffix", &[Ty::Str, Ty::Str], trim_suffix),
    Function::new("trimPrefix", &[Ty::Str, Ty::Str], trim_prefix),
    Function::new("base64Encode", &[Ty::Str], base64_encode),
    Function::new("base64Decode", &[Ty::Str], base64_decode),
    Function::new("repeat", &[Ty::Int, Ty::Str], repeat),
    Function::new("indent", &[Ty::Int, Ty::Str], indent),
    Function::new("nindent", &[Ty::Int, Ty::Str], nindent),
    Function::new("quote", &[Ty::Str], quote),
    Function::new("squote", &[Ty::Str], squote),
    Function::new("sha256sum", &[Ty::Str], sha256sum),
];

fn base(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str(of_path(bytes(args, 0), |path| path::base(path).to_owned())))
}

fn dir(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str(of_path(bytes(args, 0), path::dir)))
}

/// A part of a path, which only `/` and `.` divide: bytes that are no UTF-8 stay.
fn of_path(path: &[u8], part: impl Fn(&str) -> String) -> Vec<u8> {
    match std::str::from_utf8(path) {
        Ok(path) => part(path).into_bytes(),
        Err(_) => {
            let one_by_one: String = path.iter().copied().map(char::from).collect();
            part(&one_by_one).chars().filter_map(|c| u8::try_from(c).ok()).collect()
        }
    }
}

fn split(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let (whole, separator) = (bytes(args, 0), bytes(args, 1));
    let pieces: Vec<&[u8]> = if separator.is_empty() {
        runes(whole).map(|(_, bytes)| bytes).take(MAX_ITEMS + 1).collect()
    } else {
        whole.split_str(separator).take(MAX_ITEMS + 1).collect()
    };
    if pieces.len() > MAX_ITEMS { Err(too_large()) } else { Ok(Value::List(List::strings(pieces))) }
}

fn join(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let pieces: Vec<&[u8]> =
        items(args, 0).iter().map(|piece| piece.as_text().unwrap_or_default()).collect();
    let separator = bytes(args, 1);
    let length: usize = pieces.iter().map(|p| p.len() + separator.len()).sum();
    if length > MAX_TEXT { Err(too_large()) } else { Ok(Value::str(pieces.join(separator))) }
}

fn contains(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::Bool(bytes(args, 0).contains_str(bytes(args, 1))))
}

fn replace(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let (whole, old, new) = (bytes(args, 0), bytes(args, 1), bytes(args, 2));
    let limit = usize::try_from(int(args, 3)).unwrap_or(usize::MAX);
    let count = match old {
        [] => runes(whole).count() + 1,
        old => whole.find_iter(old).count(),
    };
    if whole.len() + count.min(limit).saturating_mul(new.len()) > MAX_TEXT {
        return Err(too_large());
    }
    if !old.is_empty() {
        return Ok(Value::str(whole.replacen(old, new, limit)));
    }
    // Before each rune and at the end.
    let mut out = Vec::with_capacity(whole.len() + count.min(limit) * new.len());
    let pieces = runes(whole).map(|(_, bytes)| bytes).chain([&b""[..]]);
    for (i, piece) in pieces.enumerate() {
        out.extend_from_slice(if i < limit { new } else { b"" });
        out.extend_from_slice(piece);
    }
    Ok(Value::str(out))
}

fn trim_suffix(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let whole = bytes(args, 0);
    Ok(Value::str(whole.strip_suffix(bytes(args, 1)).unwrap_or(whole)))
}

fn trim_prefix(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let whole = bytes(args, 0);
    Ok(Value::str(whole.strip_prefix(bytes(args, 1)).unwrap_or(whole)))
}

fn base64_encode(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str(STANDARD.encode(bytes(args, 0))))
}

fn base64_decode(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let plain: Vec<u8> =
        bytes(args, 0).iter().copied().filter(|c| !matches!(c, b'\r' | b'\n')).collect();
    let loose = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let decoded = loose.decode(plain).map_err(|e| {
        Fault::new(
            format!("illegal base64 data: {e}"),
            "the value must be standard base64 with its padding",
        )
    })?;
    Ok(Value::str(decoded))
}

fn repeat(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let count = usize::try_from(int(args, 0)).unwrap_or(0);
    let piece = bytes(args, 1);
    if count.saturating_mul(piece.len()) > MAX_TEXT {
        return Err(too_large());
    }
    Ok(Value::str(if piece.is_empty() { Vec::new() } else { piece.repeat(count) }))
}

fn indented(args: &[Value]) -> Result<Vec<u8>, Fault> {
    let spaces = usize::try_from(int(args, 0)).unwrap_or(0);
    let whole = bytes(args, 1);
    if whole.is_empty() {
        return Ok(Vec::new());
    }
    let lines = whole.find_iter(b"\n").count() + 1;
    if whole.len() + lines.saturating_mul(spaces) > MAX_TEXT {
        return Err(too_large());
    }
    let pad = b" ".repeat(spaces);
    Ok([&*pad, &*whole.replace(b"\n", [b"\n", &*pad].concat())].concat())
}

fn indent(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str(indented(args)?))
}

fn nindent(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str([b"\n", &*indented(args)?].concat()))
}

fn quote(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str(sprintf::quote(bytes(args, 0))))
}

fn squote(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    Ok(Value::str([b"'", &*bytes(args, 0).replace(b"'", b"''"), b"'"].concat()))
}

fn sha256sum(_: &Call<'_>, args: &[Value]) -> FunctionResult {
    let digest = Sha256::digest(bytes(args, 0));
    Ok(Value::str(digest.iter().map(|b| format!("{b:02x}")).collect::<String>()))
}
