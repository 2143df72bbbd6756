use super::*;

fn against(template: &str) -> String {
    let all = convert(template).unwrap_err();
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn common_templates_become_handlebars() {
    for (go, hbs) in [
        ("plain { } text", "plain { } text"),
        ("a {\n{{- getv \"/a\"}}}", "a {{{concat \"{\"}}}{{getv \"/a\"}}}"),
        (r#"{{getv "/a"}}"#, r#"{{getv "/a"}}"#),
        (
            r#"{{ range getvs "/a/*" }}server {{ . }};{{ end }}"#,
            r#"{{#each (getvs "/a/*")}}server {{this}};{{/each}}"#,
        ),
        (
            r#"{{range gets "/a/*"}}{{base .Key}} {{.Value}}{{else}}x{{end}}"#,
            r#"{{#each (gets "/a/*")}}{{base key}} {{value}}{{else}}x{{/each}}"#,
        ),
        (
            r#"{{range $i, $x := ls "/a"}}{{$i}}{{$x}}{{end}}"#,
            r#"{{#each (ls "/a") as |x i|}}{{i}}{{x}}{{/each}}"#,
        ),
        (
            r#"{{if exists "/a"}}1{{else if eq 1 2}}2{{else}}3{{end}}"#,
            r#"{{#if (exists "/a")}}1{{else if (eq 1 2)}}2{{else}}3{{/if}}"#,
        ),
        (
            r#"{{$k := "/a"}}{{range ls $k}}{{printf "%s/%s" $k . | getv}}{{end}}"#,
            r#"{{#each (ls "/a")}}{{getv (printf "%s/%s" "/a" this)}}{{/each}}"#,
        ),
        (
            r#"{{range gets "/a"}}{{$d := json .Value}}{{range $d.l}}{{.}}{{$d.n}}{{end}}{{end}}"#,
            r#"{{#each (gets "/a")}}{{#each (lookup (json value) "l")}}{{this}}{{lookup (json ../value) "n"}}{{/each}}{{/each}}"#,
        ),
        (
            r#"{{with get "/a"}}{{.Value}}{{end}}"#,
            r#"{{#with (get "/a")}}{{value}}{{else}}{{/with}}"#,
        ),
        (
            r#"{{if and (exists "/a") (not false)}}{{end}}{{or "" "b"}}{{and "a" "b"}}"#,
            r#"{{#if (and (exists "/a") (not false))}}{{/if}}{{default "b" ""}}{{ternary "b" "a" "a"}}"#,
        ),
        (
            r#"{{define "s"}}{{.}};{{end}}{{range ls "/a"}}{{template "s" .}}{{end}}"#,
            "{{#*inline \"s\"}}{{this}};{{/inline}}\n{{#each (ls \"/a\")}}{{> s this}}{{/each}}",
        ),
        (
            r#"{{/* c */}}a {{- " b" }}{{eq 1 2 3}}{{ge 1 2}}{{datetime.Format "06"}}"#,
            r#"a b{{or (eq 1 2) (eq 1 3)}}{{gte 1 2}}{{datetime "06"}}"#,
        ),
    ] {
        assert_eq!(convert(go).as_deref(), Ok(hbs), "{go}");
    }
}

#[test]
fn what_cannot_be_is_said_with_its_line() {
    for (go, part) in [
        ("{{$x := 1}}\n{{$x = 2}}", "line 2: a variable that is set again"),
        ("\n{{range ls \"/a\"}}{{break}}{{end}}", "line 2: {{break}}"),
        ("{{if and (exists \"/a\") (getv \"/a\")}}{{end}}", "evaluates all of its arguments"),
        ("{{range 3}}{{end}}", "over a number"),
        ("{{include \"x\"}}", "partial"),
        ("{{.}}", "outermost"),
        ("a\\{{getv \"/a\"}}", "backslash"),
        ("{{if}}", "line 1"),
    ] {
        let all = against(go);
        assert!(all.contains(part), "{go}: {all}");
    }
}

#[test]
fn all_obstacles_are_said_at_once() {
    let all =
        against("{{$x := 1}}{{$x = 2}}\n{{range ls \"/\"}}{{continue}}{{end}}\n{{nil | print}}");
    assert_eq!(all.lines().count(), 3, "{all}");
}
