//! What can go wrong with stored bytes.

use crate::object::ObjectId;
use std::path::PathBuf;
use std::{fmt, io};

/// Why bytes could not be kept or given back.
#[derive(Debug)]
pub enum StoreError {
    /// No object of this id is stored.
    Missing {
        /// The object.
        id: ObjectId,
    },
    /// The stored bytes are not those that were stored.
    Damaged {
        /// The object.
        id: ObjectId,
        /// What is wrong.
        detail: String,
    },
    /// A pack is not as packs are.
    Pack {
        /// Its number.
        number: u32,
        /// What is wrong.
        detail: String,
    },
    /// A large object is not as they are.
    Large {
        /// Its name.
        id: ObjectId,
        /// What is wrong.
        detail: String,
    },
    /// A file of the store failed.
    Io {
        /// What was done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory cannot be used as a store.
    Refused {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Another process has the store open.
    Busy {
        /// The store.
        path: PathBuf,
    },
}

impl StoreError {
    /// Makes an error about a damaged object.
    pub fn damaged(id: ObjectId, detail: impl Into<String>) -> Self {
        Self::Damaged { id, detail: detail.into() }
    }

    /// Returns a mapper that adds what was done to which file.
    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.into(), source }
    }

    /// Returns the system's number for the error, if a file failed.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { id } => write!(f, "object {id} is missing from the store"),
            Self::Damaged { id, detail } => write!(f, "object {id} is damaged: {detail}"),
            Self::Pack { number, detail } => write!(f, "pack {number} {detail}"),
            Self::Large { id, detail } => write!(f, "objects/{id} {detail}"),
            Self::Io { what, path, source } => write!(f, "{what} {}: {source}", path.display()),
            Self::Refused { path, reason } => write!(f, "{} cannot be used as a store: {reason}", path.display()),
            Self::Busy { path } => write!(f, "the store {} is in use by another process", path.display()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
