//! The examples of `docs/handlebars.md`, run unchanged: a template, then what it
//! renders, or a part of the error.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::model::Backend;
use confsync::local::LocalSystem;
use confsync::template::{Engine, Input, NamedBackend, Template, TemplateSources, helpers};

fn page() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/handlebars.md");
    std::fs::read_to_string(file).unwrap()
}

/// The fenced blocks: their line, language and text.
fn blocks(page: &str) -> Vec<(usize, String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (i, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((i + 1, language.to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

fn input(json: &str) -> Input {
    let kv: BTreeMap<String, String> = serde_json::from_str(json).unwrap();
    let backends = kv.iter().filter_map(|(key, value)| {
        let (service, _) = key.strip_prefix("/services/")?.split_once('/')?;
        Some(NamedBackend {
            key: key.as_str().into(),
            service: service.into(),
            backend: Backend::parse(value.as_bytes()).unwrap(),
        })
    });
    let system = Arc::new(LocalSystem);
    Input::of_keys(kv.clone()).with_system(system).with_backends(backends.collect())
}

#[test]
fn every_example_does_what_the_page_says() {
    let page = page();
    let blocks = blocks(&page);
    let data = input(&blocks.iter().find(|(_, language, _)| language == "json").unwrap().2);
    let mut wrong = Vec::new();
    for pair in blocks.windows(2) {
        let [(line, hbs, template), (_, kind, want)] = pair else { continue };
        if hbs != "hbs" {
            continue;
        }
        let name = Path::new("example.hbs");
        let got =
            Template::compile(name, template, Engine::Handlebars, &TemplateSources::default())
                .and_then(|template| template.render(&data))
                .map(|text| String::from_utf8(text).unwrap())
                .map_err(|error| error.to_string());
        let fits = match (&got, kind.as_str()) {
            (Ok(got), "text") => got == want,
            (Err(error), "error") => error.contains(want.trim()),
            _ => false,
        };
        if !fits {
            wrong.push(format!("line {line}: {}", got.unwrap_or_else(|e| format!("error: {e}"))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_helper_has_an_example() {
    let page = page();
    let examples: String =
        blocks(&page).into_iter().filter(|(_, l, _)| l == "hbs").map(|(_, _, t)| t).collect();
    let words: Vec<&str> = examples.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let missing: Vec<&str> = helpers().into_iter().filter(|name| !words.contains(name)).collect();
    assert!(missing.is_empty(), "no example for {missing:?}");
}
