//! Handlebars templates: what is refused, where, with which words; partials.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::BTreeMap;
use std::path::Path;

use common::model::Backend;
use confsync::template::{
    Engine, Escape, Input, NamedBackend, RenderError, Template, TemplateSources,
};

fn input() -> Input {
    let kv = [("/a", "plain"), ("/evil", "10.0.0.9:80; } server { listen 81"), ("/pair", "k=v")];
    let backend = Backend::parse(b"10.0.0.1:80").unwrap();
    let key = "/services/web/1".into();
    let backend = NamedBackend { key, service: "web".into(), backend };
    Input::of_keys(kv).with_backends(vec![backend])
}

fn partials() -> TemplateSources {
    let partials = [
        ("server", "server {{addr}}{{#if extra}} {{extra}}{{/if}};\n"),
        ("outer", "[{{> server}}]"),
        ("bad", "fine\n  {{getv \"/none\"}}\n"),
    ];
    let partials = partials.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
    TemplateSources { partials: partials.collect::<BTreeMap<_, _>>(), ..TemplateSources::default() }
}

fn render(text: &str) -> Result<String, RenderError> {
    let name = Path::new("web.hbs");
    let template = Template::compile(name, text, Engine::Handlebars, &partials())?;
    template.render(&input()).map(|text| String::from_utf8(text).unwrap())
}

#[test]
fn partials_see_the_place_and_what_is_given() {
    let got = render("{{#each backends}}\n{{> server}}\n{{> server extra=\"down\"}}\n{{/each}}\n")
        .unwrap();
    assert_eq!(got, "server 10.0.0.1:80;\nserver 10.0.0.1:80 down;\n");
    assert_eq!(
        render("{{#each backends}}{{> outer}}{{/each}}").unwrap(),
        "[server 10.0.0.1:80;\n]"
    );
}

/// The same template for each kind of file.
#[test]
fn what_reads_the_file_decides_what_is_rejected_and_how_quote_quotes() {
    let render = |escape: Escape, text: &str| {
        let name = Path::new("web.hbs");
        let sources = TemplateSources { escape, ..TemplateSources::default() };
        let template = Template::compile(name, text, Engine::Handlebars, &sources)?;
        template.render(&input()).map(|text| String::from_utf8(text).unwrap())
    };
    let evil = "{{getv \"/evil\"}}";
    for escape in [Escape::Nginx, Escape::Haproxy, Escape::Shell] {
        assert!(render(escape, evil).is_err(), "{escape:?}");
    }
    for escape in [Escape::Json, Escape::None] {
        assert!(render(escape, evil).unwrap().starts_with("10.0.0.9:80; }"), "{escape:?}");
    }
    let quoted = "{{quote \"a 'b' $c\"}}";
    assert_eq!(render(Escape::Shell, quoted).unwrap(), "\"a 'b' \\$c\"");
    assert_eq!(render(Escape::Json, quoted).unwrap(), "\"a 'b' $c\"");
    // Also in a loop, which is written without handlebars.
    let text = "{{#each (gets \"/evil\")}}{{value}}{{/each}}";
    assert!(render(Escape::Haproxy, text).unwrap_err().what.contains("in HAProxy"));
}

/// `confsync check` has no backends to render with.
#[test]
fn a_field_that_no_backend_has_is_found_before_anything_is_rendered() {
    let compile = |text: &str| {
        Template::compile(Path::new("web.hbs"), text, Engine::Handlebars, &partials()).map(drop)
    };
    for text in
        ["{{#each backends}}{{adr}}{{/each}}", "{{#each backends}}{{#if wight}}x{{/if}}{{/each}}"]
    {
        let error = compile(text).unwrap_err().to_string();
        assert!(error.contains("did you mean `"), "{error}");
    }
    for text in [
        "{{#each backends}}{{this.addr}} {{meta.x}} {{@index}} {{> server}}{{/each}}",
        "{{#each backends}}{{#with meta}}{{anything}}{{/with}}{{/each}}",
        "{{#each (sort backends)}}{{addr}}{{/each}}",
        "{{#each backends as |b|}}{{b.addr}}{{/each}}",
        "{{#each backends}}x{{else}}none{{/each}}",
    ] {
        assert_eq!(compile(text), Ok(()), "{text}");
    }
}

#[test]
fn an_error_names_file_line_column_and_what_to_do() {
    for (text, want) in [
        ("a\nb {{backend}}", "web.hbs:2:3: `backend` is not there; did you mean `backends`?"),
        (
            "{{#if bakends}}x{{/if}}",
            "web.hbs:1:1: `bakends` is not there; did you mean `backends`?",
        ),
        (
            "{{#if true}}\n{{#each (sort bakends)}}{{/each}}{{/if}}",
            "web.hbs:2:1: `bakends` is not there",
        ),
        ("{{#each backends}}\n  {{adr}}\n{{/each}}", "web.hbs:2:3: `adr` is not there"),
        (
            "{{#each (where backends \"service\" \"a\")}}{{adr}}{{/each}}",
            "`adr` is not there; did you mean `addr`?",
        ),
        ("{{#each (gets \"/b\")}}{{Key}}{{/each}}", "`Key` is not there"),
        ("{{#with (get \"/b\")}}{{vale}}{{/with}}", "did you mean `value`?"),
        ("x {{getv \"/b\"}}", "web.hbs:1:3: getv \"/b\": key does not exist: /b; give a default"),
        ("{{getvx \"/b\"}}", "web.hbs:1:1: no helper is called `getvx`; did you mean `getv`?"),
        ("{{join (splt \"a\" \",\") \"-\"}}", "no helper is called `splt`; did you mean `split`?"),
        ("{{#foo}}{{/foo}}", "`{{#foo}}` is not a block; write `{{#each name}}`"),
        (
            "\n{{> sever}}",
            "web.hbs:2:1: no partial is called `sever`; put it into `templates/partials/sever.hbs` (there is `server`)",
        ),
        ("{{> (concat \"a\" \"b\")}}", "the name of a partial is computed"),
        ("{{> bad}}", "partials/bad.hbs:2:3: getv \"/none\""),
        ("\n{{#if true}}", "web.hbs:2:1: {{#if}} has no {{/if}}; add `{{/if}}` where"),
        ("{{getv}}", "`getv` is not there"),
        (
            "{{getv \"a\" \"b\" 1 2 true null}}",
            "getv \"a\": wrong type for value; expected string; got nil",
        ),
        ("{{add 1}}", "add: it needs 2 arguments, not 1"),
        (
            "{{backends}}",
            "`{{backends}}` is a list or an object, not text; walk it with `{{#each}}`",
        ),
        (
            "a\n  {{getv \"/evil\"}};",
            "web.hbs:2:3: the value of `{{getv \"/evil\"}}` is \"10.0.0.9:80; } server",
        ),
    ] {
        let error = render(text).unwrap_err().to_string();
        assert!(error.contains(want), "{text}\n  {error}\n  {want}");
    }
}

#[test]
fn a_value_is_safe_in_every_way_to_write_it() {
    for text in [
        "{{getv \"/evil\"}}",
        "\"{{getv \"/evil\"}}\"",
        "{{#with (get \"/evil\")}}{{value}}{{/with}}",
        "{{#each (gets \"/evil\")}}{{this.value}}{{/each}}",
        "{{#each (getvs \"/evil\") as |x|}}{{x}}{{/each}}",
        "{{concat \"a\" (getv \"/evil\")}}",
        "{{#if true}}{{else}}{{/if}}{{#unless false}}{{getv \"/evil\"}}{{/unless}}",
        "{{~getv \"/evil\"~}}",
        "{{#*inline \"i\"}}{{this}}{{/inline}}{{> i (getv \"/evil\")}}",
        "{{> server addr=(getv \"/evil\")}}",
        "{{lookup (dict \"a\" (getv \"/evil\")) \"a\"}}",
    ] {
        let error = render(text).unwrap_err().to_string();
        assert!(error.contains("in nginx"), "{text}: {error}");
    }
    assert_eq!(
        render("{{quote (getv \"/evil\")}}").unwrap(),
        "\"10.0.0.9:80; } server { listen 81\""
    );
    assert!(render("{{{getv \"/evil\"}}}").unwrap().contains("server {"));
}

#[test]
fn a_field_is_not_hidden_by_a_helper_of_its_name() {
    assert_eq!(
        render("{{#with (dict \"base\" 1 \"index\" 2)}}{{base}}{{{index}}}{{/with}}").unwrap(),
        "12"
    );
}
