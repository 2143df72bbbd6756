//! Which backends are made for a template, and what loops, partials and names do together.

use super::*;
use crate::template::NamedBackend;
use common::model::Backend;

fn input(backends: usize) -> Input {
    let values = [
        "10.0.0.1:80",
        r#"{"addr":"[::1]:81","weight":3,"zone":"a","meta":{"rack":"7","addr":"x"}}"#,
        r#"{"addr":"web.example:1","zone":"b","meta":{}}"#,
        "10.0.0.4:80",
    ];
    let named = |(i, value): (usize, &&str)| NamedBackend {
        key: format!("/services/web/{i}").into(),
        service: "web".into(),
        backend: Backend::parse(value.as_bytes()).unwrap(),
    };
    let backends: Vec<_> = values.iter().take(backends).enumerate().map(named).collect();
    let kv = [("/a/x", "1"), ("/a/y", "two"), ("/b/evil", "; }"), ("/b/none", "")];
    Input::of_keys(kv).with_backends(backends)
}

fn sources() -> TemplateSources {
    let partials = [
        ("line", "{{addr}}|{{#each (getvs \"/a/*\")}}{{this}}{{/each}}\n"),
        ("walk", "  {{#each this}}{{this}};\n{{/each}}"),
        ("outer", "{{#each backends}}{{addr}},{{/each}}\n"),
        ("layout", "<{{> @partial-block}}>"),
    ];
    let partials = partials.map(|(name, text)| (name.to_owned(), text.to_owned()));
    TemplateSources { partials: partials.into(), ..TemplateSources::default() }
}

fn rendered(text: &str) -> Result<String, String> {
    let template = HandlebarsTemplate::compile(Path::new("t.hbs"), text.as_bytes(), &sources());
    let text = template.and_then(|template| template.render(&input(4)));
    text.map(|text| String::from_utf8(text).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_template_that_names_no_backends_gets_none_made() {
    for (text, any, values) in [
        ("{{#each (getvs \"/a/*\")}}{{this}}{{/each}}", false, false),
        ("{{#each (gets \"/a/*\")}}{{#with this}}{{value}}{{/with}}{{/each}}", false, false),
        ("{{upstream \"web\"}}{{#upstream \"api\"}}{{/upstream}}", true, false),
        ("{{#if backends}}{{#each backends}}{{addr}}{{/each}}{{/if}}", true, true),
        ("{{#each backends}}{{> @partial-block}}{{/each}}", true, true),
        ("{{#each backends as |b|}}{{b.addr}}{{/each}}", true, true),
        ("{{#each backends as |b|}}{{concat b.addr}}{{/each}}", true, true),
        ("{{#each (sortBy backends \"id\")}}{{addr}}{{/each}}", true, true),
        ("{{#with backends}}{{/with}}", true, true),
        ("{{toJson this}}", true, true),
        ("{{toJson @root}}", true, true),
        ("{{#each (getvs \"/a/*\")}}{{../backends.0.addr}}{{/each}}", true, true),
        ("{{#each (getvs \"/a/*\")}}{{lookup @root \"back\"}}{{/each}}", true, true),
        ("{{#*inline \"i\"}}{{toJson this}}{{/inline}}{{> i}}", true, true),
    ] {
        let sources = TemplateSources::default();
        let program =
            HandlebarsTemplate::compile(Path::new("t.hbs"), text.as_bytes(), &sources).unwrap();
        assert_eq!(program.asks, Asks { any, values }, "{text}");
    }
}

#[test]
fn loops_partials_and_names_work_together() {
    for (text, want) in [
        (
            "{{#each (getvs \"/a/*\") as |addr|}}{{#each ../backends}}{{addr}},{{/each}}{{/each}}",
            Ok("1,1,1,1,two,two,two,two,"),
        ),
        (
            "{{#each (getvs \"/a/*\") as |addr|}}{{> line}}{{> outer}}{{/each}}",
            Err("partials/outer.hbs:1:1: `backends` is not there"),
        ),
        (
            "{{#each (getvs \"/a/*\")}}{{> line addr=this}}{{> line this=1}}{{/each}}",
            Err("partials/line.hbs:1:1: `addr` is not there"),
        ),
        (
            "a\n  {{> outer}}\nb\n {{> walk (getvs \"/a/*\")}}\nc",
            Ok("a\n  10.0.0.1:80,[::1]:81,web.example:1,10.0.0.4:80,\nb\n   1;\n two;\nc"),
        ),
        (
            " {{#each (ls \"/a\")}}\n  {{this}}\n {{/each}}\n  {{> walk (ls \"/a\")}}\n",
            Ok("  x\n  y\n    x;\n  y;\n"),
        ),
        (
            "x{{#each (getvs \"/a/*\")}}{{this}}\n{{/each}} \n  {{> walk (ls \"/a\")}}.",
            Ok("x1\ntwo\n    x;\n  y;\n."),
        ),
        (
            "{{#> layout}}{{#each backends}}{{addr}}{{/each}}{{/layout}}",
            Ok("<10.0.0.1:80[::1]:81web.example:110.0.0.4:80>"),
        ),
        (
            "{{#each backends}}{{#> layout}}{{addr}}{{#each meta}}{{@key}}{{/each}}{{/layout}}{{/each}}",
            Ok("<10.0.0.1:80><[::1]:81addrrack><web.example:1><10.0.0.4:80>"),
        ),
        (
            "{{#*inline \"i\"}}{{#each this}}{{addr}}{{/each}}{{/inline}}{{> i backends}}{{> i}}",
            Err("t.hbs:1:31: Cannot access array/vector with string index, addr"),
        ),
        ("{{#*inline \"i\"}}{{#each backends}}{{a}}{{/each}}{{/inline}}{{> i a=1}}", Ok("1111")),
        (
            "{{#each (getvs \"/none/*\")}}x{{/each}}{{#each (getvs \"/none/*\")}}x{{else}}y{{/each}}",
            Ok("y"),
        ),
        (
            "{{#each (getv \"/a/x\")}}x{{else}}{{this}}{{/each}}",
            Err("t.hbs:1:33: `{{this}}` is a list or an object, not text"),
        ),
        ("{{#each (getv \"/a/x\")}}x{{/each}}", Err("t.hbs:1:1: a value is missing")),
        (
            "{{#each (get \"/a/x\")}}{{@key}}={{this}}{{@first}}{{@last}}{{@index}} {{/each}}",
            Ok("key=/a/xtruefalse0 value=1falsetrue1 "),
        ),
        ("{{#each (get \"/a/x\") as |v k|}}{{k}}={{v}} {{/each}}", Ok("key=/a/x value=1 ")),
        ("{{#each (getvs \"/a/*\") as |v v|}}{{v}}{{/each}}", Ok("01")),
        (
            "{{#each (getvs \"/b/*\")}}\n  {{{this}}}{{this}}\n{{/each}}",
            Err("t.hbs:2:13: the value of `{{this}}` is \""),
        ),
        (
            "\n{{#each backends}}\n  {{#if zone}}\n {{meta.none}}{{/if}}\n{{/each}}",
            Err("t.hbs:4:2: `meta.none` is not there"),
        ),
        (
            "{{#each backends}}{{meta}}{{/each}}",
            Err("t.hbs:1:19: `{{meta}}` is a list or an object, not text"),
        ),
        (
            "{{#each backends}}{{{meta}}}{{{this}}}{{/each}}",
            Ok("[object][object][object][object][object][object][object][object]"),
        ),
        (
            "{{#each backends}}{{#each meta}}{{../addr}}{{../../backends.0.id}}{{/each}}{{/each}}",
            Ok("[::1]:810[::1]:810"),
        ),
        (
            "{{#each (groupBy backends \"zone\")}}{{@key}}:{{#each this}}{{id}}{{/each}};{{/each}}",
            Ok(":03;a:1;b:2;"),
        ),
        (
            "{{#each (sortBy backends \"weight\" desc=true) as |b|}}{{b.id}}{{concat b.id}}{{/each}}",
            Ok("11002233"),
        ),
        ("{{#each (where backends \"zone\" \"a\")}}{{id}}{{else}}none{{/each}}", Ok("1")),
        (
            "{{#each (sortBy backends none.x)}}{{id}}{{/each}}",
            Err("t.hbs:1:1: `none.x` is not there"),
        ),
        ("{{#each (getvs)}}{{this}}{{/each}}", Err("t.hbs:1:1: `getvs` is not there")),
        (
            "{{#each (sort 1)}}{{this}}{{/each}}",
            Err("t.hbs:1:1: sort: the first argument is not a list"),
        ),
        ("{{#if backends}}{{else}}none{{/if}}{{#unless backends}}none{{/unless}}", Ok("")),
        (
            "{{#if (getv \"/b/none\")}}{{else if backends}}{{#each backends}}{{id}}{{/each}}{{/if}}",
            Ok("0123"),
        ),
        (
            "{{#each (split \"a,b\" \",\")}}{{this.0}}{{/each}}",
            Err("t.hbs:1:28: `this.0` is not there"),
        ),
        (
            "{{#each (json \"[[1],[2.5],null,{\\\"a\\\":1}]\")}}{{{this}}}{{#if [0]}}{{/if}}{{/each}}",
            Err(
                "t.hbs:1:1: json \"[[1],[2.5],null,{\\\"a\\\":1}]\": cannot unmarshal array into Go value of type map[string]interface {}",
            ),
        ),
        (
            "{{#each (json \"[[1],[2]]\")}}{{this.[0]}}{{this.x}}{{/each}}",
            Err(
                "t.hbs:1:1: json \"[[1],[2]]\": cannot unmarshal array into Go value of type map[string]interface {}",
            ),
        ),
        (
            "{{#each (default none (getvs \"/a/*\"))}}{{this}}{{/each}}",
            Err("t.hbs:1:1: `none` is not there"),
        ),
    ] {
        match (rendered(text), want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{text}"),
            (Err(got), Err(want)) => assert!(got.starts_with(want), "{text}: {got}"),
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        }
    }
}
