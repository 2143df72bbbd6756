//! What the parser reads and what it refuses, where, and with which words.

use proptest::prelude::*;

use super::parse::{Definitions, parse};
use super::tree::{BranchNode, GoNode, TemplateNode};
use crate::template::error::place;
use crate::template::sprintf;
use crate::template::{Input, TemplateSources};

/// Place and words of the first mistake.
fn refused(text: &str) -> (String, String) {
    let error = parse(b"t", text.as_bytes()).expect_err(text);
    let (line, column) = place(text.as_bytes(), error.at);
    let what = format!("{line}:{column} {}", error.fault.what);
    (what, error.fault.remedy.unwrap_or_default())
}

#[test]
fn the_first_mistake_is_reported() {
    for (text, want) in [
        ("{{ range gets \"/*\" }}\n\n{{ edn }}\n", "3:4 function \"edn\" not defined"),
        ("{{ nope }}{{ end }}", "1:4 function \"nope\" not defined"),
        ("{{ nope }}\n{{ \"\\q\" }}", "1:4 function \"nope\" not defined"),
        ("{{ nope }}\n{{ (1 }}", "1:4 function \"nope\" not defined"),
        ("{{ $x }}{{ if 1 }}{{ else }}{{ else }}{{ end }}", "1:4 undefined variable \"$x\""),
        ("{{ define \"a\" }}{{ nope }}{{ end }}{{ nope2 }}", "1:20 function \"nope\" not defined"),
        ("{{ if 1 }}{{ if 2 }}{{ end }}", "1:1 the {{if}} of line 1 has no {{end}}"),
        ("a{{end}}", "1:2 {{end}} without a block to end"),
        ("{{if .}}{{end}}{{else}}", "1:16 {{else}} outside `if`, `range` or `with`"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "1:17 a second {{else}} in one {{if}}"),
        ("{{if 1}}{{define \"x\"}}{{end}}{{end}}", "1:9 {{define}} inside another block"),
        ("{{if 1}}{{break}}{{end}}", "1:11 {{break}} outside {{range}}"),
        ("{{range .}}{{block \"b\" .}}{{break}}{{end}}{{end}}", "1:29 {{break}} outside {{range}}"),
        ("{{ \"a }}", "1:4 unterminated quoted string"),
        ("{{ 'a }}", "1:4 unterminated character constant"),
        ("{{ `a }}", "1:4 unterminated raw quoted string"),
        ("{{/* a", "1:1 unclosed comment"),
        ("{{/* a */ }}", "1:1 comment ends before closing delimiter"),
        ("{{ /* a */}}", "1:4 unexpected \"/\" in command"),
        ("é\n{{(1}}", "2:5 unclosed left paren"),
        ("{{1)}}", "1:4 unexpected right paren"),
        ("{{1", "1:1 unclosed action"),
        ("{{}}", "1:3 missing value for command"),
        ("{{if}}{{end}}", "1:5 missing value for if"),
        ("{{1 | 2}}", "1:7 non executable command in pipeline stage 2"),
        ("{{range $a, $b, $c := .}}{{end}}", "1:15 too many declarations in range"),
        ("{{$a, $b := 1}}", "1:5 too many declarations in command"),
        ("{{template t}}", "1:12 unexpected \"t\" in template"),
        ("{{block \"b\"}}{{end}}", "1:12 missing value for block"),
        (
            "{{define \"a\"}}x{{end}}{{define \"a\"}}y{{end}}",
            "1:38 multiple definition of template \"a\"",
        ),
    ] {
        assert_eq!(refused(text).0, want, "{text}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    for text in [
        "{{..a}}",
        "{{.a.}}",
        "{{.a..b}}",
        "{{1 .a.}}",
        "{{\"a\".b}}",
        "{{nil.a}}",
        "{{..}}",
        "{{\"a\"\"b\"}}",
        "{{1\"a\"}}",
        "{{.a\"b\"}}",
        "{{$\"b\"}}",
        "{{(1)\"a\"}}",
        "{{(1)(2)}}",
        "{{1(2)}}",
        "{{printf(\"a\")}}",
        "{{not(true)}}",
        "{{.a(1)}}",
        "{{'a''b'}}",
        "{{`a``b`}}",
        "{{1_}}",
        "{{1__0}}",
        "{{0x}}",
        "{{08}}",
        "{{1e}}",
        "{{0b2}}",
        "{{1i2}}",
        "{{\"\\uD800\"}}",
        "{{\"\\U00110000\"}}",
        "{{'\\uDFFF'}}",
        "{{\"\\'\"}}",
        "{{if 1}}{{else with 1}}{{end}}",
        "{{with 1}}{{else if 1}}{{end}}",
        "{{range .}}{{else if 1}}{{end}}",
        "{{range .}}{{else range .}}{{end}}",
        "{{block \"a\"}}{{end}}",
        "{{template}}",
        "{{template 1}}",
        "{{define}}{{end}}",
        "{{define \"a\" .}}{{end}}",
        "{{block \"a\" .}}{{else}}{{end}}",
        "{{break 1}}",
        "{{end 1}}",
        "{{else 1}}{{end}}",
        "{{1 | }}{{|}}",
        "{{$x = 1, 2}}",
        "{{:= 1}}",
        "{{$x : 1}}",
        "{{a.b}}",
        "{{\u{a0}1}}",
        "{{é}}",
        "{{1\u{2028}}}",
        "{{if}}{{end}}",
        "{{len nope}}",
        "{{true.a}}",
        "{{- 1 -}",
        "{{--1}}",
        "{{1 -2-}}",
        "{{range $x, 1 := .}}{{end}}",
        "{{.1}}x{{.a1é!}}",
    ] {
        assert!(parse(b"t", text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn what_go_reads_is_read() {
    for text in [
        "{{template \"u\" $x := 5}}{{define \"u\"}}{{.}}{{end}}",
        "{{if $x := 1}}{{$x}}{{end}}",
        "{{with $x := 1}}{{else with $y := $x}}{{$y}}{{end}}",
        "{{($x := 1)}}{{$x}}",
        "{{printf \"%d\" ($x := 1)}}",
        "{{block \"b\" $x := 1}}{{end}}",
        "{{$x = 1}}",
        "{{range 3}}{{end}}",
        "{{range $i, $x := .}}{{break}}{{continue}}{{end}}",
        "{{/* } {{ */}}{{- /* a */ -}}",
        "{{\"}}\"}}{{`}}`}}{{'}'}}",
        "{{.a.b.c}}{{$.a}}{{(.).a}}{{.é}}",
        "{{1_000}}{{0x_1F}}{{'é'}}{{-1}}{{+1}}",
        "{{ \"a\" | printf }}",
        "{{\t1\r\n}}",
        "{{if(eq 1 1)}}{{end}}",
        "{{1 | not | not}}",
        "{{\"\\U0010FFFF\"}}",
        "{{1.e3}}{{.5}}{{0x1p-2}}",
        "{{1|not}}",
        "{{-9223372036854775808}}",
        "{{with 1}}{{else}}{{end}}",
        "{{define \"a\"}}{{end}}{{define \"a\"}}x{{end}}",
    ] {
        assert!(parse(b"t", text.as_bytes()).is_ok(), "{text}: {:?}", parse(b"t", text.as_bytes()));
    }
}

#[test]
fn a_mistake_has_a_remedy() {
    for (text, want) in [
        ("{{ range gets \"/*\" }}{{ edn }}", "did you mean `end`?"),
        ("{{getv /a}}", "double quotes"),
        ("{{getv '/a'}}", "double quotes"),
        ("{{getv “/a”}}", "plain double quotes"),
        ("{{getv \"/a\" }", "ends with `}}`"),
        ("{{if exists \"/a\" && exists \"/b\"}}{{end}}", "`and (…) (…)`"),
        ("{{if !exists \"/a\"}}{{end}}", "`not (…)`"),
        ("{{if .a == .b}}{{end}}", "`eq … …`"),
        ("{{if .a > 1}}{{end}}", "`gt`"),
        ("{{replace \"a\", \"b\"}}", "no commas"),
        ("{{template t}}", "`{{template \"name\"}}`"),
        ("{{cgetv \"/a\"}}", "encrypted values are not supported"),
    ] {
        let (what, remedy) = refused(text);
        assert!(remedy.contains(want), "{text}: {what}; {remedy}");
    }
}

#[test]
fn markers_trim_four_characters_and_comments_leave_nothing() {
    for (text, want) in [
        ("a {{ 1 }} b", "a |1| b"),
        ("{ \n{{- 1 -}} }", "{|1|}"),
        ("a {{- /* x */}} b", "a| b"),
        ("a {{/* x */ -}} b", "a |b"),
        ("\u{a0}{{- 1 -}}\u{a0}", "\u{a0}|1|\u{a0}"),
        ("{{-1}} {{- -1}}", "-1|-1"),
        ("{{/*/ */}}{{\"}}{{- \"}}", "\"}}{{- \""),
    ] {
        let definitions = parse(b"t", text.as_bytes()).unwrap();
        let shown = |node: &GoNode| match node {
            GoNode::Text(_, text) => String::from_utf8(text.clone()).unwrap(),
            GoNode::Action(pipe) => pipe.to_string(),
            other => panic!("{other:?}"),
        };
        let shown: Vec<_> = definitions[&b"t"[..]].iter().map(shown).collect();
        assert_eq!(shown.join("|"), want, "{text}");
    }
}

/// Writes trees as a template that reads as the same trees.
fn written(definitions: &Definitions) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, body) in definitions.iter().filter(|(name, _)| **name != b"t") {
        out.extend(format!("{{{{define {}}}}}", sprintf::quote(name)).bytes());
        write(&mut out, body);
        out.extend(b"{{end}}");
    }
    write(&mut out, definitions.get(&b"t"[..]).map_or(&[], Vec::as_slice));
    out
}

fn write(out: &mut Vec<u8>, body: &[GoNode]) {
    for node in body {
        match node {
            // At the end of a text a brace would be glued to those of an action.
            GoNode::Text(_, text) if text.ends_with(b"{") || text.starts_with(b"{") => {
                out.extend(format!("{{{{{}}}}}", sprintf::quote(text)).bytes());
            }
            GoNode::Text(_, text) => out.extend(text),
            GoNode::Action(pipe) => out.extend(format!("{{{{{pipe}}}}}").bytes()),
            GoNode::If(branch) => write_branch(out, "if", branch),
            GoNode::With(branch) => write_branch(out, "with", branch),
            GoNode::Range(branch) => write_branch(out, "range", branch),
            GoNode::Template(TemplateNode { name, pipe, .. }) => {
                let pipe = pipe.as_ref().map(|pipe| format!(" {pipe}")).unwrap_or_default();
                out.extend(format!("{{{{template {}{pipe}}}}}", sprintf::quote(name)).bytes());
            }
            GoNode::Break => out.extend(b"{{break}}"),
            GoNode::Continue => out.extend(b"{{continue}}"),
        }
    }
}

fn write_branch(out: &mut Vec<u8>, word: &str, branch: &BranchNode) {
    out.extend(format!("{{{{{word} {}}}}}", branch.pipe).bytes());
    write(out, &branch.body);
    if let Some(otherwise) = &branch.otherwise {
        out.extend(b"{{else}}");
        write(out, otherwise);
    }
    out.extend(b"{{end}}");
}

const PIECES: [&str; 40] = [
    "{{",
    "}}",
    "{{- ",
    " -}}",
    "{{/* x */}}",
    "if ",
    "with ",
    "range ",
    "else",
    "else if ",
    "else with ",
    "end",
    "{{end}}",
    "define \"a\"",
    "block \"b\" ",
    "template \"a\" ",
    "break",
    "continue",
    "$x := ",
    "$x = ",
    "$x",
    "$i, $x := ",
    ".",
    ".a",
    ".a.b",
    "(",
    ")",
    "|",
    " ",
    "\"a\\xff\"",
    "`r`",
    "'c'",
    "1",
    "-1.5e9",
    "0x1p-2",
    "len",
    "printf ",
    "nil",
    "true",
    "text {",
];

proptest! {
    #[test]
    fn what_is_read_is_written_as_the_same_template(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30),
    ) {
        let text = pieces.concat();
        if let Ok(first) = parse(b"t", text.as_bytes()) {
            let once = written(&first);
            let again = parse(b"t", &once);
            prop_assert!(again.is_ok(), "{text}\n{}\n{again:?}", String::from_utf8_lossy(&once));
            prop_assert_eq!(written(&again.unwrap()), once, "{}", text);
        }
    }

    #[test]
    fn any_bytes_are_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = parse(b"t", &bytes);
        let _ = parse(b"t", &[b"{{", &*bytes, b"}}"].concat());
    }
}

#[test]
fn a_method_of_a_time_is_called_or_refused_by_name() {
    let render = |text: &str| {
        let program =
            super::GoTemplate::compile("t".as_ref(), text.as_bytes(), &TemplateSources::default());
        let text = program.and_then(|program| program.render(&Input::default()));
        text.map(|text| String::from_utf8(text).unwrap()).map_err(|error| error.what)
    };
    // `NoSystem` has the first moment of 1970.
    for (text, want) in [
        (
            "{{datetime.Year}} {{datetime.Month}} {{(datetime.AddDate 1 1 1).Unix}}",
            "1970 January 34300800",
        ),
        ("{{(datetime.Add 1500000000).UnixMilli}} {{datetime.UTC.Local.Location}}", "1500 UTC"),
        (
            "{{$a := datetime}}{{$b := $a.Add 1}}{{$a.Before $b}}{{$a.Equal $b}}{{$b.Compare $a}}",
            "truefalse1",
        ),
        ("{{datetime.Format \"2006-01-02\"}} {{\"15:04\" | datetime.Format}}", "1970-01-01 00:00"),
    ] {
        assert_eq!(render(text).as_deref(), Ok(want), "{text}");
    }
    for (text, want) in [
        ("{{datetime.Zone}}", "Zone of a time is not supported here"),
        ("{{datetime.Nope}}", "can't evaluate field Nope in type time.Time"),
        ("{{datetime.Format}}", "wrong number of args for Format: want 1 got 0"),
        ("{{datetime.Year 1}}", "wrong number of args for Year: want 0 got 1"),
        ("{{datetime.Before 1}}", "wrong type for value; expected time.Time; got int"),
    ] {
        assert_eq!(render(text), Err(want.to_owned()), "{text}");
    }
}
