//! `include`, which confd's fork has: a template of the same folder, rendered in place.

use std::path::Path;
use std::sync::Arc;

use confsync::local::LocalSystem;
use confsync::template::{Engine, Input, Template, TemplateSources};

fn render(folder: &Path, text: &str) -> Result<String, String> {
    let sources =
        TemplateSources { templates: Some(folder.to_owned()), ..TemplateSources::default() };
    let template = Template::compile(Path::new("main.tmpl"), text, Engine::Go, &sources);
    let system = Arc::new(LocalSystem);
    let input = Input::of_keys([("/name", "shop")]).with_system(system);
    let rendered = template.and_then(|t| t.render(&input));
    rendered
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .map_err(|error| error.to_string())
}

#[test]
fn a_file_is_rendered_in_place_with_its_data() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("plain.tmpl", "<{{.}} {{getv \"/name\"}}>");
    write("sub/outer.tmpl", "[{{include \"plain.tmpl\" .}}]");
    let got = render(
        folder.path(),
        "{{include \"plain.tmpl\"}}{{include \"plain.tmpl\" 5}}{{\"x\" | include \"sub/outer.tmpl\"}}",
    );
    assert_eq!(got.as_deref(), Ok("<<no value> shop><5 shop>[<x shop>]"));
}

#[test]
fn circles_depth_and_the_outside_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.tmpl", "{{include \"b.tmpl\"}}");
    write("b.tmpl", "\n{{include \"a.tmpl\"}}");
    write("bad.tmpl", "fine\n {{getv \"/none\"}}");
    for i in 0..12 {
        write(&format!("n{i}.tmpl"), &format!("{{{{include \"n{}.tmpl\"}}}}", i + 1));
    }
    std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
    for (text, part) in [
        ("{{include \"a.tmpl\"}}", "b.tmpl:2:3: include cycle detected"),
        ("{{include \"n0.tmpl\"}}", "maximum include depth (10) exceeded"),
        ("{{include \"link\"}}", "outside template directory"),
        ("{{include \"../x\"}}", "outside template directory"),
        ("{{include \".\"}}", "outside template directory"),
        ("{{include \"none\"}}", "main.tmpl:1:3: include none"),
        ("{{include \"bad.tmpl\"}}", "bad.tmpl:2:4: getv \"/none\""),
        ("{{include 5}}", "expected string"),
    ] {
        let error = render(folder.path(), text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
