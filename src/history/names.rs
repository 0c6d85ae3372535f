//! The names of checkpoints. The one that was given last stands in the checkpoint's row, those from before in `checkpoint_names`.

use super::objects::id_at;
use super::{History, HistoryError};
use crate::object::{ObjectId, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};

/// Returns the id of the checkpoint that has a name.
pub(super) fn owner_of(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT id FROM file_commits WHERE name = ?1 UNION ALL SELECT commit_id FROM checkpoint_names WHERE name = ?1";
    transaction.query_row(sql, [name], |row| row.get(0)).optional()
}

/// Gives a checkpoint a name beside those that it has. Says whether it is new to it.
pub(super) fn give_name(transaction: &Transaction<'_>, id: &str, name: &str, time: Timestamp) -> Result<bool, HistoryError> {
    match owner_of(transaction, name)? {
        Some(owner) if owner != id => return Err(HistoryError::NameTaken { name: name.to_owned() }),
        Some(_) => return Ok(false),
        None => {}
    }
    transaction.execute(
        "INSERT INTO checkpoint_names (name, commit_id, time) SELECT name, id, ?2 FROM file_commits WHERE id = ?1 AND name IS NOT NULL",
        params![id, time.nanos_since_epoch()],
    )?;
    transaction.execute("UPDATE file_commits SET name = ? WHERE id = ?", [name, id])?;
    Ok(true)
}

/// Takes a name from a checkpoint. Says whether the checkpoint had it.
pub(super) fn take_name(transaction: &Transaction<'_>, id: &str, name: &str) -> Result<bool, HistoryError> {
    if transaction.execute("DELETE FROM checkpoint_names WHERE name = ? AND commit_id = ?", [name, id])? > 0 {
        return Ok(true);
    }
    let sql = "SELECT count(*) FROM file_commits WHERE name = ? AND id = ?";
    let in_row = transaction.query_row(sql, [name, id], |row| row.get::<_, i64>(0))? > 0;
    if in_row {
        take_last_name(transaction, id)?;
    }
    Ok(in_row)
}

/// Takes the name from a checkpoint that it was given last. The one from before it stands in its row then.
pub(super) fn take_last_name(transaction: &Transaction<'_>, id: &str) -> Result<(), HistoryError> {
    let sql = "SELECT name FROM checkpoint_names WHERE commit_id = ? ORDER BY time DESC, name LIMIT 1";
    let before: Option<String> = transaction.query_row(sql, [id], |row| row.get(0)).optional()?;
    transaction.execute("DELETE FROM checkpoint_names WHERE name = ?", [&before])?;
    transaction.execute("UPDATE file_commits SET name = ? WHERE id = ?", params![before, id])?;
    Ok(())
}

/// Takes all names from a checkpoint.
pub(super) fn take_names(transaction: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM checkpoint_names WHERE commit_id = ?", [id])?;
    transaction.execute("UPDATE file_commits SET name = NULL WHERE id = ?", [id])?;
    Ok(())
}

impl History {
    /// Returns the checkpoint of a name.
    pub fn named(&self, name: &str) -> Result<Option<ObjectId>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(
            "SELECT id FROM file_commits WHERE name = ?1 AND deleted_at IS NULL
             UNION ALL SELECT commit_id FROM checkpoint_names WHERE name = ?1",
        )?;
        let mut rows = statement.query([name])?;
        rows.next()?.map(|row| id_at(row, 0)).transpose()
    }

    /// Returns the names that checkpoints have beside those in their rows, with whose they are.
    pub fn further_names(&self) -> Result<Vec<(String, ObjectId)>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached("SELECT name, commit_id FROM checkpoint_names ORDER BY name")?;
        let mut rows = statement.query([])?;
        let mut names = Vec::new();
        while let Some(row) = rows.next()? {
            names.push((row.get(0)?, id_at(row, 1)?));
        }
        Ok(names)
    }

    /// Returns the names of a checkpoint, the one given last first.
    pub fn names_of(&self, id: &ObjectId) -> Result<Vec<String>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(
            "SELECT name FROM (SELECT name, 0 AS rank, 0 AS time FROM file_commits WHERE id = ?1 AND name IS NOT NULL
             UNION ALL SELECT name, 1, time FROM checkpoint_names WHERE commit_id = ?1) ORDER BY rank, time DESC, name",
        )?;
        let names = statement.query_map([id.to_hex()], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }
}
