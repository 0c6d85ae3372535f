//! Checks the tables against themselves: SQLite's own check, and the references that no constraint keeps.

use super::commits::{COLUMNS, commit_of};
use super::mirror::{self, MirrorContent};
use super::{CommitRow, History, HistoryError};
use crate::object::ObjectId;

/// Queries for what must not be there, and the sentence about each row, with its two columns as `{0}` and `{1}`.
const REFERENCES: [(&str, &str); 13] = [
    (
        "SELECT id, parent FROM file_commits c WHERE parent IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM file_commits p WHERE p.id = c.parent)",
        "checkpoint {0} comes after {1}, which is not recorded",
    ),
    (
        "SELECT DISTINCT commit_id, '' FROM file_mementos m WHERE NOT EXISTS (SELECT 1 FROM file_commits c WHERE c.id = m.commit_id)",
        "changes are recorded for checkpoint {0}, which is not recorded itself",
    ),
    (
        "SELECT id, files_changed FROM file_commits c
          WHERE files_changed <> (SELECT count(*) FROM file_mementos m WHERE m.commit_id = c.id)
            AND (deleted_at IS NULL OR EXISTS (SELECT 1 FROM file_mementos m WHERE m.commit_id = c.id))", // Or it was purged.
        "checkpoint {0} says that it changed {1} paths, and another number is recorded",
    ),
    (
        "SELECT system || ':' || external_id, commit_id FROM checkpoint_file_links l
          WHERE NOT EXISTS (SELECT 1 FROM file_commits c WHERE c.id = l.commit_id AND c.deleted_at IS NULL)",
        "the link {0} names checkpoint {1}, which is not recorded",
    ),
    (
        "SELECT id, name FROM file_commits WHERE deleted_at IS NOT NULL AND name IS NOT NULL",
        "checkpoint {0} is deleted and still has the name {1}",
    ),
    (
        "SELECT name, commit_id FROM checkpoint_names n
          WHERE NOT EXISTS (SELECT 1 FROM file_commits c WHERE c.id = n.commit_id AND c.deleted_at IS NULL)",
        "the name {0} is one of checkpoint {1}, which is not recorded",
    ),
    (
        "SELECT name, head FROM branches b WHERE deleted_at IS NULL AND head IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM file_commits c WHERE c.id = b.head)",
        "the branch {0} stands on checkpoint {1}, which is not recorded",
    ),
    (
        "SELECT seq, before_head FROM operations o WHERE before_head IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM file_commits c WHERE c.id = o.before_head)",
        "operation {0} began at checkpoint {1}, which is not recorded",
    ),
    (
        "SELECT seq, after_head FROM operations o WHERE after_head IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM file_commits c WHERE c.id = o.after_head)",
        "operation {0} ended at checkpoint {1}, which is not recorded",
    ),
    ("SELECT seq, type FROM outbox WHERE NOT json_valid(payload)", "event {0} ({1}) holds no JSON"),
    (
        "SELECT seq, json_extract(payload, '$.commit') FROM outbox o WHERE type LIKE 'checkpoint.%' AND json_valid(payload)
           AND NOT EXISTS (SELECT 1 FROM file_commits c WHERE c.id = json_extract(o.payload, '$.commit'))",
        "event {0} is about checkpoint {1}, which is not recorded",
    ),
    (
        "SELECT id, '' FROM file_commits c WHERE NOT EXISTS (SELECT 1 FROM outbox o WHERE o.idempotency_key = 'commit:' || c.id)",
        "no event tells of checkpoint {0}",
    ),
    (
        "SELECT c.id, b.name FROM file_commits c JOIN branches b ON b.head = c.id WHERE c.deleted_at IS NOT NULL AND b.deleted_at IS NULL",
        "checkpoint {0} is deleted, and the branch {1} stands on it",
    ),
];

impl History {
    /// Checks that the database is whole, by SQLite's own check. What cannot be read is a finding too.
    pub fn integrity(&self) -> Vec<String> {
        let lines = || -> rusqlite::Result<Vec<String>> {
            let scanner = self.scanner();
            let mut statement = scanner.prepare("PRAGMA integrity_check")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        match lines() {
            Ok(lines) => lines.into_iter().filter(|line| line != "ok").collect(),
            Err(err) => vec![err.to_string()],
        }
    }

    /// Checks that what the tables refer to is there.
    pub fn broken_references(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (sql, sentence) in REFERENCES {
            if let Err(err) = self.find_broken(sql, sentence, &mut findings) {
                findings.push(err.to_string());
            }
        }
        findings
    }

    fn find_broken(&self, sql: &str, sentence: &str, findings: &mut Vec<String>) -> rusqlite::Result<()> {
        let scanner = self.scanner();
        let mut statement = scanner.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = |column: usize| -> rusqlite::Result<String> {
                Ok(match row.get_ref(column)? {
                    rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    _ => "-".to_owned(),
                })
            };
            findings.push(sentence.replace("{0}", &text(0)?).replace("{1}", &text(1)?));
        }
        Ok(())
    }

    /// Hands every checkpoint to `visit`, oldest first, and whether it is deleted; or why its row says nothing.
    pub fn each_commit(&self, mut visit: impl FnMut(Result<(CommitRow, bool), HistoryError>)) -> Result<(), HistoryError> {
        let mut after = i64::MIN;
        loop {
            // A few at a time: whoever visits asks other questions meanwhile.
            let rows = self.commits_after(after)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = *last;
            rows.into_iter().for_each(|(_, row)| visit(row));
        }
    }

    #[allow(clippy::type_complexity)]
    fn commits_after(&self, seq: i64) -> Result<Vec<(i64, Result<(CommitRow, bool), HistoryError>)>, HistoryError> {
        let scanner = self.scanner();
        let sql = format!("SELECT {COLUMNS}, deleted_at IS NOT NULL FROM file_commits WHERE seq > ? ORDER BY seq LIMIT 1000");
        let mut statement = scanner.prepare_cached(&sql)?;
        let mut rows = statement.query([seq])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let commit = commit_of(row).and_then(|commit| Ok((commit, row.get::<_, bool>(15)?)));
            found.push((row.get(0)?, commit));
        }
        Ok(found)
    }

    /// Returns what a checkpoint is recorded to have done to each path, sorted by path.
    #[allow(clippy::type_complexity)]
    pub fn recorded_changes(
        &self,
        id: &ObjectId,
    ) -> Result<Vec<(Vec<u8>, String, Option<Vec<u8>>, Option<String>, Option<i64>, Option<i64>)>, HistoryError> {
        let scanner = self.scanner();
        let mut statement = scanner.prepare_cached(
            "SELECT CAST(path AS BLOB), change, CAST(from_path AS BLOB), object, size, mode FROM file_mementos WHERE commit_id = ?",
        )?;
        let rows = statement
            .query_map([id.to_hex()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)))?;
        let mut changes: Vec<_> = rows.collect::<Result<_, _>>()?;
        changes.sort();
        Ok(changes)
    }

    /// Reads the events that are written beside the database.
    pub fn mirrored(&self) -> std::io::Result<MirrorContent> {
        mirror::read_beside(&self.path)
    }

    /// Writes the events beside the database anew.
    pub fn rewrite_mirror(&self) -> Result<(), HistoryError> {
        let events = self.events_since(0, usize::MAX >> 1)?;
        mirror::rewrite(&self.path, &events).map_err(|err| HistoryError::damaged(format!("events.log cannot be written: {err}")))
    }

    /// Returns the first identity that no file was given yet.
    pub fn next_identity(&self) -> Result<u64, HistoryError> {
        let sql = "SELECT coalesce((SELECT value FROM store_meta WHERE key = 'next_identity'), 2)";
        Ok(self.reader().query_row(sql, [], |row| row.get::<_, i64>(0))?.max(0) as u64)
    }
}
