//! The command line as written.
//!
//! confd's own flags are understood where they mean the same; what they become is
//! in [`confd_words`], before clap sees them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use common::args::{LogArgs, StoreArgs};

/// Renders the proxy's configuration from etcd and proves that the proxy runs it.
#[derive(Debug, Parser)]
#[command(name = "confsync", version = common::VERSION, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Follow the keys, keep the files and the proxy in line
    Run(Box<RunArgs>),
    /// Validate resources and templates without etcd; what is merely ignored or
    /// misspelt is an error here
    Check(CheckArgs),
    /// Print what a resource would write
    Render(Box<RenderArgs>),
    /// Every load balancer: what it has applied, and what it waits for
    Status(Box<StatusArgs>),
    /// Write a working confdir to start from
    Init(InitArgs),
    /// Write the handlebars equivalent of a Go template to standard output
    Convert(ConvertArgs),
}

/// Where the resources are.
#[derive(Debug, Clone, Args)]
pub struct ConfdirArgs {
    /// Folder with conf.d/ and templates/ [default: /etc/confsync]
    #[arg(long, value_name = "DIR", env = "CONFSYNC_CONFDIR")]
    pub confdir: Option<PathBuf>,

    /// Put before every resource's keys, in place of its own prefix
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_PREFIX")]
    pub prefix: Option<String>,

    /// The folder of all services, below the prefix
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_SERVICES", default_value = "/services")]
    pub services: String,

    /// The least time between two reloads of one proxy, unless a resource says
    /// otherwise; it delays, it never drops
    #[arg(
        long,
        value_name = "SPAN",
        env = "CONFSYNC_MIN_RELOAD_INTERVAL",
        default_value = "500ms"
    )]
    pub min_reload_interval: String,

    /// confd's own confd.toml, for what no flag says
    #[arg(long, value_name = "FILE", env = "CONFSYNC_CONFIG_FILE")]
    pub config_file: Option<PathBuf>,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where the resources are.
    #[command(flatten)]
    pub confdir: ConfdirArgs,

    /// Apply once and exit; the exit code tells
    #[arg(long, env = "CONFSYNC_ONCE")]
    pub once: bool,

    /// Change nothing; say what would be done
    #[arg(long, env = "CONFSYNC_DRY_RUN")]
    pub dry_run: bool,

    /// With --dry-run: show the changes as a diff
    #[arg(long, requires = "dry_run", env = "CONFSYNC_DIFF")]
    pub diff: bool,

    /// Write the files only: no check, no reload
    #[arg(long, env = "CONFSYNC_SYNC_ONLY")]
    pub sync_only: bool,

    /// Everything is read again this often, whatever the watch says [default: 5m]
    #[arg(long, value_name = "SPAN", env = "CONFSYNC_INTERVAL")]
    pub interval: Option<String>,

    /// This load balancer's name among the others [default: host name]
    #[arg(long, value_name = "NAME", env = "CONFSYNC_NAME")]
    pub name: Option<String>,

    /// Address where clients reach this load balancer; written to its member key
    #[arg(long, value_name = "ADDR", env = "CONFSYNC_ADVERTISE")]
    pub advertise: Option<String>,

    /// Folder of our own keys: members and acknowledgements
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_BOOKKEEPING", default_value = "/confsync")]
    pub bookkeeping: String,

    /// Lifetime of the member key after its last refresh
    #[arg(long, value_name = "SPAN", env = "CONFSYNC_TTL", default_value = "15s")]
    pub ttl: String,

    /// Serve status, metrics, health and a page for people here
    #[arg(long, value_name = "ADDR", env = "CONFSYNC_STATUS")]
    pub status: Option<SocketAddr>,

    /// How long the supervised command may take to end
    #[arg(long, value_name = "SPAN", env = "CONFSYNC_STOP_TIMEOUT", default_value = "30s")]
    pub stop_timeout: String,

    /// How etcd is reached.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,

    /// Supervise this command: started with the first good configuration, stopped
    /// at the end; its exit is ours
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the resources are.
    #[command(flatten)]
    pub confdir: ConfdirArgs,
    /// Render against these keys: a JSON object of key to value
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
}

/// `render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The resource: the name of its file without .toml
    pub resource: String,
    /// Where the resources are.
    #[command(flatten)]
    pub confdir: ConfdirArgs,
    /// Render from these keys, a JSON object of key to value, instead of etcd
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// How etcd is reached.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// For programs: one JSON object
    #[arg(long)]
    pub json: bool,
    /// Folder of our own keys: members and acknowledgements
    #[arg(long, value_name = "PREFIX", env = "CONFSYNC_BOOKKEEPING", default_value = "/confsync")]
    pub bookkeeping: String,
    /// How etcd is reached.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to write to; files that are there are left alone
    #[arg(long, value_name = "DIR", env = "CONFSYNC_CONFDIR", default_value = "/etc/confsync")]
    pub confdir: PathBuf,
}

/// `convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// The Go template
    pub template: PathBuf,
}

/// confd's flags, and what they are here. `None` as the second: it takes no value
/// and means nothing here, because it is always so.
const CONFD: &[(&str, Option<&str>, bool)] = &[
    ("onetime", Some("--once"), false),
    ("noop", Some("--dry-run"), false),
    ("sync-only", Some("--sync-only"), false),
    ("watch", None, false),
    ("keep-stage-file", None, false),
    ("basic-auth", None, false),
    ("interval", Some("--interval"), true),
    ("node", Some("--etcd"), true),
    ("backend", Some("--etcd-api"), true),
    ("confdir", Some("--confdir"), true),
    ("config-file", Some("--config-file"), true),
    ("log-level", Some("--log-level"), true),
    ("prefix", Some("--prefix"), true),
    ("client-ca-keys", Some("--etcd-ca"), true),
    ("client-cert", Some("--etcd-cert"), true),
    ("client-key", Some("--etcd-key"), true),
    ("username", Some("--etcd-user"), true),
];

/// Rewrites a command line meant for confd: `confsync -onetime -node HOST:PORT …`
/// is `confsync run --once --etcd HOST:PORT …`. One that is not is left as it is.
///
/// # Errors
/// A confd flag that means something we do not do, by name.
pub fn confd_words(argv: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let mut words = argv.into_iter();
    let Some(program) = words.next() else { return Ok(Vec::new()) };
    let rest: Vec<OsString> = words.collect();
    let ours = match rest.first() {
        None => true,
        Some(first) => {
            let text = first.to_string_lossy();
            let bare = text.trim_start_matches('-');
            !text.starts_with('-') || ["h", "help", "V", "version"].contains(&bare)
        }
    };
    if ours {
        return Ok(std::iter::once(program).chain(rest).collect());
    }
    let mut out = vec![program, "run".into()];
    let named = |word: &OsString| {
        let text = word.to_string_lossy();
        ["confdir", "config-file"].iter().any(|flag| text.trim_start_matches('-').starts_with(flag))
    };
    if !rest.iter().any(named) && std::env::var_os("CONFSYNC_CONFDIR").is_none() {
        out.extend(["--confdir".into(), "/etc/confd".into()]);
    }
    let mut words = rest.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        if text == "--" || !text.starts_with('-') {
            out.push(word);
            out.extend(words.by_ref());
            break;
        }
        let (name, glued) = match text.trim_start_matches('-').split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.trim_start_matches('-').to_owned(), None),
        };
        let Some((_, ours, takes_value)) = CONFD.iter().find(|(known, _, _)| *known == name) else {
            if text.starts_with("--") {
                out.push(word);
                continue;
            }
            return Err(format!(
                "-{name}: this flag of confd is not known here; see `confsync run --help`"
            ));
        };
        let value = if *takes_value {
            glued.or_else(|| words.next().map(|w| w.to_string_lossy().into_owned()))
        } else {
            None
        };
        push(&mut out, &name, *ours, value)?;
    }
    Ok(out)
}

fn push(
    out: &mut Vec<OsString>,
    name: &str,
    ours: Option<&str>,
    value: Option<String>,
) -> Result<(), String> {
    let Some(ours) = ours else { return Ok(()) };
    let value = match (name, value) {
        ("backend", Some(kind)) => match kind.as_str() {
            "etcdv3" => Some("v3".to_owned()),
            "etcd" => Some("auto".to_owned()),
            other => return Err(format!("-backend {other}: only etcd is read here")),
        },
        // confd's interval is a bare number of seconds.
        ("interval", Some(secs)) if secs.bytes().all(|b| b.is_ascii_digit()) => {
            Some(format!("{secs}s"))
        }
        ("log-level", Some(level)) => {
            Some(if level == "panic" || level == "fatal" { "error".into() } else { level })
        }
        (_, value) => value,
    };
    out.push(ours.into());
    out.extend(value.map(OsString::from));
    Ok(())
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
            "confsync run --confdir /etc/confd --interval 10s --etcd 172.17.42.1:4001"
        );
    }

    #[test]
    fn what_means_the_same_is_taken_and_the_rest_is_named() {
        assert_eq!(
            words("confsync -watch -backend etcdv3 --prefix=/p").unwrap(),
            "confsync run --confdir /etc/confd --etcd-api v3 --prefix /p"
        );
        assert!(words("confsync -backend consul").unwrap_err().contains("consul"));
        assert!(words("confsync -srv-domain x").unwrap_err().contains("srv-domain"));
    }

    #[test]
    fn our_own_lines_are_left_alone() {
        for line in
            ["confsync run --once", "confsync --help", "confsync", "confsync run -- nginx -g x"]
        {
            assert_eq!(words(line).unwrap(), line);
        }
    }

    #[test]
    fn the_whole_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
