//! The cheap loops write what handlebars' own would write, byte for byte and fault for
//! fault.

use super::*;
use crate::template::NamedBackend;
use common::model::Backend;
use proptest::prelude::*;

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

/// Renders both ways and wants one answer.
fn same(text: &str) -> Result<(), String> {
    let read = |light| HandlebarsTemplate::read(Path::new("t.hbs"), text, &sources(), light);
    let (light, own) = match (read(true), read(false)) {
        (Ok(light), Ok(own)) => (light, own),
        (Err(light), Err(own)) if light == own => return Ok(()),
        // A field that no backend has is refused before anything is rendered.
        (Err(light), Ok(_)) if light.what.ends_with("is not there") => return Ok(()),
        (light, own) => return Err(format!("{text}\n{light:?}\n{own:?}")),
    };
    for count in [0, 1, 4] {
        let mut input = input(count);
        let want = own.render(&input);
        if !light.asks.any {
            input.backends.clear();
        }
        let got = light.render(&input);
        if got != want {
            return Err(format!("{text}\nwith {count} backends\n{got:?}\n{want:?}"));
        }
    }
    Ok(())
}

#[test]
fn who_asks_for_no_backends_gets_none_made() {
    for (text, any, whole) in [
        ("{{#each (getvs \"/a/*\")}}{{this}}{{/each}}", false, false),
        ("{{#each (gets \"/a/*\")}}{{#with this}}{{value}}{{/with}}{{/each}}", false, false),
        ("{{#if backends}}{{#each backends}}{{addr}}{{/each}}{{/if}}", true, false),
        ("{{#each backends}}{{> @partial-block}}{{/each}}", true, false),
        ("{{#each backends as |b|}}{{b.addr}}{{/each}}", true, false),
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
        let program = HandlebarsTemplate::read(Path::new("t.hbs"), text, &sources, true).unwrap();
        assert_eq!(program.asks, Asks { any, whole }, "{text}");
    }
}

#[test]
fn shadows_partials_and_empty_lists_change_nothing() {
    for text in [
        "{{#each (getvs \"/a/*\") as |addr|}}{{#each ../backends}}{{addr}},{{/each}}{{/each}}",
        "{{#each (getvs \"/a/*\") as |addr|}}{{> line}}{{> outer}}{{/each}}",
        "{{#each (getvs \"/a/*\")}}{{> line addr=this}}{{> line this=1}}{{/each}}",
        "a\n  {{> outer}}\nb\n {{> walk (getvs \"/a/*\")}}\nc",
        " {{#each (ls \"/a\")}}\n  {{this}}\n {{/each}}\n  {{> walk (ls \"/a\")}}\n",
        "x{{#each (getvs \"/a/*\")}}{{this}}\n{{/each}} \n  {{> walk (ls \"/a\")}}.",
        "{{#> layout}}{{#each backends}}{{addr}}{{/each}}{{/layout}}",
        "{{#each backends}}{{#> layout}}{{addr}}{{#each meta}}{{@key}}{{/each}}{{/layout}}{{/each}}",
        "{{#*inline \"i\"}}{{#each this}}{{addr}}{{/each}}{{/inline}}{{> i backends}}{{> i}}",
        "{{#*inline \"i\"}}{{#each backends}}{{a}}{{/each}}{{/inline}}{{> i a=1}}",
        "{{#each (getvs \"/none/*\")}}x{{/each}}{{#each (getvs \"/none/*\")}}x{{else}}y{{/each}}",
        "{{#each (getv \"/a/x\")}}x{{else}}{{this}}{{/each}}",
        "{{#each (getv \"/a/x\")}}x{{/each}}",
        "{{#each (get \"/a/x\")}}{{@key}}={{this}}{{@first}}{{@last}}{{@index}} {{/each}}",
        "{{#each (get \"/a/x\") as |v k|}}{{k}}={{v}} {{/each}}",
        "{{#each (getvs \"/a/*\") as |v v|}}{{v}}{{/each}}",
        "{{#each (getvs \"/b/*\")}}\n  {{{this}}}{{this}}\n{{/each}}",
        "\n{{#each backends}}\n  {{#if zone}}\n {{meta.none}}{{/if}}\n{{/each}}",
        "{{#each backends}}{{meta}}{{/each}}",
        "{{#each backends}}{{{meta}}}{{{this}}}{{/each}}",
        "{{#each backends}}{{#each meta}}{{../addr}}{{../../backends.0.id}}{{/each}}{{/each}}",
        "{{#each (groupBy backends \"zone\")}}{{@key}}:{{#each this}}{{id}}{{/each}};{{/each}}",
        "{{#each (sortBy backends \"weight\" desc=true) as |b|}}{{b.id}}{{concat b.id}}{{/each}}",
        "{{#each (where backends \"zone\" \"a\")}}{{id}}{{else}}none{{/each}}",
        "{{#each (sortBy backends none.x)}}{{id}}{{/each}}",
        "{{#each (getvs)}}{{this}}{{/each}}",
        "{{#each (sort 1)}}{{this}}{{/each}}",
        "{{#if backends}}{{else}}none{{/if}}{{#unless backends}}none{{/unless}}",
        "{{#if (getv \"/b/none\")}}{{else if backends}}{{#each backends}}{{id}}{{/each}}{{/if}}",
        "{{#each (split \"a,b\" \",\")}}{{this.0}}{{/each}}",
        "{{#each (json \"[[1],[2.5],null,{\\\"a\\\":1}]\")}}{{{this}}}{{#if [0]}}{{/if}}{{/each}}",
        "{{#each (json \"[[1],[2]]\")}}{{this.[0]}}{{this.x}}{{/each}}",
        "{{#each (default none (getvs \"/a/*\"))}}{{this}}{{/each}}",
    ] {
        same(text).unwrap();
    }
}

/// Pieces that a body of a loop may be made of.
const PIECES: [&str; 26] = [
    "text ",
    "\n",
    "  \n",
    "{{addr}}",
    "{{this.addr}}",
    "{{i.addr}}",
    "{{i}}",
    "{{n}}",
    "{{this}}",
    "{{{this}}}",
    "{{value}}",
    "{{#if value}}{{value}}{{/if}}",
    "{{zone}}",
    "{{meta.rack}}",
    "{{#if meta.rack}}r{{else}}\nno{{/if}}",
    "{{#unless @last}},\n{{/unless}}",
    "{{@index}}",
    "{{#if @first}}{{@key}}{{/if}}",
    "{{! nothing }}",
    "{{concat id \"-\" weight}}",
    "{{#each meta}}{{@key}}{{this}}{{/each}}",
    "{{#with meta}}{{rack}}{{/with}}",
    "{{#each (getvs \"/a/*\")}}{{this}}{{/each}}",
    "{{> line}}",
    "{{> line addr=\"z\"}}",
    "\n  {{> line}}\n",
];

const LISTS: [&str; 9] = [
    "backends",
    "(sortBy backends \"weight\")",
    "(groupBy backends \"zone\")",
    "(where backends \"zone\" \"a\")",
    "(gets \"/a/*\")",
    "(getvs \"/b/*\")",
    "(get \"/a/x\")",
    "(ls \"/a\")",
    "backends.1.meta",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn any_loop_writes_the_same_both_ways(
        list in prop::sample::select(&LISTS[..]),
        names in prop::sample::select(&["", " as |i|", " as |i n|"][..]),
        body in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..4),
        inverse in prop::sample::select(&["", "{{else}}none{{this}}"][..]),
        before in prop::sample::select(&["", "a", "a\n  "][..]),
        after in prop::sample::select(&["", "b", "\n  {{> outer}}\n"][..]),
    ) {
        let body = body.concat();
        let text = format!("{before}{{{{#each {list}{names}}}}}{body}{inverse}{{{{/each}}}}{after}");
        prop_assert_eq!(same(&text), Ok(()));
    }
}
