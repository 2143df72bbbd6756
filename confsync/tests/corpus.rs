//! Templates that confd has rendered: `tests/corpus/NAME` holds the template, its
//! keys (or the common ones beside it) and what confd made of them, byte for byte:
//! `expected`, or `error` with confd's message.
//!
//! A case with `confd` as well is one where we differ on purpose: `confd` holds its
//! bytes, `expected` ours, and `docs/confd.md` the reason.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use confsync::local::LocalSystem;
use confsync::template::{Engine, Input, Template, TemplateSources};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus")
}

fn data(file: &Path) -> BTreeMap<String, String> {
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn render(case: &Path, kv: &BTreeMap<String, String>) -> Result<Vec<u8>, String> {
    let text = std::fs::read(case.join("template.tmpl")).unwrap();
    let sources =
        TemplateSources { templates: Some(case.to_owned()), ..TemplateSources::default() };
    let template = Template::compile(Path::new("t.tmpl"), &text, Engine::Go, &sources);
    let input = Input::of_keys(kv.clone()).with_system(Arc::new(LocalSystem));
    template.and_then(|t| t.render(&input)).map_err(|e| e.to_string())
}

/// `t.tmpl:3` of a message.
fn line(message: &str) -> Option<u32> {
    let after = message.split_once("t.tmpl:")?.1;
    after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What is wrong with a case, if anything.
fn verdict(case: &Path, common: &BTreeMap<String, String>) -> Option<String> {
    let own = case.join("data.json");
    let kv = if own.exists() { data(&own) } else { common.clone() };
    let expected = std::fs::read(case.join("expected")).ok();
    match (render(case, &kv), expected) {
        (Ok(got), Some(want)) if got == want => None,
        (Ok(got), Some(want)) => {
            Some(format!("want \"{}\"\n     got  \"{}\"", want.escape_ascii(), got.escape_ascii()))
        }
        (Ok(got), None) => Some(format!("confd refuses it; got \"{}\"", got.escape_ascii())),
        (Err(error), Some(_)) => Some(format!("confd renders it; {error}")),
        (Err(error), None) => {
            let theirs = std::fs::read_to_string(case.join("error")).unwrap();
            // For a block without end confd names the end of the file, we the block.
            let theirs = line(&theirs).filter(|_| !theirs.contains("unexpected EOF"));
            let ours = line(&error);
            (theirs.is_some() && theirs != ours)
                .then(|| format!("confd says line {theirs:?}; {error}"))
        }
    }
}

#[test]
fn every_case_renders_as_confd_renders_it() {
    let common = data(&corpus().join("data.json"));
    let mut cases: Vec<PathBuf> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 120, "only {} cases", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let name = case.file_name().unwrap().to_string_lossy().into_owned();
            verdict(case, &common).map(|what| format!("{name}: {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
