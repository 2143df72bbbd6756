//! Man pages and completions of both programs, from their command lines: `pages [FOLDER]`,
//! by default `generated` beside this program, where the packages look for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let own = std::env::current_exe().context("the path of this program")?;
    let folder = match std::env::args_os().nth(1) {
        Some(given) => PathBuf::from(given),
        None => own.with_file_name("generated"),
    };
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    write(register::args::Cli::command(), &folder).context("register")?;
    write(confsync::args::Cli::command(), &folder).context("confsync")
}

/// `NAME.1`, `NAME-SUBCOMMAND.1`, and a file for each shell.
fn write(mut command: Command, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, folder)?;
    }
    clap_mangen::generate_to(command, folder)?;
    Ok(())
}
