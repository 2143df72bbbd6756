//! `make fuzz-confd CONFD=…`: random keys, resources and templates, rendered by confd and by
//! `confsync -onetime` in its place. Both must write the same file or refuse. The first
//! difference is made as small as it can be, and printed.
//!
//! Left out is what `docs/confd.md` says is different on purpose: keys that fall together,
//! `lsdir "/"`, `datetime`, a mode without its 0, a prefix with a `/` too many.

#![expect(clippy::print_stdout, reason = "what it finds is printed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use etcd_client::{Client, DeleteOptions};
use fastrand::Rng;
use tests::{Confdir, Etcd, Lab, bins};
use tokio::process::Command;

const LONGEST: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct FuzzArgs {
    /// The confd to compare with
    #[arg(long, env = "CONFD")]
    confd: PathBuf,
    /// How long to go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where chance begins; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
}

/// What both are given. Each part can be left out, to find the smallest that differs.
#[derive(Clone, PartialEq)]
struct FuzzCase {
    keys: Vec<String>,
    /// Lines of `[template]` besides src and dest.
    lines: Vec<String>,
    template: Vec<String>,
}

/// What a program made of a case.
#[derive(PartialEq)]
struct Rendered {
    succeeded: bool,
    written: Option<Vec<u8>>,
}

const KEYS: [&str; 30] = [
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
];
const VALUES: [&str; 10] =
    ["", "v", "10.0.0.1:80", "7", "-3", "a,b", "{\"a\":[1,null]}", "[\"x\"]", "é \"q\"", "true"];
const PREFIXES: [&str; 6] = ["/", "/app", "app", "/app/../app", "/other", "/nope"];
const TREES: [&str; 12] = [
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
];
const CHECKS: [&str; 7] = [
    "test -s {{.src}}",
    "cat {{ .src }} >/dev/null",
    "{{with .src}}test -f {{.}}{{end}}",
    "test -f {{printf \"%s\" .src}}",
    "false {{.src}}",
    "test -f {{.src",
    "test {{.ID}} = x",
];
const OPERANDS: [&str; 26] = [
    "\"/app/a\"",
    "\"/app/*\"",
    "\"/*\"",
    "\"/app\"",
    "\"/none\"",
    "\"\"",
    "\"é\\xff\"",
    "`raw`",
    "1",
    "2",
    "-1",
    "1.5",
    "'c'",
    "true",
    "nil",
    ".",
    "$x",
    ".Key",
    ".Value",
    "(getvs \"/n/*\")",
    "(gets \"/app/*\")",
    "(ls \"/app\")",
    "(json (getv \"/json\" \"{}\"))",
    "(seq 1 3)",
    "(split \"a,b\" \",\")",
    "(map \"a\" 1)",
];
const FUNCTIONS: [&str; 36] = [
    "getv",
    "get",
    "gets",
    "getvs",
    "exists",
    "ls",
    "lsdir",
    "base",
    "dir",
    "split",
    "join",
    "toUpper",
    "contains",
    "replace",
    "trimSuffix",
    "base64Encode",
    "parseBool",
    "atoi",
    "add",
    "div",
    "mod",
    "seq",
    "json",
    "jsonArray",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "html",
    "js",
    "urlquery",
    "eq",
    "lt",
    "and",
    "not",
];
const PIECES: [&str; 16] = [
    "text",
    "\n",
    " \t",
    "{",
    "{{end}}",
    "{{else}}",
    "{{break}}",
    "{{/* c */}}",
    "{{-",
    "-}}",
    "}}",
    "{{define \"t\"}}{{.}}{{end}}",
    "{{template \"t\" 1}}",
    "{{$x := 1}}",
    "é",
    "{{else if 1}}",
];

fn one<'t>(chance: &mut Rng, of: &[&'t str]) -> &'t str {
    chance.choice(of).copied().unwrap_or_default()
}

fn call(chance: &mut Rng) -> String {
    let mut text = one(chance, &FUNCTIONS).to_owned();
    for _ in 0..chance.usize(0..4) {
        text = format!("{text} {}", one(chance, &OPERANDS));
    }
    match chance.usize(0..4) {
        0 => format!("{text} | {}", one(chance, &FUNCTIONS)),
        _ => text,
    }
}

fn piece(chance: &mut Rng) -> String {
    let (call, operand) = (call(chance), one(chance, &OPERANDS));
    match chance.usize(0..10) {
        0..4 => format!("{{{{{call}}}}}"),
        4 => format!("{{{{if {call}}}}}y{{{{else}}}}n{{{{end}}}}"),
        5 => format!("{{{{range $i, $x := {operand}}}}}{{{{$i}}}}={{{{$x}}}};{{{{end}}}}"),
        6 => format!("{{{{range {operand}}}}}{{{{.}}}}{{{{{call}}}}}{{{{end}}}}"),
        7 => format!("{{{{with {call}}}}}{{{{.}}}}{{{{end}}}}"),
        _ => one(chance, &PIECES).to_owned(),
    }
}

impl FuzzCase {
    fn new(chance: &mut Rng) -> Self {
        let mut keys: Vec<String> = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..chance.usize(0..8) {
            let key = one(chance, &KEYS);
            if names.insert(confsync::template::clean(&format!("/{key}"))) {
                keys.push(key.to_owned());
            }
        }
        let mut lines = vec![format!("keys = {}", one(chance, &TREES))];
        if chance.bool() {
            lines.push(format!("prefix = \"{}\"", one(chance, &PREFIXES)));
        }
        if chance.usize(0..4) == 0 {
            lines.push(format!("check_cmd = '{}'", one(chance, &CHECKS)));
        }
        let template = (0..chance.usize(1..6)).map(|_| piece(chance)).collect();
        Self { keys, lines, template }
    }

    /// The same with one part less, in every way there is.
    fn smaller(&self) -> Vec<Self> {
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
        for part in 0..self.template.len() {
            let mut less = self.clone();
            less.template.remove(part);
            all.push(less);
        }
        all
    }

    /// Whether it is about what is different on purpose.
    fn is_documented(&self) -> bool {
        let template = self.template.concat();
        let lists_the_top = template.contains("lsdir") && template.contains("\"/");
        lists_the_top || template.contains("reverse")
    }
}

struct Fuzz {
    lab: Lab,
    etcd: Etcd,
    client: Client,
    confd: PathBuf,
}

impl Fuzz {
    /// What both make of a case, if it is not the same.
    async fn difference(&mut self, case: &FuzzCase) -> anyhow::Result<Option<[Rendered; 2]>> {
        self.client.delete("", Some(DeleteOptions::new().with_all_keys())).await?;
        for (i, key) in case.keys.iter().enumerate() {
            let value = VALUES.get(i % VALUES.len()).copied().unwrap_or_default();
            self.client.put(key.as_str(), value, None).await?;
        }
        let dest = self.lab.path().join("out.conf");
        let confdir = Confdir::empty(&self.lab);
        let head = format!("[template]\nsrc = \"t.tmpl\"\ndest = \"{}\"\n", dest.display());
        confdir.toml("r", &(head + &case.lines.join("\n") + "\n"));
        confdir.template("t.tmpl", &case.template.concat());
        let theirs = self.run(&self.confd, &confdir, &dest).await?;
        let ours = self.run(&bins::confsync(), &confdir, &dest).await?;
        std::fs::remove_dir_all(confdir.path())?;
        Ok((theirs != ours).then_some([theirs, ours]))
    }

    #[expect(clippy::disallowed_methods, reason = "run to its end, or to `LONGEST`")]
    async fn run(
        &self,
        program: &Path,
        confdir: &Confdir,
        dest: &Path,
    ) -> anyhow::Result<Rendered> {
        let _ = std::fs::remove_file(dest);
        let mut command = Command::new(program);
        command.args(["-onetime", "-backend", "etcdv3", "-node", &self.etcd.address().to_string()]);
        command.arg("-confdir").arg(confdir.path());
        command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let status = tokio::time::timeout(LONGEST, command.status()).await;
        let status = status.with_context(|| format!("{} does not end", program.display()))??;
        Ok(Rendered { succeeded: status.success(), written: std::fs::read(dest).ok() })
    }

    /// The smallest case that still differs.
    async fn shrink(&mut self, mut case: FuzzCase) -> anyhow::Result<FuzzCase> {
        'smaller: loop {
            for less in case.smaller() {
                if self.difference(&less).await?.is_some() {
                    case = less;
                    continue 'smaller;
                }
            }
            return Ok(case);
        }
    }
}

fn show(case: &FuzzCase, [theirs, ours]: &[Rendered; 2]) {
    println!(
        "keys {:?}\n{}\ntemplate {:?}",
        case.keys,
        case.lines.join("\n"),
        case.template.concat()
    );
    for (name, rendered) in [("confd", theirs), ("confsync", ours)] {
        let written = rendered.written.as_deref().map(|text| text.escape_ascii().to_string());
        println!("{name}: {}, {written:?}", if rendered.succeeded { "exit 0" } else { "refused" });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = FuzzArgs::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut chance = Rng::with_seed(seed);
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let client = Client::connect([etcd.url()], None).await?;
    let mut fuzz = Fuzz { lab, etcd, client, confd: args.confd };
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut cases = 0u64;
    while Instant::now() < end {
        let case = FuzzCase::new(&mut chance);
        if case.is_documented() {
            continue;
        }
        cases += 1;
        if fuzz.difference(&case).await?.is_some() {
            let case = fuzz.shrink(case).await?;
            if let Some(both) = fuzz.difference(&case).await? {
                show(&case, &both);
            }
            println!("seed {seed}, case {cases}");
            return Ok(ExitCode::FAILURE);
        }
    }
    println!("seed {seed}: {cases} cases, no difference");
    Ok(ExitCode::SUCCESS)
}
