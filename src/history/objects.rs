//! Where each object lies.

use super::{History, HistoryError};
use crate::object::{Container, Encoding, Location, ObjectId, ObjectKind, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use std::collections::HashMap;

/// An object that a transaction names for the first time.
pub type NewObject = (ObjectId, ObjectKind, Location);

/// What the objects in one file amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of objects.
    pub objects: u64,
    /// Their stored length.
    pub stored_bytes: u64,
}

const COLUMNS: &str = "kind, size, pack, large, offset, stored, encoding";

/// Reads an id from a column.
pub(super) fn id_at(row: &Row<'_>, column: usize) -> Result<ObjectId, HistoryError> {
    parse_id(&row.get::<_, String>(column)?)
}

/// Reads an id that may be absent from a column.
pub(super) fn id_or_none_at(row: &Row<'_>, column: usize) -> Result<Option<ObjectId>, HistoryError> {
    row.get::<_, Option<String>>(column)?.as_deref().map(parse_id).transpose()
}

fn parse_id(text: &str) -> Result<ObjectId, HistoryError> {
    text.parse().map_err(|_| HistoryError::damaged(format!("{text:?} is not an id")))
}

fn location_of(row: &Row<'_>, first: usize) -> Result<(ObjectKind, Location), HistoryError> {
    let kind: String = row.get(first)?;
    let kind = ObjectKind::from_word(&kind).ok_or_else(|| HistoryError::damaged(format!("object kind {kind:?}")))?;
    let container = match (row.get::<_, Option<u32>>(first + 2)?, id_or_none_at(row, first + 3)?) {
        (Some(pack), None) => Container::Pack(pack),
        (None, Some(large)) => Container::Large(large),
        _ => return Err(HistoryError::damaged("an object lies in no file, or in two")),
    };
    let encoding = match row.get::<_, String>(first + 6)?.as_str() {
        "raw" => Encoding::Raw,
        "zstd" => Encoding::Zstd,
        other => return Err(HistoryError::damaged(format!("encoding {other:?}"))),
    };
    let number = |column: usize| -> Result<u64, HistoryError> {
        u64::try_from(row.get::<_, i64>(column)?).map_err(|_| HistoryError::damaged("a negative length"))
    };
    let (size_bytes, offset, stored_bytes) = (number(first + 1)?, number(first + 4)?, number(first + 5)?);
    Ok((kind, Location { container, offset, stored_bytes, size_bytes, encoding }))
}

pub(super) fn columns_of(location: &Location) -> (Option<u32>, Option<String>, &'static str) {
    let encoding = match location.encoding {
        Encoding::Raw => "raw",
        Encoding::Zstd => "zstd",
    };
    match location.container {
        Container::Pack(number) => (Some(number), None, encoding),
        Container::Large(id) => (None, Some(id.to_hex()), encoding),
    }
}

/// Names objects in a transaction. One that is named already stays where it is.
pub(super) fn insert_objects(transaction: &Transaction<'_>, objects: &[NewObject], time: Timestamp) -> Result<(), HistoryError> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO file_blobs (id, kind, size, pack, large, offset, stored, encoding, time) VALUES (?,?,?,?,?,?,?,?,?)",
    )?;
    let mut sorted: Vec<&NewObject> = objects.iter().collect();
    sorted.sort_unstable_by_key(|(id, ..)| *id); // Neighbours in the tree are written together.
    for (id, kind, location) in sorted {
        let (pack, large, encoding) = columns_of(location);
        insert.execute(params![
            id.to_hex(),
            kind.as_str(),
            location.size_bytes as i64,
            pack,
            large,
            location.offset as i64,
            location.stored_bytes as i64,
            encoding,
            time.nanos_since_epoch()
        ])?;
    }
    Ok(())
}

/// Counts that content was to be stored which is stored already.
pub(super) fn count_reuse(transaction: &Transaction<'_>, reused: &[ObjectId]) -> Result<(), HistoryError> {
    let mut update = transaction.prepare_cached("UPDATE file_blobs SET mark = mark + 1 WHERE id = ?")?;
    for id in reused {
        update.execute([id.to_hex()])?;
    }
    Ok(())
}

impl History {
    /// Says where an object lies.
    pub fn locate(&self, id: &ObjectId) -> Result<Option<(ObjectKind, Location)>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(&format!("SELECT {COLUMNS} FROM file_blobs WHERE id = ?"))?;
        let mut rows = statement.query([id.to_hex()])?;
        rows.next()?.map(|row| location_of(row, 0)).transpose()
    }

    /// Calls `visit` with every object, its place, and when it was added.
    pub fn each_object(&self, mut visit: impl FnMut(ObjectId, ObjectKind, Location, Timestamp)) -> Result<(), HistoryError> {
        let scanner = self.scanner();
        let mut statement = scanner.prepare(&format!("SELECT id, time, {COLUMNS} FROM file_blobs"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, location) = location_of(row, 2)?;
            visit(id_at(row, 0)?, kind, location, Timestamp::from_nanos(row.get(1)?));
        }
        Ok(())
    }

    /// Returns what the named objects amount to, file by file.
    pub fn usage(&self) -> Result<HashMap<Container, Usage>, HistoryError> {
        let mut usage: HashMap<Container, Usage> = HashMap::new();
        self.each_object(|_, _, location, _| {
            let used = usage.entry(location.container).or_default();
            used.objects += 1;
            used.stored_bytes += location.stored_bytes;
        })?;
        Ok(usage)
    }

    /// Records that objects were moved; one that is elsewhere by now stays as it is.
    pub fn relocate(&self, moved: &[(ObjectId, Location, Location)]) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let mut update = transaction.prepare_cached(
                "UPDATE file_blobs SET pack = ?, large = ?, offset = ?, stored = ?, encoding = ? WHERE id = ? AND pack IS ? AND large IS ? AND offset = ?",
            )?;
            for (id, old, new) in moved {
                let (pack, large, encoding) = columns_of(new);
                let (old_pack, old_large, _) = columns_of(old);
                update.execute(params![
                    pack,
                    large,
                    new.offset as i64,
                    new.stored_bytes as i64,
                    encoding,
                    id.to_hex(),
                    old_pack,
                    old_large,
                    old.offset as i64
                ])?;
            }
            Ok(())
        })
    }

    /// Takes objects out of the index: nothing names them.
    pub fn remove_objects(&self, ids: &[ObjectId]) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let mut delete = transaction.prepare_cached("DELETE FROM file_blobs WHERE id = ?")?;
            for id in ids {
                delete.execute([id.to_hex()])?;
            }
            Ok(())
        })
    }

    /// Returns number, length and stored length of all objects.
    pub fn object_totals(&self) -> Result<(u64, u64, u64), HistoryError> {
        let reader = self.scanner();
        let totals =
            reader.query_row("SELECT count(*), coalesce(sum(size), 0), coalesce(sum(stored), 0) FROM file_blobs", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })?;
        Ok((totals.0 as u64, totals.1 as u64, totals.2 as u64))
    }

    /// Gives the pages that deletions left back to the file system.
    pub fn shrink(&self) -> Result<(), HistoryError> {
        let writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writer.execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")?;
        Ok(())
    }

    /// Forgets which paths deleted checkpoints changed, and writes the database anew, so that no page holds a deleted row.
    pub fn purge(&self) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let deleted = "SELECT id FROM file_commits WHERE deleted_at IS NOT NULL";
            transaction.execute(&format!("DELETE FROM file_mementos WHERE commit_id IN ({deleted})"), [])?;
            Ok(())
        })?;
        let writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writer.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
        Ok(())
    }

    /// Takes `count` identities for new files that nobody else in the store will get, and returns the first.
    pub fn take_identities(&self, count: u64) -> Result<u64, HistoryError> {
        const KEY: &str = "next_identity";
        /// 1 is the top directory of every branch.
        const FIRST: i64 = 2;
        self.write(|transaction| {
            let found = transaction.query_row("SELECT value FROM store_meta WHERE key = ?", [KEY], |row| row.get::<_, i64>(0));
            let next = found.optional()?.unwrap_or(FIRST);
            let after = next.checked_add(count as i64).ok_or_else(|| HistoryError::damaged("identities ran out"))?;
            transaction.execute("INSERT OR REPLACE INTO store_meta (key, value) VALUES (?, ?)", params![KEY, after])?;
            Ok(next as u64)
        })
    }
}
