//! Man pages (section 8) and completions as the packages have them: every shell takes its own, `man`
//! finds nothing to warn of, and every flag and variable has its place in a page.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tests::process::{Output, Spec, run};
use tests::skip::skip;
use tests::{Lab, bins};

async fn generate(lab: &Lab) -> PathBuf {
    let folder = lab.folder("generated");
    let pages = Spec::new("pages", env!("CARGO_BIN_EXE_pages"), lab.path()).args([&folder]);
    let _ = run(pages, Duration::from_secs(60)).await.ok();
    folder
}

async fn tried(lab: &Lab, program: &str, args: &[&str]) -> Output {
    let path = std::env::var("PATH").unwrap_or_default();
    let spec = Spec::new(program, program, lab.folder("generated")).args(args.iter().copied());
    let spec = spec.env("PATH", path).env("HOME", lab.path()).env("LC_ALL", "C.UTF-8");
    run(spec, Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn man_pages_have_every_flag_and_variable() {
    let lab = Lab::new();
    let folder = generate(&lab).await;
    for program in [register::cli::command(), confsync::cli::args::command()] {
        for command in program.get_subcommands() {
            let name = format!("{}-{}.8", program.get_name(), command.get_name());
            // A hyphen is written `\-`.
            let page = fs::read_to_string(folder.join(&name)).unwrap().replace("\\-", "-");
            for arg in command.get_arguments() {
                let flag = arg.get_long().map(|long| format!("--{long}"));
                let variable = arg.get_env().map(|env| env.to_string_lossy().into_owned());
                for text in flag.into_iter().chain(variable) {
                    assert!(page.contains(&text), "{name} does not speak of {text}");
                }
            }
            if command.get_arguments().any(|arg| arg.get_long() == Some("etcd")) {
                for text in ["ETCD_PASSWORD", "ETCDCTL_CACERT", "CREDENTIALS_DIRECTORY"] {
                    assert!(page.contains(text), "{name} does not speak of {text}");
                }
            }
            for part in ["EXIT STATUS", "SEE ALSO", ".SH FILES"] {
                assert!(page.contains(part), "{name} has no {part}");
            }
            let own = !["version", "completion", "help"].contains(&command.get_name());
            for part in [".SH EXAMPLES", ".SH ENVIRONMENT"].iter().filter(|_| own) {
                let exempt = ["init", "weight", "schema"].contains(&command.get_name());
                assert!(page.contains(part) || exempt, "{name} has no {part}");
            }
        }
    }
    if !bins::on_path("man") {
        return skip("man is not installed: nobody looks whether the pages can be shown");
    }
    let all = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    for page in all.filter(|page| page.extension().is_some_and(|ending| ending == "8")) {
        let page = page.to_str().unwrap();
        assert!(!page.contains("-help"), "a page that says what --help says: {page}");
        let shown = tried(&lab, "man", &["--warnings", "--local-file", page]).await;
        assert!(shown.exit.success() && shown.stderr().is_empty(), "{page}: {}", shown.stderr());
    }
}

/// What bash offers for a line.
const OFFER: &str = r#"
. ./register.bash; . ./confsync.bash
read -ra COMP_WORDS <<<"$1"
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$1 COMP_POINT=${#1}
function=$(complete -p "${COMP_WORDS[0]}" | sed 's/.*-F \([^ ]*\).*/\1/')
$function "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn shells_complete_commands_flags_and_values() {
    let lab = Lab::new();
    let folder = generate(&lab).await;
    let resources = folder.join("lb/conf.d");
    fs::create_dir_all(&resources).unwrap();
    for name in ["app", "nginx"] {
        fs::write(resources.join(format!("{name}.toml")), "").unwrap();
    }
    for (line, offered) in [
        ("register ru", "run"),
        ("register run --por", "--port"),
        ("confsync st", "status"),
        ("confsync run --etcd-ap", "--etcd-api"),
        ("confsync run --etcd-api ", "auto v3 v2"),
        ("register run --log-format ", "text json"),
        ("confsync render --confdir lb ", "app nginx"),
        ("confsync render --confdir lb n", "nginx"),
        ("confsync render --confdir lb --da", "--data"),
        ("confsync --confdir lb render n", "nginx"),
        ("confsync init --proxy ", "nginx haproxy apache"),
    ] {
        let message = tried(&lab, "bash", &["--norc", "-c", OFFER, "bash", line]).await;
        assert_eq!(message.stdout().trim(), offered, "{line}: {}", message.stderr());
    }
    let others = [
        (
            "zsh",
            "-fc",
            "autoload -U compinit; fpath=($PWD $fpath); compinit -u -D; print $_comps[confsync]",
            "_confsync",
        ),
        ("fish", "-c", "source ./confsync.fish; complete -C 'confsync st'", "status"),
        (
            "fish",
            "-c",
            "source ./confsync.fish; complete -C 'confsync render --confdir lb n'",
            "nginx",
        ),
    ];
    for (shell, flag, script, wanted) in others {
        if bins::on_path(shell) {
            let message = tried(&lab, shell, &[flag, script]).await;
            assert!(
                message.stdout().contains(wanted),
                "{shell}: {}{}",
                message.stdout(),
                message.stderr()
            );
        } else {
            skip(&format!("{shell} is not installed: its completions are not tried"));
        }
    }
}
