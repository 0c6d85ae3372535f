//! What the command line says when something fails.

use std::fmt;
use std::path::Path;

/// A sentence for the user: what happened, to which thing, and what to do.
#[derive(Debug)]
pub struct CliError {
    message: String,
}

impl CliError {
    /// Makes an error that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
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
