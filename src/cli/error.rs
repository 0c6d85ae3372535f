//! What the command line says when something fails.

use std::fmt;
use std::path::Path;

/// A sentence for the user: what happened, to which thing, and what to do.
#[derive(Debug)]
pub struct CliError {
    message: String,
    /// The arguments make no sense together.
    is_usage: bool,
}

impl CliError {
    /// Makes an error that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_usage: false }
    }

    /// Makes an error about arguments that make no sense together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_usage: true }
    }

    /// Returns the exit code that belongs to it.
    pub fn exit_code(&self) -> i32 {
        if self.is_usage { super::USAGE } else { super::FAILED }
    }

    /// Makes an error about a path.
    pub fn at(what: &str, path: &Path, err: impl fmt::Display) -> Self {
        Self::new(format!("{what} {}: {err}", path.display()))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}
