use super::*;

fn read(text: &str) -> Result<IdealNumber, String> {
    NumberLiteral::read(text).map(|number| number.ideal()).map_err(|fault| fault.what)
}

#[test]
fn numbers_are_those_of_go() {
    use IdealNumber::{Float, Int, Overflows};
    for (text, want) in [
        ("1_000", Int(1000)),
        ("0x_1F", Int(31)),
        ("017", Int(15)),
        ("0o17", Int(15)),
        ("0b101", Int(5)),
        ("+7", Int(7)),
        ("-9223372036854775808", Int(i64::MIN)),
        ("18446744073709551615", Overflows),
        ("-1e+5", Float(-1e5)),
        (".5", Float(0.5)),
        ("1.", Float(1.0)),
        ("0x1p-2", Float(0.25)),
        ("0x1.8p1", Float(3.0)),
        ("0x1e2", Int(0x1e2)),
        ("0x.1p4", Float(1.0)),
        ("0x0.0000000000001p-1022", Float(5e-324)),
        ("08.5", Float(8.5)),
        ("1e308", Float(1e308)),
        ("-0", Int(0)),
    ] {
        assert_eq!(read(text), Ok(want), "{text}");
    }
    for text in ["1__0", "1_", "_1", "1e400", "08", "1i", "-2.5i", "0x", "0x1.8", "+", ".", "0o8"] {
        assert!(read(text).is_err(), "{text}: {:?}", read(text));
    }
    assert_eq!(
        read("18446744073709551616"),
        Err("integer overflow: \"18446744073709551616\"".into())
    );
}

#[test]
fn a_whole_float_is_an_int_where_one_is_wanted() {
    assert_eq!(NumberLiteral::read("1e3").unwrap().int(), Some(1000));
    assert_eq!(NumberLiteral::read("1.5").unwrap().int(), None);
    assert_eq!(NumberLiteral::read("1e300").unwrap().int(), None);
}

#[test]
fn characters_are_numbers() {
    let read = |quoted: &str| {
        NumberLiteral::read_character(quoted.as_bytes()).ok().and_then(|number| number.int())
    };
    for (quoted, want) in [
        ("'a'", Some(97)),
        ("'é'", Some(233)),
        (r"'\''", Some(39)),
        (r"'\xff'", Some(255)),
        (r"'\U0010FFFF'", Some(0x10_ffff)),
        (r"'\uD800'", None),
        ("'ab'", None),
        ("''", None),
        (r#"'\"'"#, None),
    ] {
        assert_eq!(read(quoted), want, "{quoted}");
    }
}

#[test]
fn strings_are_bytes() {
    let read = |quoted: &[u8]| unquote(quoted).ok();
    assert_eq!(read(br#""a\xc3\xa9\303\251\x41\u00e9\n""#).unwrap(), "aééAé\n".as_bytes());
    assert_eq!(read(br#""\xff\U0010FFFF""#).unwrap(), b"\xff\xf4\x8f\xbf\xbf");
    assert_eq!(read(b"\"\xff\"").unwrap(), "\u{fffd}".as_bytes());
    assert_eq!(read(b"`\xff`").unwrap(), b"\xff");
    assert_eq!(read(b"`a\\n\r\n`").unwrap(), b"a\\n\n");
    for bad in [r#""\q""#, r#""\'""#, r#""\uD800""#, r#""\U00110000""#, r#""\400""#, r#""\x4""#] {
        assert_eq!(read(bad.as_bytes()), None, "{bad}");
    }
}
