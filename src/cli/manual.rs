//! `recsys-ingest completions` and `recsys-ingest man`: made from the command line itself.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use super::terminal::print;
use crate::config::parse;

/// The program's name.
const NAME: &str = "recsys-ingest";

/// For which shell.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Where to.
#[derive(Args, Debug)]
pub struct Man {
    /// Folder for the pages, recsys-ingest.1 and one for each command; made if it is not there
    #[arg(long, value_name = "DIR", value_parser = parse::path())]
    out: PathBuf,
}

/// Prints the completions of the command for a shell.
pub(crate) fn completions(completions: &Completions, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut command, NAME, &mut script);
    print(
        String::from_utf8(script)
            .context("the completions are no text")?
            .trim_end(),
    )
}

/// Writes the manual pages of the command.
pub(crate) fn write(man: &Man, command: Command) -> Result<()> {
    let out = &man.out;
    let cannot = || format!("cannot write the manual to {}", out.display());
    fs::create_dir_all(out).with_context(cannot)?;
    clap_mangen::generate_to(command, out).with_context(cannot)?;
    print(&format!(
        "the pages are in {dir}; `man -l {dir}/{NAME}.1` shows the first",
        dir = out.display()
    ))
}
