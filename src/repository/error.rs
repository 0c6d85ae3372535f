//! What can go wrong in a repository.

use crate::history::HistoryError;
use crate::object::{DecodeError, ObjectId};
use crate::store::StoreError;
use crate::tree::TreeError;
use std::fmt;

/// Why the repository failed or refused.
#[derive(Debug)]
pub enum RepositoryError {
    /// Bytes could not be kept or given back.
    Store(StoreError),
    /// The record of what happened failed or refused.
    History(HistoryError),
    /// A directory cannot be read.
    Tree(TreeError),
    /// An object is not what it should be.
    Decode {
        /// The object.
        id: ObjectId,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A file failed.
    Io {
        /// What was done to which file.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else is at it.
    Busy(String),
    /// The request makes no sense.
    Invalid(String),
    /// Something else, said in words.
    Other(String),
}

impl RepositoryError {
    /// Says whether the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::History(err) => matches!(err, HistoryError::Full),
            Self::Store(err) => err.raw_os_error() == Some(libc::ENOSPC),
            Self::Tree(TreeError::Source(source)) => source.downcast_ref().is_some_and(Self::is_full),
            Self::Io { source, .. } => source.raw_os_error() == Some(libc::ENOSPC),
            _ => false,
        }
    }
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(err) => err.fmt(f),
            Self::History(err) => err.fmt(f),
            Self::Tree(err) => err.fmt(f),
            Self::Decode { id, source } => write!(f, "object {id} is damaged: {source}"),
            Self::Io { what, source } => write!(f, "{what}: {source}"),
            Self::Busy(what) | Self::Invalid(what) | Self::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RepositoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(err) => Some(err),
            Self::History(err) => Some(err),
            Self::Tree(err) => Some(err),
            Self::Decode { source, .. } => Some(source),
            Self::Io { source, .. } => Some(source),
            Self::Busy(_) | Self::Invalid(_) | Self::Other(_) => None,
        }
    }
}

impl From<StoreError> for RepositoryError {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

impl From<HistoryError> for RepositoryError {
    fn from(err: HistoryError) -> Self {
        Self::History(err)
    }
}

impl From<TreeError> for RepositoryError {
    fn from(err: TreeError) -> Self {
        Self::Tree(err)
    }
}
