//! The check says of a candidate what nginx says once the candidate is in place.

use std::fmt::Write as _;
use std::fs;

use confsync::install::{Candidate, Proof, StagedFiles, Target};
use proptest::prelude::*;

use crate::bench::Bench;

/// The files of a tree; each may include those after it.
const FILES: [&str; 6] =
    ["sites/a.conf", "sites/b.conf", "sites/c.conf", "parts/1.inc", "parts/2.inc", "parts/3.inc"];

/// What a line of a file does. Formats must be defined before they are used, and once,
/// so order and number of the included files matter to nginx.
#[derive(Debug, Clone)]
enum Line {
    Define(u8),
    Use(u8),
    Include(usize),
    Glob,
}

fn text_of(lines: &[Line], file: usize) -> String {
    let mut text = String::new();
    for line in lines {
        match line {
            Line::Define(n) => writeln!(text, "log_format f{n} '$uri';").unwrap(),
            Line::Use(n) => writeln!(text, "access_log /dev/null f{n};").unwrap(),
            Line::Include(to) if *to > file => writeln!(text, "include {};", FILES[*to]).unwrap(),
            Line::Glob if file < 3 => text.push_str("include \"parts/[12].inc\"; # both\n"),
            Line::Include(_) | Line::Glob => text.push('\n'),
        }
    }
    text
}

fn content() -> impl Strategy<Value = Option<Vec<Line>>> {
    let line = prop_oneof![
        (0..3u8).prop_map(Line::Define),
        (0..3u8).prop_map(Line::Use),
        (0..6usize).prop_map(Line::Include),
        Just(Line::Glob),
    ];
    proptest::option::of(proptest::collection::vec(line, 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(40) })]

    #[test]
    fn before_as_after(
        old in proptest::collection::vec(content(), 6),
        new in proptest::collection::vec(content(), 6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (before, after) = runtime.block_on(compare(&old, &new));
        prop_assert_eq!(before, after);
    }
}

async fn compare(old: &[Option<Vec<Line>>], new: &[Option<Vec<Line>>]) -> (String, String) {
    let bench = Bench::new().await;
    fs::create_dir(bench.path("parts")).unwrap();
    let mut set = Vec::new();
    for (i, (old, new)) in old.iter().zip(new).enumerate() {
        if let Some(lines) = old {
            fs::write(bench.path(FILES[i]), text_of(lines, i)).unwrap();
        }
        if let Some(lines) = new {
            let target = Target::new(bench.path(FILES[i]));
            set.push(Candidate { target, bytes: text_of(lines, i).into_bytes() });
        }
    }
    let staged = StagedFiles::write(&set.into()).unwrap();
    let before = bench.nginx.check(&staged).await;
    let before = before.map_or_else(|e| e.to_string(), |_| "good".into());
    let proof = Proof::nothing_to_ask(&staged);
    staged.accept(proof).unwrap().install().unwrap().commit().unwrap();
    let after = bench.nginx.check_current().await;
    (before, after.map_or_else(|e| e.to_string(), |_| "good".into()))
}
