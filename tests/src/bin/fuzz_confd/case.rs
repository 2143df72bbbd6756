//! One resource with its keys, and all that is a little smaller.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::words::Author;

const KEYS: [&str; 36] = [
    "/app",
    "/app/",
    "/app/a",
    "/app/a/",
    "/app/b",
    "/app//c",
    "/app/x y",
    "/app/%41",
    "/app/é",
    "/app/.h",
    "/apple",
    "/",
    "nokey",
    "no/slash",
    "/app/a/b",
    "/app/a/b/c",
    "/other",
    "/other/k",
    "/a.b/c",
    "/app/tab\t",
    "/APP/x",
    "/app/[x]",
    "/app/*",
    "/z",
    "/app/..",
    "/app/.",
    "/n/1",
    "/n/2",
    "/n/10",
    "/json",
    "/app/../n/3",
    "/app/./d",
    "//app/e",
    "/app/line\nfeed",
    "/app/?",
    "/app/a/b/c/",
];
const VALUES: [&str; 12] = [
    "",
    "v",
    "10.0.0.1:80",
    "7",
    "-3",
    "a,b",
    "{\"a\":[1,null,{\"b\":1e30}]}",
    "[\"x\",true]",
    "é \"q\"",
    "true",
    "two\nlines\n",
    "{{.}}",
];
const PREFIXES: [&str; 9] =
    ["/", "/app", "app", "/app/../app", "/other", "/nope", "/app/a", "/a", ""];
const TREES: [&str; 16] = [
    "[\"/\"]",
    "[\"\"]",
    "[\"/app\"]",
    "[\"/app/\"]",
    "[\"app\"]",
    "[\"/app\", \"/other\"]",
    "[\"..\"]",
    "[\"../app\"]",
    "[\".\"]",
    "[\"//app//\"]",
    "[]",
    "[\"/app/x y\", \"/n\", \"/json\"]",
    "[\"/app/*\"]",
    "[\"/app/a/\", \"/app/a\", \"/app/a/b\"]",
    "[\"/app/é\", \"/app/%41\"]",
    "[\"/n\", \"/\"]",
];
const CHECKS: [&str; 12] = [
    "test -s {{.src}}",
    "cat {{ .src }} >/dev/null",
    "{{with .src}}test -f {{.}}{{end}}",
    "test -f {{printf \"%s\" .src}}",
    "test -f {{ printf \"%q\" .src }}",
    "false {{.src}}",
    "test -f {{.src",
    "test {{.ID}} = x",
    "test -f {{index . \"src\"}}",
    "{{if .src}}true{{else}}false{{end}}",
    "{{range .}}test -f {{.}}{{end}}",
    "{{getv \"/app\"}}",
];
const MODES: [&str; 6] = ["0644", "0600", "0o640", "0755", "0x1ff", "x"];

fn one<'t>(chance: &mut Rng, of: &[&'t str]) -> &'t str {
    chance.choice(of).copied().unwrap_or_default()
}

/// What both are given. Each part can be left out, to find the smallest that differs.
#[derive(Clone, PartialEq)]
pub(crate) struct FuzzCase {
    pub(crate) keys: Vec<(String, &'static str)>,
    /// Lines of `[template]` besides src and dest.
    pub(crate) lines: Vec<String>,
    pub(crate) template: String,
}

/// Random keys of which no two have one name: which of those counts is documented.
pub(crate) fn keys(chance: &mut Rng) -> Vec<(String, &'static str)> {
    let mut keys = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..chance.usize(0..14) {
        let key = one(chance, &KEYS);
        if names.insert(confsync::template::clean(&format!("/{key}"))) {
            keys.push((key.to_owned(), one(chance, &VALUES)));
        }
    }
    keys
}

impl FuzzCase {
    pub(crate) fn new(keys: &[(String, &'static str)], author: &mut Author<'_>) -> Self {
        let template = author.template();
        let chance = &mut *author.chance;
        let mut lines = vec![format!("keys = {}", one(chance, &TREES))];
        if chance.bool() {
            lines.push(format!("prefix = \"{}\"", one(chance, &PREFIXES)));
        }
        if chance.usize(0..6) == 0 {
            lines.push(format!("check_cmd = '{}'", one(chance, &CHECKS)));
        }
        if chance.usize(0..6) == 0 {
            lines.push(format!("mode = \"{}\"", one(chance, &MODES)));
        }
        Self { keys: keys.to_vec(), lines, template }
    }

    /// The same with one part less, in every way there is; of a template large parts first.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for part in 0..self.keys.len() {
            let mut less = self.clone();
            less.keys.remove(part);
            all.push(less);
        }
        for part in 1..self.lines.len() {
            let mut less = self.clone();
            less.lines.remove(part);
            all.push(less);
        }
        let letters: Vec<char> = self.template.chars().collect();
        let mut length = letters.len();
        while length > 0 {
            for from in (0..=letters.len() - length).step_by(length.div_ceil(2)) {
                let mut less = letters.clone();
                less.drain(from..from + length);
                all.push(Self { template: less.into_iter().collect(), ..self.clone() });
            }
            length /= 2;
        }
        all
    }

    /// Whether it is about what `docs/confd.md` says is different on purpose.
    pub(crate) fn is_documented(&self, fork: bool) -> bool {
        let says = |word: &str| self.template.contains(word);
        let lists_the_top = says("lsdir") && (says("\"/") || says("\"\""));
        let changes_its_argument =
            says("reverse") && (says("gets") || says("$")) || says("sort") && says("$");
        // The fork uses no resource at all where one has a bad mode or command.
        let bad_line = |line: &String| {
            ["\"x\"", "test -f {{.src'", "getv"].into_iter().any(|bad| line.contains(bad))
        };
        let of_the_fork =
            fork && (says("seq") || says("fileExists") || self.lines.iter().any(bad_line));
        // To the fork what `gets` has not found is nil, and what `reverse` returns is not.
        let asks_for_nil = says("eq") || says("ne") || says("#");
        let nil_in_the_fork = fork && asks_for_nil && (says("gets") || says("reverse"));
        // What takes confd forever, or all memory.
        let endless = says("9223") && ["seq", "range", "repeat", "indent"].into_iter().any(says);
        endless || lists_the_top || changes_its_argument || of_the_fork || nil_in_the_fork
    }
}
