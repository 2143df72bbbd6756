//! Man pages and completions of both programs, from their command lines: `pages [FOLDER]`,
//! by default `generated` beside this program, where the packages look for them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Command;
use clap_complete::Generator as _;
use clap_mangen::Man;
use common::settings::cli::{Completed, Shell, completion};
use confsync::cli::completion::with_resources;

fn main() -> anyhow::Result<()> {
    let own = std::env::current_exe().context("the path of this program")?;
    let folder = match std::env::args_os().nth(1) {
        Some(given) => PathBuf::from(given),
        None => own.with_file_name("generated"),
    };
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    write(register::cli::command(), |_, script| script, &folder).context("register")?;
    write(confsync::cli::args::command(), with_resources, &folder).context("confsync")
}

/// Programs of an administrator.
const SECTION: &str = "8";

/// Which files a program reads and writes, besides those that are named to it.
const FILES: [(&str, &[(&str, &str)]); 2] = [
    (
        "register",
        &[
            ("/etc/register/services.toml", "What the packages' unit registers (--config)."),
            ("/etc/default/register", "Variables for the packages' unit."),
            ("/etc/environment", "The address of this machine (COREOS_PRIVATE_IPV4)."),
        ],
    ),
    (
        "confsync",
        &[
            ("/etc/confsync/conf.d/*.toml", "What is rendered, and where to (--confdir)."),
            ("/etc/confsync/templates/", "The templates."),
            ("/etc/default/confsync", "Variables for the packages' unit."),
        ],
    ),
];

/// Variables without a flag, of subcommands that ask etcd.
const OF_ETCD: [(&str, &str); 4] = [
    ("ETCD_PASSWORD", "The password of --etcd-user; no flag has it."),
    (
        "ETCDCTL_ENDPOINTS, ETCDCTL_API, ETCDCTL_DISCOVERY_SRV",
        "As etcdctl has them, where neither a flag nor a variable above says it.",
    ),
    (
        "ETCDCTL_CACERT, ETCDCTL_CERT, ETCDCTL_KEY, ETCDCTL_USER, ETCDCTL_PASSWORD",
        "The same; the user may be NAME:PASSWORD.",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "Credentials of the service manager: etcd-ca, etcd-cert, etcd-key and etcd-password are \
         used where nothing else is given.",
    ),
];

/// What the pages of all subcommands end with.
const END: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
Done; healthy; a drain that every load balancer confirmed.
.TP
\fB1\fR
Failed: the last line on standard error says why. Not healthy; mistakes in the confdir.
.TP
\fB2\fR
The drain was not confirmed by every load balancer; the key is gone all the same.
.TP
\fB3\fR
The drain is assumed: some load balancer knows its proxy by commands alone.
.TP
\fB64\fR
The command line or a file of settings cannot be used. Trying again does not help.
.TP
other
With a supervised command: its own, or 128 and the number of the signal that ended it.
.SH "SEE ALSO"
\fBregister\fR(8), \fBconfsync\fR(8)
"#;

/// `NAME.8`, `NAME-SUBCOMMAND.8`, and a file for each shell.
fn write(command: Command, completed: Completed, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    // `help run` is what `run --help` is: no page of its own.
    let mut whole = command.clone().disable_help_subcommand(true);
    whole.build();
    for page in whole.get_subcommands().chain([&whole]) {
        let display = page.get_display_name().unwrap_or(page.get_name()).to_owned();
        let path = folder.join(format!("{display}.{SECTION}"));
        let mut file = File::create(&path).with_context(|| path.display().to_string())?;
        file.write_all(&self::page(page, &name)?)?;
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let path = folder.join(shell.file_name(&name));
        let script = completion(command.clone(), shell, completed);
        fs::write(&path, script).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn page(command: &Command, program: &str) -> anyhow::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .section(SECTION)
        .date(date())
        .source(format!("{program} {}", env!("CARGO_PKG_VERSION")))
        .manual("register and confsync");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut more = String::new();
    if let Some((_, examples)) = examples.split_once(":\n") {
        more.push_str(".SH EXAMPLES\n.nf\n");
        examples.lines().for_each(|line| more.push_str(&roff(line.trim())));
        more.push_str(".fi\n");
    }
    environment(command, &mut more);
    if let Some((_, files)) = FILES.iter().find(|(of, _)| *of == program) {
        more.push_str(".SH FILES\n");
        for (file, what) in *files {
            more.push_str(&format!(".TP\n\\fI{}\\fR\n{}", roff(file).trim(), roff(what)));
        }
    }
    more.push_str(END);
    text.extend(more.into_bytes());
    Ok(text)
}

/// Which variable says the same as which flag.
fn environment(command: &Command, more: &mut String) {
    let named = command.get_arguments().filter_map(|arg| {
        let flag = arg.get_long()?;
        Some((arg.get_env()?.to_string_lossy().into_owned(), flag))
    });
    let mut named = named.peekable();
    if named.peek().is_some() {
        more.push_str(".SH ENVIRONMENT\n");
    }
    for (variable, flag) in named {
        let flag = roff(&format!("--{flag}"));
        let line = format!(".TP\n\\fB{variable}\\fR\nAs \\fB{}\\fR.\n", flag.trim());
        more.push_str(&line);
    }
    if command.get_arguments().any(|arg| arg.get_long() == Some("etcd")) {
        for (variables, what) in OF_ETCD {
            more.push_str(&format!(".TP\n\\fB{variables}\\fR\n{}", roff(what)));
        }
    }
}

/// A line of text, as roff takes it.
fn roff(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{line}\n")
}

/// The day of the build; packages that are to come out the same say which (`SOURCE_DATE_EPOCH`).
fn date() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let at = given.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let text = humantime::format_rfc3339_seconds(at.unwrap_or_else(SystemTime::now)).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}
