//! The record of what happened: commits, what each changed, links to other systems, branches, operations, events, and
//! where each object lies. One SQLite database in WAL mode with full syncs; every fact is one transaction.
//!
//! Writers take one connection, readers another, so that nobody who reads waits for a sync; scans of tables take a third.

mod ancestry;
mod branches;
mod checkpointer;
mod commits;
mod error;
mod labels;
mod objects;
mod operations;
mod outbox;
mod resolve;
mod retention;
mod schema;

pub use ancestry::MERGED_KEY;
pub use branches::{BranchRow, BranchState, Fork};
pub use commits::{CommitRow, Memento, NewCommit};
pub use error::HistoryError;
pub use labels::{validate_branch_name, validate_link, validate_name};
pub use objects::{NewObject, Usage};
pub use operations::{Move, MovedFrom};
pub use outbox::Event;
pub use retention::{KeepRules, removable};

use checkpointer::Checkpointer;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// An open history database.
pub struct History {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// For what goes through whole tables, so that nobody who looks for one row waits for it.
    scanner: Mutex<Connection>,
    checkpointer: Checkpointer,
}

impl History {
    /// Makes the database at `path`; nothing may be there.
    pub fn create(path: &Path) -> Result<Self, HistoryError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let writer = Connection::open_with_flags(path, flags)?;
        schema::create(&writer)?;
        Self::with_writer(path, writer)
    }

    /// Opens the database at `path`.
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let writer = Connection::open_with_flags(path, flags)?;
        schema::bring_up_to_date(&writer)?;
        Self::with_writer(path, writer)
    }

    fn with_writer(path: &Path, writer: Connection) -> Result<Self, HistoryError> {
        schema::configure(&writer)?;
        let (reader, scanner) = (Mutex::new(reading(path)?), Mutex::new(reading(path)?));
        Ok(Self { writer: Mutex::new(writer), reader, scanner, checkpointer: Checkpointer::start(path)? })
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scanner(&self) -> MutexGuard<'_, Connection> {
        self.scanner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in one transaction: all of it becomes visible and durable, or nothing.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?; // An error drops the transaction, which rolls it back.
        transaction.commit()?;
        self.checkpointer.wake();
        Ok(done)
    }

    /// Says whether the database is whole, by SQLite's own check.
    pub fn integrity(&self) -> Result<Vec<String>, HistoryError> {
        let scanner = self.scanner();
        let mut statement = scanner.prepare("PRAGMA integrity_check")?;
        let lines: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }
}

/// Opens a further connection that only reads.
fn reading(path: &Path) -> Result<Connection, HistoryError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    schema::configure(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

#[cfg(test)]
mod tests;
