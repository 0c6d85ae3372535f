//! What can go wrong with the record of what happened.

use std::fmt;

/// Why the history failed or refused.
#[derive(Debug)]
pub enum HistoryError {
    /// The reference names nothing.
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// There is no branch of that name.
    NoBranch {
        /// The name.
        name: String,
    },
    /// The prefix names several checkpoints.
    Ambiguous {
        /// The prefix.
        prefix: String,
    },
    /// The name belongs to another checkpoint or branch.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name, link or reference is not allowed.
    BadName {
        /// What it is, and why not.
        reason: String,
    },
    /// Something still stands on it.
    InUse {
        /// What, and who.
        what: String,
    },
    /// The database was made by a newer program.
    Newer {
        /// Version found.
        found: i64,
        /// Newest version known.
        supported: i64,
    },
    /// The database says something that cannot be.
    Damaged {
        /// What is wrong where.
        detail: String,
    },
    /// The disk is full.
    Full,
    /// SQLite failed.
    Sqlite(rusqlite::Error),
}

impl HistoryError {
    /// Makes an error about a damaged database.
    pub fn damaged(detail: impl Into<String>) -> Self {
        Self::Damaged { detail: detail.into() }
    }

    /// Makes an error about a reference that names nothing.
    pub fn not_found(reference: impl Into<String>) -> Self {
        Self::NotFound { reference: reference.into() }
    }
}

impl fmt::Display for HistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { reference } => write!(f, "{reference} names no checkpoint"),
            Self::NoBranch { name } => write!(f, "there is no branch {name}"),
            Self::Ambiguous { prefix } => write!(f, "{prefix} is the start of several ids; give more digits"),
            Self::NameTaken { name } => write!(f, "the name {name} is taken"),
            Self::BadName { reason } => f.write_str(reason),
            Self::InUse { what } => f.write_str(what),
            Self::Newer { found, supported } => {
                write!(
                    f,
                    "the database has version {found}, and this program knows versions up to {supported}; use a newer mementofs"
                )
            }
            Self::Damaged { detail } => write!(f, "the database is damaged: {detail}"),
            Self::Full => f.write_str("no space left for the database"),
            Self::Sqlite(err) => write!(f, "database: {err}"),
        }
    }
}

impl std::error::Error for HistoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite(err) => Some(err),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for HistoryError {
    fn from(err: rusqlite::Error) -> Self {
        match err.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => Self::damaged(err.to_string()),
            _ => Self::Sqlite(err),
        }
    }
}
