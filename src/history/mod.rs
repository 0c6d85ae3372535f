//! The record of what happened: commits, what each changed, links to other systems, branches, operations, events, and
//! where each object lies. One SQLite database in WAL mode with full syncs; every fact is one transaction.
//!
//! Writers take one connection, readers another, so that nobody who reads waits for a sync; scans of tables take a third.

mod ancestry;
mod branches;
mod check;
mod checkpointer;
mod commits;
mod error;
mod labels;
mod mirror;
mod names;
mod objects;
mod operations;
mod outbox;
mod rebuild;
mod resolve;
mod retention;
mod schema;

pub use ancestry::MERGED_KEY;
pub use branches::{BranchRow, BranchState, Fork};
pub use commits::{CommitRow, Memento, NewCommit};
pub use error::HistoryError;
pub use labels::{validate_branch_name, validate_link, validate_name};
pub use mirror::MirrorContent;
pub use objects::{NewObject, Usage};
pub use operations::{Move, MovedFrom};
pub use outbox::Event;
pub use rebuild::{Recorded, Standings};
pub use retention::{KeepRules, removable};

use checkpointer::Checkpointer;
use mirror::Mirror;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Events written a second time in one step.
const MIRRORED_AT_ONCE: usize = 1000;

/// An open history database.
pub struct History {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// For what goes through whole tables, so that nobody who looks for one row waits for it.
    scanner: Mutex<Connection>,
    checkpointer: Checkpointer,
    /// The last transaction failed while it was made durable: after a crash it may be there all the same.
    unsettled: AtomicBool,
    mirror: Mirror,
    path: PathBuf,
    /// The index beside the database. The last to go: closing a file ends all locks that this process has on it (fcntl(2)), those
    /// of SQLite too, and the next stranger would then begin the index anew beneath our mappings.
    index: Option<File>,
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
        let index = open_index(path);
        let (reader, scanner) = (reading(path)?, reading(path)?);
        schema::keep_little(&scanner)?;
        let (reader, scanner) = (Mutex::new(reader), Mutex::new(scanner));
        let checkpointer = Checkpointer::start(path)?;
        let (writer, unsettled) = (Mutex::new(writer), AtomicBool::new(false));
        let (mirror, path) = (Mirror::open(path), path.to_owned());
        let history = Self { writer, reader, scanner, checkpointer, unsettled, mirror, path, index };
        history.catch_up_mirror(); // What a crash or a power cut left out.
        Ok(history)
    }

    /// Returns the index that SQLite maps beside the database. Nobody else may open it in this process, nor close it.
    pub fn index(&self) -> Option<&File> {
        self.index.as_ref()
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scanner(&self) -> MutexGuard<'_, Connection> {
        self.scanner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the pages that are kept in memory.
    pub fn rest(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in [writer, self.reader(), self.scanner()] {
            if let Err(err) = connection.execute_batch("PRAGMA shrink_memory") {
                tracing::debug!(%err, "the database keeps its pages");
            }
        }
    }

    /// Runs `work` in one transaction: all of it becomes visible and durable, or nothing.
    fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let done = transact(&mut writer, work);
        match &done {
            Ok(_) => {
                self.unsettled.store(false, Ordering::Release);
                self.mirror.follow(|seq| outbox::events_after(&writer, seq, MIRRORED_AT_ONCE));
            }
            Err(HistoryError::Sqlite(err)) if err.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) => {
                self.settle(&mut writer);
            }
            Err(_) => {} // Refused, or the disk is full: then its end was never written.
        }
        drop(writer);
        self.checkpointer.wake();
        done
    }

    /// Lets another transaction take the place of one that failed. SQLite takes that one for undone, but all of it may be in the
    /// write-ahead log, without having been synced; a crash would then bring it back, after its caller was told that it failed.
    fn settle(&self, writer: &mut Connection) {
        let settled = transact(writer, |transaction| {
            let count =
                "INSERT INTO store_meta (key, value) VALUES ('settled', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1";
            Ok(transaction.execute(count, [])?)
        });
        if let Err(err) = &settled {
            tracing::error!(%err, "a failed transaction may come back after a crash");
        }
        self.unsettled.store(settled.is_err(), Ordering::Release);
    }

    /// Says whether it is certain that what failed stays undone.
    pub fn is_settled(&self) -> bool {
        !self.unsettled.load(Ordering::Acquire)
    }

    fn catch_up_mirror(&self) {
        while self.mirror.follow(|seq| self.events_since(seq, MIRRORED_AT_ONCE)) > 0 {}
    }

    /// Says how many events the file beside the database holds that the database does not: it lost them.
    pub fn events_lost(&self) -> Result<i64, HistoryError> {
        let newest: Option<i64> = self.reader().query_row("SELECT max(seq) FROM outbox", [], |row| row.get(0))?;
        Ok((self.mirror.last_seq() - newest.unwrap_or(0)).max(0))
    }
}

fn transact<T>(
    writer: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, HistoryError>,
) -> Result<T, HistoryError> {
    let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = work(&transaction)?; // An error drops the transaction, which rolls it back.
    transaction.commit()?;
    Ok(done)
}

fn open_index(path: &Path) -> Option<File> {
    let mut index = path.as_os_str().to_owned();
    index.push("-shm");
    let opened = File::options().write(true).open(index);
    opened.inspect_err(|err| tracing::warn!(%err, "the index beside the database cannot be opened")).ok()
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
