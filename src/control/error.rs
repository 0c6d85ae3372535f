//! Why a command or an access to the control directory was refused.

use crate::history::HistoryError;
use crate::repository::RepositoryError;
use crate::tree::TreeError;
use crate::workspace::WorkspaceError;
use std::fmt;

/// Why a command failed. A failed command changed nothing.
#[derive(Debug)]
pub enum CommandError {
    /// It does not parse, or a name is not allowed.
    Invalid(String),
    /// It is 4096 bytes or longer.
    TooLong,
    /// Only the owner of the mount and root may.
    Denied,
    /// The control directory does not allow this.
    NotPermitted,
    /// Old states do not change.
    ReadOnly,
    /// There is no such thing.
    NotFound(String),
    /// The name is taken.
    Exists(String),
    /// A directory was expected.
    NotDirectory,
    /// A file was expected.
    IsDirectory,
    /// There is no such extended attribute.
    NoData,
    /// Nothing lies from there on.
    NoSuchOffset,
    /// The workspace refused or failed.
    Workspace(WorkspaceError),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(why) => f.write_str(why),
            Self::TooLong => f.write_str("a command is shorter than 4096 bytes"),
            Self::Denied => f.write_str("only the owner of the mount and root may use the control directory"),
            Self::NotPermitted => f.write_str("the control directory cannot be changed this way"),
            Self::ReadOnly => f.write_str("a checkpoint cannot be changed"),
            Self::NotFound(what) => write!(f, "{what} does not exist"),
            Self::Exists(what) => write!(f, "{what} exists already"),
            Self::NotDirectory => f.write_str("not a directory"),
            Self::IsDirectory => f.write_str("is a directory"),
            Self::NoData => f.write_str("no such extended attribute"),
            Self::NoSuchOffset => f.write_str("there is no data from that offset on"),
            Self::Workspace(err) => err.fmt(f),
        }
    }
}

impl std::error::Error for CommandError {}

impl From<WorkspaceError> for CommandError {
    fn from(err: WorkspaceError) -> Self {
        Self::Workspace(err)
    }
}

impl From<RepositoryError> for CommandError {
    fn from(err: RepositoryError) -> Self {
        Self::Workspace(err.into())
    }
}

impl From<TreeError> for CommandError {
    fn from(err: TreeError) -> Self {
        Self::Workspace(err.into())
    }
}

impl From<HistoryError> for CommandError {
    fn from(err: HistoryError) -> Self {
        Self::Workspace(RepositoryError::History(err).into())
    }
}
