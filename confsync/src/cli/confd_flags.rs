//! Translates a command line of confd into ours: `confsync -onetime -node HOST:PORT …` is `confsync
//! run --once --etcd HOST:PORT …`. Likewise one of its fork: `confsync --onetime etcd --node
//! HOST:PORT`.
//!
//! Works on the arguments alone. A flag with the same meaning is translated, one that cannot be
//! supported is rejected by name, and a command line of our own is left as it is.

use std::ffi::OsString;
use std::iter::Peekable;
use std::vec;

use super::confd_flag_table::FlagMeaning::{Nothing, NothingOf, Switch, Unsupported, Value};
use super::confd_flag_table::{FLAGS, OTHER_STORES};

/// The error for an unsupported flag: `-name`, or `--name` as the fork writes it.
fn refused(flag: &str, why: &str) -> String {
    format!("{flag}: {why}")
}

/// Rewrites a command line of confd; any other is left as it is.
///
/// # Errors
/// A flag that cannot be supported, by name.
pub fn confd_words(argv: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let mut words = argv.into_iter();
    let Some(program) = words.next() else { return Ok(Vec::new()) };
    let mut rest: Vec<OsString> = words.collect();
    // A user of our `run` may have kept confd's flags.
    if let [run, first, ..] = rest.as_slice()
        && run == "run"
        && is_confds(first)
    {
        rest.remove(0);
    }
    let first = rest.first().map(|first| first.to_string_lossy().into_owned());
    match first.as_deref() {
        Some("-help" | "-h") => return Ok(vec![program, "--help".into()]),
        Some("-version") => return Ok(vec![program, "--version".into()]),
        Some("--help" | "--version" | "-V") | None => {}
        Some("etcd") => return rewrite(program, rest),
        Some(first) if OTHER_STORES.contains(&first) => {
            return Err(format!("{first}: only etcd is read here"));
        }
        Some(first) if first.starts_with('-') => return rewrite(program, rest),
        Some(_) => {}
    }
    Ok(std::iter::once(program).chain(rest).collect())
}

fn rewrite(program: OsString, rest: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let mut out = vec![program, "run".into()];
    let names_api = |word: &OsString| word.to_string_lossy().starts_with("--etcd-api");
    let has_api = rest.iter().any(names_api);
    if !rest.iter().any(names_confdir) && std::env::var_os("CONFSYNC_CONFDIR").is_none() {
        out.extend(["--confdir".into(), "/etc/confd".into()]);
    }
    let mut rewriting = Rewriting { words: rest.into_iter().peekable(), out, has_api };
    while let Some(word) = rewriting.words.next() {
        let text = word.to_string_lossy().into_owned();
        match text.as_str() {
            // The fork names the store by a subcommand.
            "etcd" => {}
            other if OTHER_STORES.contains(&other) => {
                return Err(format!("{text}: only etcd is read here"));
            }
            flag if flag.starts_with('-') && flag != "--" => rewriting.flag(word, flag)?,
            _ => {
                rewriting.out.push(word);
                rewriting.out.extend(rewriting.words.by_ref());
            }
        }
    }
    Ok(rewriting.out)
}

/// A command line of which a part is rewritten.
struct Rewriting {
    words: Peekable<vec::IntoIter<OsString>>,
    out: Vec<OsString>,
    /// The API of etcd is named by a flag of ours.
    has_api: bool,
}

impl Rewriting {
    /// Rewrites one flag. Its value may be glued to it by `=`, or be the next word.
    fn flag(&mut self, word: OsString, text: &str) -> Result<(), String> {
        let bare = text.trim_start_matches('-');
        let (name, glued) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        let Some((_, becomes)) = FLAGS.iter().find(|(known, _)| *known == name) else {
            if !text.starts_with("--") {
                let why = "this flag is not known here; see `confsync run --help`";
                return Err(format!("-{name}: {why}"));
            }
            // One of ours; clap knows whether the next word is its value.
            self.out.push(word);
            self.out.extend(self.words.next_if(|next| glued.is_none() && !is_flag(next)));
            return Ok(());
        };
        match becomes {
            Switch(_) | Nothing if glued == Some("false") => {}
            Switch(ours) => self.out.push((*ours).into()),
            Nothing => {}
            Value("--etcd-api") if self.has_api => drop(self.value(name, glued)?),
            Value(ours) => {
                let value = self.value(name, glued)?;
                self.give(name, ours, value)?;
            }
            NothingOf => {
                if self.value(name, glued)? == "fail-fast" && name == "failure-mode" {
                    let why = "a resource that fails never keeps the others from being written";
                    return Err(refused("--failure-mode fail-fast", why));
                }
            }
            Unsupported(_) if glued == Some("") => {}
            Unsupported(why) => {
                let flag = text.split('=').next().unwrap_or(text);
                return Err(refused(flag, why));
            }
        }
        Ok(())
    }

    fn value(&mut self, name: &str, glued: Option<&str>) -> Result<String, String> {
        let next = |word: OsString| word.to_string_lossy().into_owned();
        let value = glued.map(str::to_owned).or_else(|| self.words.next().map(next));
        value.ok_or_else(|| format!("-{name}: its value is missing"))
    }

    /// Writes our flag for one of confd's. An empty value is as good as none.
    fn give(&mut self, name: &str, ours: &str, value: String) -> Result<(), String> {
        if value.is_empty() {
            return Ok(());
        }
        // Each pass of confd reads its confdir.
        self.out.extend((name == "interval").then(|| "--reread".into()));
        if let Some(value) = meant(name, value)? {
            self.out.extend([ours.into(), value.into()]);
        }
        Ok(())
    }
}

/// Whether this is a flag that only confd writes: several letters behind a single dash.
fn is_confds(word: &OsString) -> bool {
    let text = word.to_string_lossy();
    text.len() > 2 && text.starts_with('-') && !text.starts_with("--")
}

fn is_flag(word: &OsString) -> bool {
    word.to_string_lossy().starts_with('-')
}

fn names_confdir(word: &OsString) -> bool {
    let text = word.to_string_lossy();
    let bare = text.trim_start_matches('-');
    let name = bare.split('=').next().unwrap_or_default();
    text.starts_with('-') && ["confdir", "config-file"].contains(&name)
}

/// Our value for one of confd's; `None` where the default is the same.
fn meant(name: &str, value: String) -> Result<Option<String>, String> {
    Ok(Some(match (name, value.as_str()) {
        ("backend", "etcdv3") => "v3".into(),
        // For confd, `etcd` means v2; a server may no longer have v2. So the API is detected,
        // unless a flag or the environment names it.
        ("backend", "etcd") => return Ok(None),
        ("backend", other) => {
            return Err(format!("-backend {other}: only etcd is read here (etcd, etcdv3)"));
        }
        // A bare number of seconds.
        ("interval", secs) if !secs.is_empty() && secs.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{secs}s")
        }
        ("log-level", level) => log_level(level).to_owned(),
        _ => value,
    }))
}

/// confd's levels are one more than ours.
pub(crate) fn log_level(level: &str) -> &str {
    match level {
        "panic" | "fatal" => "error",
        "warning" => "warn",
        level => level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<String, String> {
        let argv = line.split(' ').map(OsString::from).collect();
        let out = confd_words(argv)?;
        Ok(out.iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_tutorials_two_lines_for_confd() {
        assert_eq!(
            words(
                "confsync -onetime -node 172.17.42.1:4001 -config-file /etc/confd/conf.d/nginx.toml"
            )
            .unwrap(),
            "confsync run --once --etcd 172.17.42.1:4001 --config-file /etc/confd/conf.d/nginx.toml"
        );
        assert_eq!(
            words("confsync -interval 10 -node 172.17.42.1:4001").unwrap(),
            "confsync run --confdir /etc/confd --reread --interval 10s --etcd 172.17.42.1:4001"
        );
    }

    #[test]
    fn what_means_the_same_is_taken() {
        let confd = "confsync run --confdir /etc/confd";
        for (line, ours) in [
            ("-watch -backend etcdv3 --prefix=/p", "--etcd-api v3 --prefix /p"),
            ("-noop -onetime=true -sync-only=false", "--dry-run --once"),
            ("-backend=etcd -log-level=fatal", "--log-level error"),
            ("-backend etcdv3 --etcd-api v2", "--etcd-api v2"),
            ("-prefix= -node a:1", "--etcd a:1"),
            ("--watch --interval=5 etcd --node a:1", "--reread --interval 5s --etcd a:1"),
            (
                "--failure-mode best-effort --batch-interval 5s etcd -n a:1",
                "--min-reload-interval 5s --etcd a:1",
            ),
            (
                "--noop --diff --color --diff-context 5 etcd --node a:1",
                "--dry-run --diff --etcd a:1",
            ),
            ("--noop --diff etcd --node a:1", "--dry-run --diff --etcd a:1"),
            ("-srv-domain x.org -scheme https", "--etcd-srv x.org"),
            ("-username me -client-ca-keys /ca", "--etcd-user me --etcd-ca /ca"),
            ("-node a:1 -node b:2", "--etcd a:1 --etcd b:2"),
            ("-onetime --etcd-api v2 -node a:1", "--once --etcd-api v2 --etcd a:1"),
            ("-onetime -- nginx -g x", "--once -- nginx -g x"),
        ] {
            assert_eq!(words(&format!("confsync {line}")).unwrap(), format!("{confd} {ours}"));
        }
        assert_eq!(
            words("confsync etcd --node a:1 --onetime").unwrap(),
            format!("{confd} --etcd a:1 --once")
        );
        assert_eq!(words("confsync -confdir /c").unwrap(), "confsync run --confdir /c");
        assert_eq!(words("confsync run -confdir /c").unwrap(), "confsync run --confdir /c");
        assert_eq!(words("confsync -version").unwrap(), "confsync --version");
    }

    #[test]
    fn the_rest_is_rejected_by_name() {
        for (line, part) in [
            ("-backend consul", "consul"),
            ("-password secret", "ETCD_PASSWORD"),
            ("-keep-stage-file", "confsync render"),
            ("-client-insecure", "--etcd-ca"),
            ("-srv-record _x._tcp.y", "--etcd-srv"),
            ("-auth-token x", "only etcd"),
            ("-onetme", "-onetme"),
            ("-onetime -node", "-node: its value is missing"),
            ("consul --node a:1", "only etcd"),
            ("--onetime vault", "only etcd"),
            ("--check-cmd-timeout 5s etcd", "--check-cmd-timeout: it is set for each resource"),
            ("--check-config etcd", "confsync check"),
            ("--failure-mode=fail-fast etcd", "never keeps the others"),
            ("--metrics-addr=:9100 etcd", "give --listen"),
        ] {
            let error = words(&format!("confsync {line}")).unwrap_err();
            assert!(error.contains(part) && !error.contains("secret"), "{line}: {error}");
        }
    }

    #[test]
    fn our_own_lines_are_left_alone() {
        for line in [
            "confsync run --once",
            "confsync --help",
            "confsync",
            "confsync run -- nginx -g x",
            "confsync run -h",
        ] {
            assert_eq!(words(line).unwrap(), line);
        }
    }
}
