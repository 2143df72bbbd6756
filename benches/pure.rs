//! What the pure parts cost with a thousand backends. `cargo bench -p benches` compares with the
//! last run; `-- hbs` takes the benches of that name. Nothing fails because a machine was slow.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use common::model::{Backend, Change, Entry, Prefix, Revision, Snapshot, Tree};
use confsync::backends::known::KnownBackends;
use confsync::backends::loss_policy::LossPolicy;
use confsync::backends::{KeySelection, Values};
use confsync::proxy::nginx::conf;
use confsync::template::{Engine, Input, NamedBackend, Template, TemplateSources};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const BACKENDS: usize = 1_000;

const GO: &str = "{{range gets \"/services/web/*\"}}{{$b := json .Value}}server {{$b.addr}} \
                  weight={{$b.weight}};\n{{end}}";
const HBS: &str = "{{#each backends}}server {{addr}} weight={{weight}};\n{{/each}}";
/// The body calls a helper, so that each backend becomes its context.
const HBS_HELPER: &str = "{{#each backends}}server {{concat host \":\" port}};\n{{/each}}";

fn value(i: usize) -> String {
    format!(r#"{{"addr":"10.0.{}.{}:8080","weight":{}}}"#, i / 250, i % 250, 1 + i % 9)
}

fn key(i: usize) -> String {
    format!("/services/web/backend-{i:05}")
}

fn entry(i: usize, at: u64) -> Entry {
    Entry { lease: 7, ..Entry::new(key(i), value(i), Revision(at)) }
}

fn snapshot() -> Snapshot {
    let entries = (0..BACKENDS).map(|i| (Arc::from(key(i)), entry(i, 5))).collect();
    Snapshot { revision: Revision(5), cluster: 1, entries }
}

fn selection() -> KeySelection {
    let prefix = |text: &str| -> Prefix { text.parse().unwrap_or_else(|_| unreachable!()) };
    KeySelection {
        prefix: prefix("/"),
        services: prefix("/services"),
        trees: vec![Tree::from(prefix("/services/web"))],
        bookkeeping: Tree::from(prefix("/confsync")),
        values: Values::Typed,
        declared: true,
        names: false,
    }
}

fn input() -> Input {
    let named = |i| {
        let backend = Backend::parse(value(i).as_bytes()).ok()?;
        Some(NamedBackend { key: key(i).into(), service: "web".into(), backend })
    };
    let keys = (0..BACKENDS).map(|i| (key(i), value(i)));
    Input::of_keys(keys).with_backends((0..BACKENDS).filter_map(named).collect())
}

fn compile(name: &str, text: &str) -> Option<Template> {
    let name = Path::new(name);
    Template::compile(name, text, Engine::of(name), &TemplateSources::default()).ok()
}

fn parse(criterion: &mut Criterion) {
    let (one, all, selection) = (value(7), snapshot(), selection());
    criterion.bench_function("parse/backend", |b| b.iter(|| Backend::parse(one.as_bytes())));
    criterion.bench_function("parse/keys", |b| b.iter(|| selection.see(all.entries.values())));
    criterion.bench_function("parse/one_changed_key", |b| {
        let mut later = all.entries.clone();
        later.insert(key(7).into(), entry(8, 6));
        let seen = selection.see(all.entries.values());
        b.iter(|| {
            let mut seen = seen.clone();
            selection.see_changes(&mut seen, &all.entries, &later);
            seen
        });
    });
    let servers: String = (0..BACKENDS).map(|i| format!("  server 10.0.0.1:{i};\n")).collect();
    let text = format!("http {{\n upstream web {{\n{servers} }}\n}}\n");
    criterion
        .bench_function("parse/nginx_conf", |b| b.iter(|| conf::parse(text.as_bytes()).is_ok()));
}

fn snapshot_apply(criterion: &mut Criterion) {
    let all = snapshot();
    let put = Change::Put(entry(BACKENDS / 2, 6));
    let deleted = Change::Deleted { key: Arc::from(key(3)), at: Revision(6) };
    for (name, change) in [("put", put), ("deleted", deleted)] {
        criterion.bench_function(&format!("snapshot/{name}"), |b| {
            let copies = || (all.clone(), change.clone());
            let apply = |(mut snapshot, change): (Snapshot, Change)| {
                snapshot.apply(change);
                snapshot
            };
            b.iter_batched(copies, apply, BatchSize::SmallInput);
        });
    }
    criterion.bench_function("snapshot/contradicts", |b| {
        let later = Snapshot { revision: Revision(9), ..all.clone() };
        b.iter(|| later.contradicts(&all));
    });
}

fn render(criterion: &mut Criterion) {
    criterion.bench_function("compile/go", |b| b.iter(|| compile("t.tmpl", black_box(GO))));
    criterion.bench_function("compile/hbs", |b| b.iter(|| compile("t.hbs", black_box(HBS))));
    let input = input();
    for (name, file, text) in
        [("go", "t.tmpl", GO), ("hbs", "t.hbs", HBS), ("hbs_helper", "t.hbs", HBS_HELPER)]
    {
        let template = compile(file, text);
        let rendered = template.as_ref().and_then(|t| t.render(&input).ok());
        let lines = rendered.map_or(0, |text| text.iter().filter(|b| **b == b'\n').count());
        assert_eq!(lines, BACKENDS, "{name}: each backend has its line");
        criterion.bench_function(&format!("render/{name}"), |b| {
            b.iter(|| template.as_ref().map(|t| t.render(&input)));
        });
    }
}

fn evaluate(criterion: &mut Criterion) {
    let (all, selection, policy) = (snapshot(), selection(), LossPolicy::default());
    let mut known = KnownBackends::default();
    known.adopt(&selection.see(all.entries.values()), BTreeSet::new());
    let third = all.entries.values().enumerate().filter(|(i, _)| i % 3 > 0).map(|(_, entry)| entry);
    let now = selection.see(third);
    criterion.bench_function("evaluate/losses", |b| {
        b.iter(|| known.unverified_losses(&policy, &now, true));
    });
    let (missing, evidence) = (known.missing(&now), BTreeMap::new());
    criterion.bench_function("evaluate/retained", |b| {
        b.iter(|| LossPolicy::retained(&missing, &evidence))
    });
}

criterion_group!(pure, parse, snapshot_apply, render, evaluate);
criterion_main!(pure);
