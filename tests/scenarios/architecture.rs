//! The structure of the crates, compared with their sources: the modules of every folder import
//! each other in one direction only, the rooms of confsync downwards only, and
//! docs/architecture.md shows what is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each room or module imports of its neighbours.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn source(name: &str) -> PathBuf {
    workspace().join(name).join("src")
}

/// The rooms, lowest first, as `lib.rs` lists them.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string(source("confsync").join("lib.rs")).unwrap();
    let (text, _) = text.split_once("#[cfg(test)]").unwrap();
    let name = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    text.lines().filter_map(name).collect()
}

/// The files of a module: `name.rs`, and everything in the folder `name`.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let (file, inside) = (folder.join(format!("{name}.rs")), folder.join(name));
    let mut found: Vec<PathBuf> = file.is_file().then_some(file).into_iter().collect();
    let mut open = vec![inside];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.extend((!path.ends_with("tests")).then_some(path));
            } else if path.extension().is_some_and(|ending| ending == "rs")
                && !path.ends_with("tests.rs")
            {
                found.push(path);
            }
        }
    }
    found
}

/// The modules right below a folder.
fn modules(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let module = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?.to_owned();
        let is = path.is_dir() || path.extension().is_some_and(|ending| ending == "rs");
        (is && !["mod", "lib", "main", "tests"].contains(&name.as_str())).then_some(name)
    };
    entries.filter_map(module).collect()
}

/// The first names after `prefix::` in a source, of a list in braces each.
fn names_after(text: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c == ':' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let list = rest.strip_prefix('{').map_or_else(|| vec![rest], top_level);
        let word = |c: char| c.is_alphanumeric() || c == '_';
        for item in list {
            let item = item.trim_start();
            let name = item.split(|c| !word(c)).next().unwrap_or_default();
            names.insert(name.to_owned());
        }
    }
    names
}

/// The items of a list in braces, without those inside of further braces.
fn top_level(list: &str) -> Vec<&str> {
    let (mut items, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&list[from..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items
}

/// What is compiled into the program: no comment, no test.
fn code_of(text: &str) -> String {
    let (text, _) = text.split_once("#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The names that a folder's `mod.rs` passes on, and the module each of them comes from.
fn passed_on(folder: &Path, known: &BTreeSet<String>) -> BTreeMap<String, String> {
    let files = ["mod.rs", "lib.rs"].map(|name| fs::read_to_string(folder.join(name)));
    let text = code_of(&files.into_iter().filter_map(Result::ok).collect::<String>());
    let mut from = BTreeMap::new();
    for statement in text.split(';').map(str::trim_start) {
        let Some((before, list)) = statement.split_once("use ") else { continue };
        let Some((module, _)) = list.trim_start_matches("self::").split_once("::") else {
            continue;
        };
        if before.starts_with("pub") && known.contains(module) {
            let names = names_after(list, &format!("{module}::"));
            from.extend(names.into_iter().map(|name| (name, module.to_owned())));
        }
    }
    from
}

/// What the modules of a folder import of each other; `inside` is its path below `src`.
fn imports(src: &Path, inside: &Path) -> Imports {
    let folder = src.join(inside);
    let known = modules(&folder);
    let passed_on = passed_on(&folder, &known);
    let parts = inside.components().map(|part| part.as_os_str().to_str().unwrap());
    let whole = format!("crate::{}", parts.map(|part| format!("{part}::")).collect::<String>());
    let mut all = Imports::new();
    for name in &known {
        let mut found = BTreeSet::new();
        for file in files(&folder, name) {
            let text = code_of(&fs::read_to_string(&file).unwrap());
            found.extend(names_after(&text, &whole));
            // From `a.rs` or `a/mod.rs`, `super::b` is a sibling; from `a/c.rs` it takes two.
            let inside = file.strip_prefix(folder.join(name)).unwrap_or(Path::new("mod.rs"));
            let depth = inside.components().count() - usize::from(inside.ends_with("mod.rs"));
            found.extend(names_after(&text, &"super::".repeat(depth + 1)));
        }
        let module = |found: String| passed_on.get(&found).cloned().unwrap_or(found);
        let mut found: BTreeSet<String> = found.into_iter().map(module).collect();
        found.retain(|other| other != name && known.contains(other));
        all.insert(name.clone(), found);
    }
    all
}

/// All folders of a crate's sources that have modules, relative to `src`.
fn folders(src: &Path) -> BTreeSet<PathBuf> {
    let parent = |file: PathBuf| file.parent().unwrap().strip_prefix(src).unwrap().to_owned();
    sources(src).into_iter().map(parent).collect()
}

/// A circle of modules that import each other, if there is one.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn walk(at: &str, way: &mut Vec<String>, imports: &Imports) -> bool {
        if let Some(begins) = way.iter().position(|name| name == at) {
            way.drain(..begins);
            return true;
        }
        way.push(at.to_owned());
        for next in imports.get(at).into_iter().flatten() {
            if walk(next, way, imports) {
                return true;
            }
        }
        way.pop();
        false
    }
    imports.keys().find_map(|name| {
        let mut way = Vec::new();
        walk(name, &mut way, imports).then_some(way)
    })
}

#[test]
fn imports_are_read_as_written() {
    let text = "use crate::a::B;\nuse crate::{c, d::{e, f}};\nlet x = other::crate::g;\n";
    let names: BTreeSet<String> = ["a", "c", "d"].map(str::to_owned).into();
    assert_eq!(names_after(text, "crate::"), names);
    let of = |pairs: &[(&str, &str)]| -> Imports {
        let one = |(a, b): &(&str, &str)| ((*a).to_owned(), BTreeSet::from([(*b).to_owned()]));
        pairs.iter().map(one).collect()
    };
    assert_eq!(circle(&of(&[("a", "b"), ("b", "c")])), None);
    assert_eq!(circle(&of(&[("a", "b"), ("b", "c"), ("c", "b")])).unwrap(), ["b", "c"]);
}

#[test]
fn a_room_imports_none_above_it() {
    let (rooms, imports) = (rooms(), imports(&source("confsync"), Path::new("")));
    assert!(rooms.len() > 8, "lib.rs lists the rooms: {rooms:?}");
    let floor = |name: &str| rooms.iter().position(|room| room == name);
    let mut wrong = Vec::new();
    for (room, imported) in &imports {
        let Some(here) = floor(room) else { continue };
        let above = imported.iter().filter(|other| floor(other).is_some_and(|at| at > here));
        wrong.extend(above.map(|other| format!("{room} imports {other}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_modules_of_a_folder_import_each_other_in_one_direction() {
    let mut circles = BTreeMap::new();
    for name in ["common", "register", "confsync"] {
        let src = source(name);
        for folder in folders(&src) {
            let way = circle(&imports(&src, &folder));
            circles.extend(way.map(|way| (src.join(folder), way)));
        }
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

/// A block of `room  what it imports`, the highest room first.
#[test]
fn the_picture_of_the_rooms_in_the_docs_is_true() {
    let imports = imports(&source("confsync"), Path::new(""));
    let line = |room: &String| {
        let below = imports[room].iter().cloned().collect::<Vec<_>>().join(" ");
        format!("{room:<9} {below}").trim_end().to_owned()
    };
    let picture: Vec<String> = rooms().iter().rev().map(line).collect();
    let page = fs::read_to_string(workspace().join("docs/architecture.md")).unwrap();
    let (_, rest) = page.split_once("```text\ncli ").expect("architecture.md shows the rooms");
    let (shown, _) = rest.split_once("```").unwrap();
    let shown = format!("cli {shown}");
    assert_eq!(shown.lines().collect::<Vec<_>>(), picture, "\n{}\n", picture.join("\n"));
}

/// All Rust sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for path in entries {
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

#[test]
fn files_types_and_tests_that_the_docs_name_are_there() {
    let crates = ["common", "register", "confsync", "tests"];
    let paths: Vec<_> = crates.iter().flat_map(|name| sources(&workspace().join(name))).collect();
    let texts: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = texts.split(|c| !part(c)).collect();
    let is_there = |name: &str| {
        if name.ends_with(".rs") {
            let inside = name.split_once('/').map(|(crates, rest)| format!("{crates}/src/{rest}"));
            let mut ends = [Some(name.to_owned()), inside].into_iter().flatten();
            return ends.any(|end| paths.iter().any(|path| path.ends_with(&end)));
        }
        let word = name.rsplit("::").next().unwrap_or_default();
        let is_name = word.contains('_') || word.starts_with(char::is_uppercase);
        !is_name || !word.chars().all(part) || words.contains(word)
    };
    let page = fs::read_to_string(workspace().join("docs/architecture.md")).unwrap();
    let text: String = page.split("```").step_by(2).collect();
    let gone: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|n| !is_there(n)).collect();
    assert!(gone.is_empty(), "docs/architecture.md names what is gone: {gone:?}");
}
