//! The commands of the documentation run as shown.
//!
//! In a block marked `console`, a line after `$ ` is a command, `> ` continues it, and
//! what follows is its output: each line in that order, with others between allowed;
//! `…` matches anything. A command that only looks is asked again until it shows what
//! is written, as a reader would.
//!
//! All blocks of a page are one session of a shell: in a folder of its own with an etcd of
//! its own, where 127.0.0.1 is an address that only the test has; or, for `console
//! machine`, as root on a machine of its own, with its own /etc and its own systemd.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::process::{Spec, run};
use tests::{Etcd, Lab, bins, network};

use super::docs::pages;

/// Commands that are not run unchanged, what is done in their place, and why.
const IN_PLACE: [(&str, &str, &str); 5] = [
    ("make demo", "true", "runs this repository's demo, which needs its checkout"),
    ("make test", "true", "is what runs this"),
    ("apt-get install", "true", "the machine has them, and no network"),
    ("dpkg -i", INSTALL, "the scenario `packages` builds and installs them"),
    ("fleetctl", "true", "no fleet runs here; the units are tried on machines of their own"),
];

/// What the packages install, of the programs on trial.
const INSTALL: &str = "
ln -sf /usr/local/bin/register /usr/local/bin/confsync /usr/bin/
cp /root/fleet-units/packages/*.service /lib/systemd/system/
mkdir -p /etc/register; cp --no-clobber /root/fleet-units/packages/services.toml /etc/register/
for name in register confsync; do
    cp --no-clobber /root/fleet-units/packages/$name.default /etc/default/$name
done
systemctl daemon-reload";

/// Commands that change nothing.
const LOOKING: [&str; 9] = [
    "register list",
    "confsync render",
    "confsync status",
    "curl ",
    "etcdctl get",
    "etcdctl endpoint",
    "systemctl status",
    "journalctl",
    "cat ",
];

/// A command of a page and the output that it shows.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The commands in blocks of this kind.
fn commands(page: &str, kind: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut inside = false;
    let mut indent = 0;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            indent = line.len() - line.trim_start().len();
        }
        let line = line.get(indent..).unwrap_or_default();
        match (line.strip_prefix("```"), inside) {
            (Some(message), _) => inside = !inside && message.trim_end() == kind,
            (None, false) => {}
            (None, true) => {
                match (line.strip_prefix("$ "), line.strip_prefix('>'), all.last_mut()) {
                    (Some(command), ..) => {
                        all.push(Shown { command: command.to_owned(), output: Vec::new() });
                    }
                    (None, Some(more), Some(last)) => {
                        last.command += "\n";
                        last.command += more.strip_prefix(' ').unwrap_or(more);
                    }
                    (None, None, Some(last)) => last.output.push(line.to_owned()),
                    (None, _, None) => panic!("output without a command: {line}"),
                }
            }
        }
    }
    all
}

fn matches(shown: &str, line: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    if !shown.contains('…') {
        return rest.is_empty();
    }
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || shown.ends_with('…')
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(matches("a … c", "a bb c") && matches("…", "x") && matches("a", "a"));
    assert!(!matches("a", "ab") && !matches("a … d", "a b c") && !matches("b…", "ab"));
}

#[test]
fn what_is_shown_is_what_is_asked_for() {
    let page =
        "```console\n$ one\nout\n$ two \\\n>   more\n```\n```console machine\n$ three\n```\n";
    let all = commands(page, "console");
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].command.as_str(), all[0].output.len()), ("one", 1));
    assert_eq!(all[1].command, "two \\\n  more");
    assert_eq!(commands(page, "console machine").len(), 1);
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// One script for all of them, that says where each begins and whether it failed.
fn script(all: &[Shown], change: impl Fn(&str) -> String) -> String {
    let mut script = "exec 2>&1
look() { # COMMAND TEXT...: again until every text is there
    local command=$1 tries=300 out message
    shift
    while :; do
        out=$(eval \"$command\" 2>&1); message=$?
        for text; do [[ $out == *\"$text\"* ]] || message=1; done
        [ $message = 0 ] && break
        [ $((tries--)) -gt 0 ] || break
        sleep 0.2
    done
    printf '%s\\n' \"$out\"
    return $message
}
"
    .to_owned();
    for (nth, shown) in all.iter().enumerate() {
        let place = IN_PLACE.iter().find(|(begin, ..)| shown.command.starts_with(begin));
        let command = place.map_or(shown.command.as_str(), |(_, instead, _)| instead);
        let command = change(command);
        let looks =
            LOOKING.iter().any(|begin| command.starts_with(begin)) && !command.ends_with('&');
        let line = if looks {
            let parts = shown.output.iter().flat_map(|line| line.split('…'));
            let parts = parts.map(str::trim).filter(|part| !part.is_empty()).map(quoted);
            format!("look {} {}", quoted(&command), parts.collect::<Vec<_>>().join(" "))
        } else {
            command
        };
        writeln!(
            script,
            "echo '@@{nth}'\n{line}\nended=$?; [ $ended = 0 ] || echo \"@@failed $ended\""
        )
        .unwrap();
    }
    script + &format!("echo '@@{}'\nkill $(jobs -p) 2>/dev/null\nwait\n", all.len())
}

/// Every command was reached, succeeded, and showed what is written.
fn compare(page: &str, all: &[Shown], message: &str) {
    for (nth, shown) in all.iter().enumerate() {
        let from = message.split_once(&format!("@@{nth}\n")).map(|(_, rest)| rest);
        let from =
            from.unwrap_or_else(|| panic!("{page}: not reached: {}\n{message}", shown.command));
        let own = from.split_once(&format!("@@{}\n", nth + 1)).map_or(from, |(own, _)| own);
        let mut lines = own.lines();
        let place = || format!("{page}: $ {}\n{own}", shown.command);
        assert!(!own.contains("@@failed"), "{}", place());
        if IN_PLACE.iter().any(|(begin, ..)| shown.command.starts_with(begin)) {
            continue;
        }
        for wanted in &shown.output {
            assert!(
                lines.any(|line| matches(wanted, line)),
                "no `{wanted}` in order in {}",
                place()
            );
        }
    }
}

async fn session(page: &str, all: &[Shown]) {
    let lab = Lab::new();
    let etcd = Etcd::start(&lab).await;
    let home = lab.folder("session");
    let script = script(all, |command| command.replace("127.0.0.1", &lab.ip().to_string()));
    let folder = |bin: PathBuf| bin.parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{}:{path}", folder(bins::register()), folder(bins::confsync()));
    let spec = Spec::new("the page's commands", "bash", &home)
        .args(["-c", &script])
        .env("PATH", path)
        .env("HOME", &home)
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", etcd.url())
        .env("ETCD_ENDPOINTS", etcd.url());
    let ended = run(spec, Duration::from_secs(180)).await;
    compare(page, all, &ended.stdout());
}

async fn in_a_folder(page: &str) {
    let (_, text) = pages().into_iter().find(|(name, _)| name == page).unwrap();
    session(page, &commands(&text, "console")).await;
}

/// As root on a machine of its own, in root's home. What earlier pages lead to is there.
fn on_a_machine(earlier: &'static [&'static str], page: &'static str) {
    network::scenario(move |network| async move {
        let machine = network.machine("fresh", 20);
        machine.boot().await;
        // What came with the checkout or with an installation.
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fleet-units");
        let copy = Spec::new("cp", "cp", network.lab().path()).args([
            Path::new("-r"),
            &units,
            &machine.path("/root"),
        ]);
        let _ = run(copy, Duration::from_secs(20)).await.ok();
        machine.sh("cd /root; rm -f one two *.log").await;
        let all = pages();
        let commands = |page: &&str| {
            let (_, text) = all.iter().find(|(name, _)| name == page).unwrap();
            commands(text, "console machine")
        };
        // One shell for all of them: it keeps what runs in the background.
        let mut shown: Vec<Shown> = earlier.iter().flat_map(commands).collect();
        shown.extend(commands(&page));
        machine.write("/root/session.sh", &script(&shown, str::to_owned));
        let printed = machine.sh("cd /root; HOME=/root exec bash session.sh </dev/null").await;
        compare(page, &shown, &printed);
    });
}

/// One test for each page, so that they run side by side, and the list of all.
macro_rules! sessions {
    (in_a_folder: $($plain:ident = $page:literal),+;
     on_a_machine: $($machine:ident = $after:expr, $machine_page:literal),+ $(;)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $plain() {
            in_a_folder($page).await;
        })+
        $(#[test]
        fn $machine() {
            on_a_machine(&$after, $machine_page);
        })+
        const IN_A_FOLDER: &[&str] = &[$($page),+];
        const ON_A_MACHINE: &[&str] = &[$($machine_page),+];
    };
}

sessions! {
    in_a_folder:
    coming_from_confd = "docs/migration.md",
    apache_in_front = "docs/how-to/apache.md",
    haproxy_in_front = "docs/how-to/haproxy.md",
    operations = "docs/operations.md",
    weights_and_a_canary = "docs/how-to/weights-and-canary.md",
    one_taken_out_by_hand = "docs/how-to/take-one-out.md",
    tls_to_etcd = "docs/how-to/tls.md",
    several_data_centres = "docs/how-to/data-centres.md";

    on_a_machine:
    the_readme_leads_from_nothing_to_a_pair_in_service = [], "README.md",
    the_readme_of_the_units_leads_to_units_that_serve = [], "fleet-units/README.md",
    an_upgrade_and_the_way_back = ["README.md"], "docs/how-to/upgrade.md";
}

#[test]
fn every_page_with_commands_is_run() {
    for (kind, run) in [("console", IN_A_FOLDER), ("console machine", ON_A_MACHINE)] {
        let all = pages();
        let with = all.iter().filter(|(_, text)| !commands(text, kind).is_empty());
        let with: Vec<&str> = with.map(|(name, _)| name.as_str()).collect();
        let mut run = run.to_vec();
        run.sort_unstable();
        assert_eq!(run, with, "pages with blocks of `{kind}`, and those that a test runs");
    }
}
