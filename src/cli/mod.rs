//! The command line: arguments, messages, exit codes, signals, lifetimes.

mod apply;
mod args;
mod branch;
mod client;
mod commands;
mod diff;
mod doctor;
mod error;
mod export;
mod fsck;
mod generate;
mod import;
mod merge;
mod mount;
mod progress;
mod report;
mod rest;
mod run;
mod serve;
mod tar;

pub use args::Cli;
pub use error::CliError;

use clap::Parser;

/// Exit code when all went well.
const DONE: i32 = 0;
/// Exit code when something failed.
const FAILED: i32 = 1;
/// Exit code when the arguments are wrong, as clap has it; of `fsck` also when the store cannot be checked as things are.
const USAGE: i32 = 2;

/// Runs the program and returns its exit code.
pub fn main() -> i32 {
    let cli = Cli::parse();
    match commands::dispatch(cli) {
        Ok(code) => code,
        Err(err) => {
            eprintln!("mementofs: {err}");
            err.exit_code()
        }
    }
}
