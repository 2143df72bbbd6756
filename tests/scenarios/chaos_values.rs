//! Hostile values: none changes the structure of what nginx is given, none keeps the
//! good backends from being served and followed, and none makes nginx touch a file.
//!
//! `CHAOS_VALUES` says how many (1 000), `CHAOS_SEED` which ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use confsync::proxy::nginx::conf::parse;
use etcd_client::{Client, Txn, TxnOp};
use fastrand::Rng;
use tests::eventually::check;
use tests::{Api, Confdir, Daemon, Etcd, Lab, Load, Nginx, eventually};

use crate::chaos::{Backends, Names, settled, times};

const BATCH: usize = 100;
const RESOURCE: &str = "[template]\nsrc = \"SRC\"\ndest = \"DEST\"\nkeys = [\"/services/apache\"]\nVALUES\n[nginx]\n\
                        conf = \"CONF\"\npid_file = \"PID\"\n";
const GO: &str = "upstream NAME {\n{{ range getvs \"/services/apache/*\" }}    server {{ . }};\n{{ end }}}\n\
                  server { listen LISTEN; location / { proxy_pass http://NAME; } }\n";
const HBS: &str = "upstream NAME {\n{{#each backends}}    server {{addr}} weight={{weight}};\n{{/each}}}\n\
                   upstream NAME_raw {\n{{#each (getvs \"/services/apache/*\")}}    server {{this}};\n{{/each}}}\n\
                   server { listen LISTEN; location / { proxy_pass http://NAME; } \
                   location /raw { proxy_pass http://NAME_raw; } }\n";

/// What somebody who may write a key would try. `GOOD` is the address of a good backend.
const ATTACKS: &[&str] = &[
    "GOOD; } access_log TRAP; upstream x { server 1.2.3.4:5",
    "GOOD;\n}\nerror_log TRAP;\nupstream y {\n server 1.2.3.4:5",
    "GOOD; include TRAP; #",
    "GOOD #",
    "GOOD weight=99999",
    "GOOD max_fails=0 fail_timeout=0; server 1.2.3.4:5",
    "GOOD\nserver 1.2.3.4:5",
    "GOOD\r\n",
    "GOOD\0; server 1.2.3.4:5",
    "GOOD,1.2.3.4:5",
    "GOOD } server { listen 1.2.3.4:5; root /;",
    "\"GOOD; } access_log TRAP; {\"",
    "'GOOD",
    "\"",
    "\\",
    "{",
    "}",
    ";",
    "",
    "unix:TRAP",
    "unix:/proc/self/mem",
    "$host:80",
    "${document_root}:80",
    "http://GOOD/",
    "127.1:80",
    "0x7f.0.0.1:80",
    "127.0.0.1:080",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "127.0.0.1",
    "[::1]:80; access_log TRAP",
    "[::1%lo]:80",
    "1.2.3.4:5-9",
    "example.invalid:80",
    "{{ getv \"/services/apache/b0\" }};",
    "{{{GOOD}}}",
    "%s%n; access_log TRAP;",
    "content_by_lua_block { os.execute('touch TRAP') }",
    "\u{feff}GOOD",
    "GOOD\u{2028}server 1.2.3.4:5;",
    "１.2.3.4:80",
    r#"{"addr":"GOOD","meta":{"x":"; } access_log TRAP; upstream z { server 1.2.3.4:5"}}"#,
    r#"{"addr":"GOOD","zone":"; access_log TRAP;"}"#,
    r#"{"addr":"GOOD; access_log TRAP;"}"#,
    r#"{"addr":"GOOD","weight":"1; access_log TRAP;"}"#,
    r#"{"addr":"GOOD","weight":0}"#,
    r#"{"addr":["GOOD"]}"#,
    r#"{"addr":"1.2.3.4:5""#,
];

/// Bytes that mean something to nginx, to templates, or to nobody. No digits, so that
/// none of them makes another good address.
const BYTES: &[u8] = b";{}\"'\\#$ \n\t\r\0%,()[]<>|&`~!*?=:/\x7f\xff\xc3\xe2\x80";

struct Attacker {
    random: Rng,
    good: String,
    trap: PathBuf,
}

impl Attacker {
    fn value(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let mut value = match random.u8(0..10) {
            0 => (0..random.usize(0..60)).map(|_| any_of(random, BYTES)).collect(),
            1 => {
                let filler = any_of(random, BYTES);
                [self.good.as_bytes(), &vec![filler; random.usize(1..20_000)]].concat()
            }
            _ => {
                let attack = any_of(random, ATTACKS);
                let text = attack.replace("GOOD", &self.good);
                text.replace(
                    "TRAP",
                    &self.trap.join(format!("{}", random.u32(..))).display().to_string(),
                )
                .into_bytes()
            }
        };
        for _ in 0..random.usize(0..3) {
            value.insert(random.usize(..=value.len()), any_of(random, BYTES));
        }
        value
    }
}

fn any_of<T: Copy>(random: &mut Rng, all: &[T]) -> T {
    *random.choice(all).unwrap()
}

/// A file by what it says to nginx: its directives without `server ADDRESS`, and the
/// addresses.
fn structure(text: &[u8]) -> Result<(Vec<String>, BTreeSet<String>), String> {
    let (mut rest, mut servers) = (Vec::new(), BTreeSet::new());
    for directive in parse(text).map_err(|e| e.to_string())? {
        let args: Vec<_> =
            directive.args.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
        match (directive.name.as_ref(), args.as_slice()) {
            (b"server", [address]) => drop(servers.insert(address.clone())),
            (b"server", [address, weight]) if weight == "weight=1" => {
                servers.insert(address.clone());
            }
            (name, _) => {
                let name = String::from_utf8_lossy(name);
                rest.push(format!("{} {name} {args:?} {}", directive.depth, directive.block));
            }
        }
    }
    Ok((rest, servers))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_changes_the_structure() {
    let seed = times("CHAOS_SEED", fastrand::usize(..));
    println!("CHAOS_SEED={seed}");
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let backends = Backends::start(&lab, &etcd).await;
    let nginx = Nginx::prepare(&lab);
    let confdir = Confdir::empty(&lab);
    let mut sites = Vec::new();
    for (name, ending, template, values) in [
        ("typed", "tmpl", GO, ""),
        ("endpoint", "tmpl", GO, "values = \"endpoint\""),
        ("handlebars", "hbs", HBS, ""),
    ] {
        let listen = if name == "typed" { nginx.address() } else { lab.free() };
        let file = nginx.folder().join(format!("sites-enabled/{name}.conf"));
        let text = template.replace("NAME", name).replace("LISTEN", &listen.to_string());
        confdir.template(&format!("{name}.{ending}"), &text);
        let toml = RESOURCE
            .replace("SRC", &format!("{name}.{ending}"))
            .replace("DEST", &file.display().to_string())
            .replace("VALUES", values)
            .replace("CONF", &nginx.conf().display().to_string())
            .replace("PID", &nginx.pid_file().display().to_string());
        confdir.toml(name, &toml);
        sites.push((listen, file));
    }
    let confsync = Daemon::confsync(&lab).etcd(&etcd, Api::V3).confdir(&confdir);
    let confsync = confsync.flag("--min-reload-interval", "100ms").supervising(&nginx).start();
    confsync.ready().await;
    let before: Vec<_> =
        sites.iter().map(|(_, file)| structure(&fs::read(file).unwrap()).unwrap().0).collect();
    let loads: Vec<_> =
        sites.iter().map(|(listen, _)| Load::on(*listen).clients(2).start()).collect();

    let good = backends.address("b0");
    let trap = lab.folder("trap");
    let mut attacker = Attacker { random: Rng::with_seed(seed as u64), good, trap: trap.clone() };
    let mut client = Client::connect([etcd.url()], None).await.unwrap();
    let count = times("CHAOS_VALUES", 1_000);
    for done in (0..count).step_by(BATCH) {
        let puts = (0..BATCH.min(count - done)).map(|nth| {
            TxnOp::put(format!("/services/apache/evil{nth:03}"), attacker.value(), None)
        });
        client.txn(Txn::new().and_then(puts.collect::<Vec<_>>())).await.unwrap();
        // A good one comes or goes behind them, so all of them were seen once it has. The
        // good address that the attacks name stays.
        let others = Names::from(["b1", "b2", "b3"].map(str::to_owned));
        backends.toggle(others.iter().nth(done / BATCH % others.len()).unwrap(), "").await;
        let wanted = backends.addresses();
        for ((_, file), before) in sites.iter().zip(&before) {
            eventually("the good servers, and they alone", || async {
                let (rest, servers) = structure(&fs::read(file).unwrap())?;
                assert_eq!(&rest, before, "{}", file.display());
                check(servers == wanted, || format!("{servers:?} instead of {wanted:?}"))
            })
            .await;
        }
        // All three get the same; one is asked at a time.
        settled(&backends, &loads[done / BATCH % loads.len()]).await;
    }
    assert!(confsync.log().contains("/services/apache/evil000"), "{}", confsync.log());
    assert_eq!(fs::read_dir(trap).unwrap().count(), 0, "nginx was made to touch a file");
    for load in loads {
        load.stop().await.assert_none_failed();
    }
}
