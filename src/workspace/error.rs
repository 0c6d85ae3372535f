//! What can go wrong with a file operation or a command.

use crate::store::StoreError;
use crate::tree::TreeError;
use std::{fmt, io};

/// Why the workspace refused or failed. `fuse` turns each into the errno of the manual pages.
#[derive(Debug)]
pub enum WorkspaceError {
    /// No such file, directory, checkpoint or path.
    NotFound(String),
    /// The name is taken.
    Exists(String),
    /// A directory was expected.
    NotDirectory,
    /// Something other than a directory was expected.
    IsDirectory,
    /// The directory still has entries.
    NotEmpty,
    /// The arguments make no sense together.
    Invalid(String),
    /// The operation is not permitted on this kind of file.
    NotPermitted,
    /// The name is longer than 255 bytes, or a path longer than its limit.
    NameTooLong,
    /// A file would exceed the largest size.
    FileTooLarge,
    /// No such extended attribute, or no data behind the offset.
    NoData(&'static str),
    /// An extended attribute is too large.
    TooLarge,
    /// The file has as many names as a file can have.
    TooManyLinks,
    /// The file system does not do this.
    Unsupported,
    /// A prefix names several checkpoints.
    Ambiguous(String),
    /// The checkpoint expected by the caller is not the newest any more.
    Stale(String),
    /// Both sides of a merge changed the same, and the caller does not want that.
    Conflict(String),
    /// Somebody else is at it.
    Busy(String),
    /// The workspace only reads: a failure made it stop changing things.
    ReadOnly,
    /// The offset cannot be found (lseek(2) beyond the end).
    NoSuchOffset,
    /// The journal or a staging file failed.
    Io {
        /// The thing concerned, for people.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The object store failed.
    Store(StoreError),
    /// A directory of the store cannot be read.
    Tree(TreeError),
    /// The repository failed.
    Repository(crate::repository::RepositoryError),
}

impl WorkspaceError {
    /// Returns a mapper that adds `what` failed to an I/O error.
    pub fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// Says whether too many files are open.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)))
    }

    /// Says whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.raw_os_error() == Some(libc::ENOSPC),
            Self::Store(err) => err.raw_os_error() == Some(libc::ENOSPC),
            Self::Tree(TreeError::Source(source)) => {
                source.downcast_ref().is_some_and(crate::repository::RepositoryError::is_full)
            }
            Self::Repository(err) => err.is_full(),
            _ => false,
        }
    }
}

impl fmt::Display for WorkspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(what) => write!(f, "{what} does not exist"),
            Self::Exists(what) => write!(f, "{what} exists already"),
            Self::NotDirectory => f.write_str("not a directory"),
            Self::IsDirectory => f.write_str("is a directory"),
            Self::NotEmpty => f.write_str("directory is not empty"),
            Self::Invalid(why) => f.write_str(why),
            Self::NotPermitted => f.write_str("operation not permitted on this kind of file"),
            Self::NameTooLong => f.write_str("name is longer than 255 bytes"),
            Self::FileTooLarge => f.write_str("file would be too large"),
            Self::NoData(what) => write!(f, "no such {what}"),
            Self::TooLarge => f.write_str("extended attributes are too large"),
            Self::TooManyLinks => f.write_str("too many links"),
            Self::Unsupported => f.write_str("not supported"),
            Self::Ambiguous(prefix) => write!(f, "{prefix} names more than one checkpoint"),
            Self::Stale(what) => f.write_str(what),
            Self::Conflict(what) | Self::Busy(what) => f.write_str(what),
            Self::ReadOnly => f.write_str("the workspace is read-only after a failure; see the log, then mount again"),
            Self::NoSuchOffset => f.write_str("no data or hole behind the offset"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Store(err) => err.fmt(f),
            Self::Tree(err) => err.fmt(f),
            Self::Repository(err) => err.fmt(f),
        }
    }
}

impl std::error::Error for WorkspaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Store(err) => Some(err),
            Self::Tree(err) => Some(err),
            Self::Repository(err) => Some(err),
            _ => None,
        }
    }
}

impl From<StoreError> for WorkspaceError {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

impl From<TreeError> for WorkspaceError {
    fn from(err: TreeError) -> Self {
        Self::Tree(err)
    }
}

impl From<crate::repository::RepositoryError> for WorkspaceError {
    fn from(err: crate::repository::RepositoryError) -> Self {
        Self::Repository(err)
    }
}

impl From<crate::history::HistoryError> for WorkspaceError {
    fn from(err: crate::history::HistoryError) -> Self {
        Self::Repository(err.into())
    }
}

impl From<crate::object::NameError> for WorkspaceError {
    fn from(err: crate::object::NameError) -> Self {
        match err {
            crate::object::NameError::TooLong => Self::NameTooLong,
            crate::object::NameError::Forbidden => Self::Invalid(err.to_string()),
        }
    }
}

impl From<io::Error> for WorkspaceError {
    fn from(source: io::Error) -> Self {
        Self::Io { what: "journal", source }
    }
}
