//! Man pages and completions of both programs, from their command lines: `pages [FOLDER]`,
//! by default `generated` beside this program, where the packages look for them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let own = std::env::current_exe().context("the path of this program")?;
    let folder = match std::env::args_os().nth(1) {
        Some(given) => PathBuf::from(given),
        None => own.with_file_name("generated"),
    };
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    write(register::cli::command(), &folder).context("register")?;
    write(confsync::cli::args::command(), &folder).context("confsync")
}

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
\fBregister\fR(1), \fBconfsync\fR(1)
"#;

/// `NAME.1`, `NAME-SUBCOMMAND.1`, and a file for each shell.
fn write(mut command: Command, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    // `help run` is what `run --help` is: no page of its own.
    let pages = command.clone().disable_help_subcommand(true);
    clap_mangen::generate_to(pages, folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        if file.starts_with(&name) && file.ends_with(".1") {
            OpenOptions::new().append(true).open(&path)?.write_all(END.as_bytes())?;
        }
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, folder)?;
    }
    Ok(())
}
