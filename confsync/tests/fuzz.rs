//! Any template on any data is an answer: never a panic, never without end, never
//! more than the bound. Pieces of both languages are thrown together at random.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::BTreeMap;
use std::path::Path;

use confsync::fuzz::any_template;
use confsync::template::{Engine, Input, Template, TemplateSources};
use proptest::prelude::*;

/// Words that mean something to one language or the other.
const PIECES: [&str; 64] = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    "{{{",
    "}}}",
    "{{#",
    "{{/",
    "{{>",
    "{{~",
    "{{!--",
    "--}}",
    "/*",
    "*/",
    "if ",
    "else",
    "end",
    "range ",
    "with ",
    "each ",
    "define ",
    "block ",
    "template ",
    "break",
    "$x := ",
    "$x = ",
    "$x",
    "$",
    ".",
    ".Key",
    "this",
    "../",
    "@index",
    "as |a b|",
    "(",
    ")",
    "|",
    "\"",
    "`",
    "'",
    "\\",
    "\n",
    " ",
    "\"/a\"",
    "\"/*\"",
    "getv ",
    "gets ",
    "getvs ",
    "ls ",
    "json ",
    "printf ",
    "\"%v%s%d%*d\"",
    "index ",
    "slice ",
    "seq 1 9 ",
    "repeat 9 ",
    "split ",
    "list ",
    "dict ",
    "and ",
    "eq ",
    "1",
    "-1.5e9",
    "backends",
];

fn template() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        9 => prop::sample::select(PIECES.as_slice()).prop_map(str::to_owned),
        1 => "\\PC{0,3}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn data() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value =
        prop_oneof!["\\PC{0,20}", Just("{\"a\":[1,null,{}]}".to_owned()), Just("[1,\"x\"]".into())];
    prop::collection::btree_map("/[a-c/]{0,6}", value, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn any_go_template_is_an_answer(text in template(), kv in data()) {
        any_template("t.tmpl", &text, kv);
    }

    #[test]
    fn any_handlebars_template_is_an_answer(text in template(), kv in data()) {
        any_template("t.hbs", &text, kv);
    }

    #[test]
    fn a_plain_value_cannot_leave_its_place_in_a_config(value in "\\PC{0,40}") {
        let kv = BTreeMap::from([("/v".to_owned(), value)]);
        let name = Path::new("t.hbs");
        let template = Template::compile(name, "a {{getv \"/v\"}};", Engine::Handlebars, &TemplateSources::default());
        if let Ok(got) = template.unwrap().render(&Input::of_keys(kv)) {
            let got = String::from_utf8(got).unwrap();
            let inner = &got[2..got.len() - 1];
            prop_assert!(!inner.contains([' ', '\n', '\t', ';', '{', '}', '"', '\'', '\\', '#', '$']), "{got}");
        }
    }
}

fn refused(name: &str, text: &str) -> String {
    let kv = BTreeMap::from([("/a".to_owned(), "x".repeat(1000))]);
    let name = Path::new(name);
    let template = Template::compile(name, text, Engine::of(name), &TemplateSources::default());
    template.and_then(|t| t.render(&Input::of_keys(kv))).unwrap_err().to_string()
}

/// Without its DFA `regex` takes a thousand times as long for this, and a test
/// that long is ended.
#[test]
fn many_repetitions_in_a_pattern_are_searched_for_in_one_pass() {
    let text = r#"{{regexMatch "[a-z]{1,900}b" (repeat 500 (getv "/a"))}}"#;
    let kv = BTreeMap::from([("/a".to_owned(), "x".repeat(1000))]);
    let name = Path::new("t.tmpl");
    let template = Template::compile(name, text, Engine::of(name), &TemplateSources::default());
    let rendered = template.and_then(|t| t.render(&Input::of_keys(kv)));
    assert_eq!(rendered.unwrap(), b"false");
}

/// Each of these runs a bound down to its end, which takes seconds in a debug build: the
/// first alone by default, all with `FUZZ_BOUNDS=all`.
#[test]
fn what_would_not_end_is_stopped() {
    let all = std::env::var("FUZZ_BOUNDS").is_ok_and(|which| which == "all");
    let slow = [
        ("t.tmpl", "{{range 9000000000000000000}}{{end}}", "steps"),
        ("t.tmpl", "{{range 1000000}}{{getv \"/a\"}}{{end}}", "MiB"),
        (
            "t.hbs",
            "{{#with (seq 1 9999) as |s|}}{{#each s}}{{#each s}}{{/each}}{{/each}}{{/with}}",
            "steps",
        ),
        ("t.hbs", "{{#each (seq 1 100000)}}{{getv \"/a\"}}{{/each}}", "MiB"),
    ];
    for (name, text, part) in slow.into_iter().take(if all { usize::MAX } else { 1 }) {
        let error = refused(name, text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_would_not_fit_is_stopped() {
    for (name, text, part) in [
        (
            "t.tmpl",
            "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}",
            "nested more than",
        ),
        ("t.tmpl", "{{seq 1 9000000000000000000}}", "at most"),
        (
            "t.tmpl",
            "{{$x := \"xxxxxxxx\"}}{{range seq 1 64}}{{$x = printf \"%s%s\" $x $x}}{{end}}",
            "MiB",
        ),
        ("t.tmpl", "{{$x := list}}{{range seq 1 64}}{{$x = list $x $x}}{{end}}{{$x}}", "MiB"),
        ("t.tmpl", "{{$x := list}}{{range seq 1 999}}{{$x = list $x}}{{end}}", "deep"),
        ("t.tmpl", "{{repeat 9000000000 \"abcdefgh\"}}", "MiB"),
        ("t.tmpl", "{{printf \"%999999d\" 1 | repeat 999}}", "MiB"),
        ("t.tmpl", "{{indent 9000000000 \"a\"}}", "MiB"),
        ("t.tmpl", "{{regexReplaceAll \"x\" (getv \"/a\") (repeat 999999 \"y\")}}", "MiB"),
        ("t.hbs", "{{#*inline \"a\"}}{{> a}}{{/inline}}{{> a}}", "uses itself"),
        (
            "t.hbs",
            "{{#*inline \"a\"}}{{> b}}{{/inline}}{{#*inline \"b\"}}{{> a}}{{/inline}}{{> a}}",
            "uses itself",
        ),
    ] {
        let error = refused(name, text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn deep_nesting_is_refused_and_does_not_exhaust_the_stack() {
    let many = 100_000;
    for (name, open, close) in [
        ("t.tmpl", "{{if true}}", "{{end}}"),
        ("t.tmpl", "{{with 1}}", ""),
        ("t.hbs", "{{#if true}}", "{{/if}}"),
        ("t.hbs", "{{#each x}}", ""),
    ] {
        refused(name, &format!("{}{}", open.repeat(many), close.repeat(many)));
    }
    for (name, open) in [("t.tmpl", "{{"), ("t.hbs", "{{x "), ("t.hbs", "{{#if ")] {
        for bracket in ["(", "[", "(not ", "{"] {
            refused(name, &format!("{open}{}", bracket.repeat(many)));
        }
    }
    refused("t.tmpl", &format!("{{{{fromJson `{}`}}}}", "[".repeat(many)));
    refused("t.hbs", &format!("{{{{fromJson '{}'}}}}", "[".repeat(many)));
}
