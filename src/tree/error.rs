//! What can go wrong with stored directories.

use crate::object::{DecodeError, Name, ObjectId};
use std::error::Error;
use std::fmt;

/// Says why a directory cannot be read or written.
#[derive(Debug)]
pub enum TreeError {
    /// The store behind a node source failed, or the visitor of a walk did.
    Source(Box<dyn Error + Send + Sync>),
    /// Nothing is stored under this id.
    Missing {
        /// The object.
        id: ObjectId,
    },
    /// The bytes of the object are no valid encoding.
    Corrupt {
        /// The object.
        id: ObjectId,
        /// What is wrong with them.
        source: DecodeError,
    },
    /// The object is valid alone but contradicts the objects around it.
    Structure {
        /// The object.
        id: ObjectId,
        /// What does not fit.
        what: &'static str,
    },
    /// A name of a hard-linked inode that the link table of its state does not describe.
    LinkMissing {
        /// The inode.
        identity: u64,
    },
    /// The link table has something else under the name of an inode, see [`Name::of_identity`].
    LinkMismatch {
        /// The name in the link table.
        name: Name,
    },
    /// Edits were given out of order, or two for one name: a mistake of the caller.
    EditsUnsorted {
        /// The first name out of order.
        name: Name,
    },
    /// A path leads through something that is not a directory.
    NotADirectory {
        /// The thing that is none, raw bytes joined by `/`.
        path: Vec<u8>,
    },
}

impl TreeError {
    /// Wraps an error of a store or a visitor.
    pub fn source(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Source(err.into())
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(err) => write!(f, "{err}"),
            Self::Missing { id } => write!(f, "object {id} is missing"),
            Self::Corrupt { id, source } => write!(f, "object {id} is damaged: {source}"),
            Self::Structure { id, what } => write!(f, "object {id} does not fit its surroundings: {what}"),
            Self::LinkMissing { identity } => write!(f, "the link table has no inode {identity:x}"),
            Self::LinkMismatch { name } => write!(f, "the link table does not describe inode {name} under its name"),
            Self::EditsUnsorted { name } => write!(f, "edits are not sorted at {name}"),
            Self::NotADirectory { path } => write!(f, "not a directory: {}", String::from_utf8_lossy(path)),
        }
    }
}

impl Error for TreeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Source(err) => Some(err.as_ref()),
            Self::Corrupt { source, .. } => Some(source),
            _ => None,
        }
    }
}
