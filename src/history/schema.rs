//! The tables, and how a connection is set up.

use super::HistoryError;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use std::time::Duration;

/// Version of the tables, kept in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 3;
/// Pages in the WAL before a writer moves them into the database itself: the checkpointer is behind.
const WAL_PAGES_MAX: i64 = 16_000;
const CACHE_KIB: i64 = 8 << 10;
/// What a connection keeps that reads whole tables, each page once.
const SCANNER_CACHE_KIB: i64 = 512;
const STATEMENTS_CACHED: usize = 64;

const TABLES: &str = "
CREATE TABLE store_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE file_blobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, size INTEGER NOT NULL,
    pack INTEGER, large TEXT, offset INTEGER NOT NULL, stored INTEGER NOT NULL, encoding TEXT NOT NULL,
    time INTEGER NOT NULL, mark INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE file_commits (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, parent TEXT, branch TEXT NOT NULL,
    root_tree TEXT NOT NULL, time INTEGER NOT NULL, message TEXT NOT NULL, name TEXT UNIQUE,
    author_uid INTEGER NOT NULL, author_pid INTEGER NOT NULL, author_command TEXT NOT NULL, kind TEXT NOT NULL,
    files_changed INTEGER NOT NULL, bytes_changed INTEGER NOT NULL, meta TEXT NOT NULL, deleted_at INTEGER, branch_id INTEGER
);
CREATE TABLE file_mementos (
    commit_id TEXT NOT NULL, path BLOB NOT NULL, change TEXT NOT NULL, from_path BLOB, object TEXT, size INTEGER,
    mode INTEGER, PRIMARY KEY (commit_id, path)
) WITHOUT ROWID;
CREATE TABLE checkpoint_file_links (
    system TEXT NOT NULL, external_id TEXT NOT NULL, commit_id TEXT NOT NULL, time INTEGER NOT NULL,
    PRIMARY KEY (system, external_id)
) WITHOUT ROWID;
CREATE INDEX links_by_commit ON checkpoint_file_links (commit_id);
CREATE TABLE branches (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, head TEXT, live_root TEXT NOT NULL,
    journal_seq INTEGER NOT NULL, forked_from TEXT, time INTEGER NOT NULL, deleted_at INTEGER
);
CREATE UNIQUE INDEX branches_by_name ON branches (name) WHERE deleted_at IS NULL;
CREATE TABLE operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, branch TEXT, time INTEGER NOT NULL,
    author_uid INTEGER NOT NULL, author_pid INTEGER NOT NULL, author_command TEXT NOT NULL,
    before_head TEXT, before_root TEXT, after_head TEXT, after_root TEXT, detail TEXT, branch_id INTEGER
);
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, payload TEXT NOT NULL, idempotency_key TEXT NOT NULL UNIQUE,
    time INTEGER NOT NULL
);
CREATE TABLE outbox_consumers (name TEXT PRIMARY KEY, acknowledged_seq INTEGER NOT NULL, time INTEGER NOT NULL) WITHOUT ROWID;
";

/// From version 2: a checkpoint may have several names.
const NAMES: &str = "
CREATE TABLE IF NOT EXISTS checkpoint_names (name TEXT PRIMARY KEY, commit_id TEXT NOT NULL, time INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS names_by_commit ON checkpoint_names (commit_id);
";

/// From version 1: a deleted branch leaves its name to others, so checkpoints and operations say which branch by number.
const FROM_1: &str = "
ALTER TABLE file_commits ADD COLUMN branch_id INTEGER;
UPDATE file_commits SET branch_id = (SELECT id FROM branches WHERE branches.name = file_commits.branch);
ALTER TABLE operations ADD COLUMN branch_id INTEGER;
UPDATE operations SET branch_id = (SELECT id FROM branches WHERE branches.name = operations.branch);
CREATE TABLE branches_2 (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, head TEXT, live_root TEXT NOT NULL,
    journal_seq INTEGER NOT NULL, forked_from TEXT, time INTEGER NOT NULL, deleted_at INTEGER
);
INSERT INTO branches_2 SELECT id, name, head, live_root, journal_seq, forked_from, time, deleted_at FROM branches;
DROP TABLE branches;
ALTER TABLE branches_2 RENAME TO branches;
CREATE UNIQUE INDEX branches_by_name ON branches (name) WHERE deleted_at IS NULL;
";

/// Makes the tables in an empty database.
pub fn create(connection: &Connection) -> Result<(), HistoryError> {
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(&format!("BEGIN;{TABLES}{NAMES}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;"))?;
    Ok(())
}

/// Brings the tables of an older version up to this one; refuses a database that is not ours or newer than we know.
pub fn bring_up_to_date(connection: &Connection) -> Result<(), HistoryError> {
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        SCHEMA_VERSION => Ok(()),
        1 | 2 => {
            tracing::info!(from = found, to = SCHEMA_VERSION, "bringing the tables up to date");
            let from_1 = if found == 1 { FROM_1 } else { "" };
            let steps = format!("BEGIN IMMEDIATE;{from_1}{NAMES}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;");
            Ok(connection.execute_batch(&steps)?)
        }
        newer if newer > SCHEMA_VERSION => Err(HistoryError::Newer { found: newer, supported: SCHEMA_VERSION }),
        other => Err(HistoryError::damaged(format!("version {other} is none of ours"))),
    }
}

/// Sets a connection up: durable commits, and nothing in the file is trusted to be well-formed.
pub fn configure(connection: &Connection) -> Result<(), HistoryError> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES_MAX)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(())
}

/// Makes a connection keep few pages in memory.
pub fn keep_little(connection: &Connection) -> Result<(), HistoryError> {
    Ok(connection.pragma_update(None, "cache_size", -SCANNER_CACHE_KIB)?)
}
