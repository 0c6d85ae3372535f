//! Man pages and shell completions, made from the definition of the command line.

use super::args::{Cli, Generated};
use super::error::CliError;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// Writes man pages or completions into a directory.
pub fn generate(what: Generated, directory: &Path) -> Result<(), CliError> {
    let failed = |err: std::io::Error| CliError::at("cannot write into", directory, err);
    std::fs::create_dir_all(directory).map_err(failed)?;
    match what {
        Generated::Man => clap_mangen::generate_to(Cli::command(), directory).map_err(failed),
        Generated::Completions => {
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                clap_complete::generate_to(shell, &mut Cli::command(), "mementofs", directory).map_err(failed)?;
            }
            Ok(())
        }
    }
}
