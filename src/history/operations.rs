//! Each movement of a branch, with what was before and after, so that it can be undone or explained.

use super::branches::{BranchState, move_branch};
use super::objects::{NewObject, id_at, id_or_none_at, insert_objects};
use super::outbox::insert_event;
use super::{History, HistoryError};
use crate::object::{Author, ObjectId, Timestamp};
use rusqlite::{Connection, Transaction, params};
use serde_json::{Value, json};

/// A state of a branch: its newest checkpoint and its sealed root.
type Standing = (Option<ObjectId>, Option<ObjectId>);

/// An operation to be recorded.
pub(super) struct NewOperation<'a> {
    pub kind: &'a str,
    /// The branch it belongs to, by number and name; none when it is about the store.
    pub branch: Option<(i64, &'a str)>,
    pub before: Standing,
    pub after: Standing,
    pub detail: Option<&'a Value>,
}

/// A restore, an undo or an import to be recorded.
pub struct Move<'a> {
    /// `restore`, `undo` or `import`.
    pub operation: &'a str,
    /// The branch that moves.
    pub branch_id: i64,
    /// Its name.
    pub branch: &'a str,
    /// Where it stood.
    pub before: (Option<ObjectId>, ObjectId),
    /// Where it goes.
    pub after: BranchState,
    /// The checkpoint that what comes back is taken from.
    pub source: Option<ObjectId>,
    /// Who asked.
    pub author: &'a Author,
    /// More about it.
    pub detail: &'a Value,
}

/// Where a branch stood before its last movement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedFrom {
    /// What moved it.
    pub operation: String,
    /// Its newest checkpoint before; when that was deleted since, the nearest one before it that was not.
    pub head: Option<ObjectId>,
    /// Its state before.
    pub root: ObjectId,
    /// More about it.
    pub detail: Value,
}

/// The operations that an undo takes back.
const MOVEMENTS: &str = "('restore', 'undo', 'import', 'merge', 'branch.delete')";

pub(super) fn insert_operation(
    transaction: &Transaction<'_>,
    operation: &NewOperation<'_>,
    author: &Author,
    time: Timestamp,
) -> Result<i64, HistoryError> {
    let hex = |id: Option<ObjectId>| id.map(|id| id.to_hex());
    transaction
        .prepare_cached(
            "INSERT INTO operations (type, branch, time, author_uid, author_pid, author_command, before_head, before_root,
             after_head, after_root, detail, branch_id) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        )?
        .execute(params![
            operation.kind,
            operation.branch.map(|(_, name)| name),
            time.nanos_since_epoch(),
            author.uid,
            author.pid,
            author.command,
            hex(operation.before.0),
            hex(operation.before.1),
            hex(operation.after.0),
            hex(operation.after.1),
            operation.detail.map(Value::to_string),
            operation.branch.map(|(id, _)| id)
        ])?;
    Ok(transaction.last_insert_rowid())
}

/// Returns a checkpoint, or the nearest one before it that is not deleted.
pub(super) fn living(connection: &Connection, id: &ObjectId) -> Result<Option<ObjectId>, HistoryError> {
    let mut statement = connection.prepare_cached(
        "WITH RECURSIVE line(id, parent, deleted_at) AS (
             SELECT id, parent, deleted_at FROM file_commits WHERE id = ?1
             UNION ALL SELECT older.id, older.parent, older.deleted_at
             FROM line JOIN file_commits AS older ON older.id = line.parent WHERE line.deleted_at IS NOT NULL
         ) SELECT id FROM line WHERE deleted_at IS NULL",
    )?;
    let mut rows = statement.query([id.to_hex()])?;
    rows.next()?.map(|row| id_at(row, 0)).transpose()
}

/// Refuses a checkpoint that was deleted meanwhile: gc may have taken what it holds.
pub(super) fn check_living(connection: &Connection, id: &ObjectId) -> Result<(), HistoryError> {
    if living(connection, id)? == Some(*id) { Ok(()) } else { Err(HistoryError::not_found(id.to_hex())) }
}

fn record_move(transaction: &Transaction<'_>, moved: &Move<'_>, time: Timestamp) -> Result<(), HistoryError> {
    moved.source.iter().chain(&moved.after.head).try_for_each(|id| check_living(transaction, id))?;
    move_branch(transaction, moved.branch_id, &moved.after)?;
    let operation = NewOperation {
        kind: moved.operation,
        branch: Some((moved.branch_id, moved.branch)),
        before: (moved.before.0, Some(moved.before.1)),
        after: (moved.after.head, Some(moved.after.live_root)),
        detail: Some(moved.detail),
    };
    let seq = insert_operation(transaction, &operation, moved.author, time)?;
    let payload = json!({
        "branch": moved.branch,
        "before": { "commit": moved.before.0.map(|id| id.to_hex()), "root": moved.before.1.to_hex() },
        "after": { "commit": moved.after.head.map(|id| id.to_hex()), "root": moved.after.live_root.to_hex() },
        "detail": moved.detail,
    });
    insert_event(transaction, &format!("{}.done", moved.operation), &payload, &format!("operation:{seq}"), time)
}

impl History {
    /// Refuses a checkpoint that was deleted.
    pub fn check_kept(&self, id: &ObjectId) -> Result<(), HistoryError> {
        check_living(&self.reader(), id)
    }

    /// Records that branches moved: each move, its operation and its event become visible together, all of them or none.
    ///
    /// Refuses when a checkpoint that one of them needs was deleted meanwhile.
    pub fn record_moves(&self, moves: &[Move<'_>], objects: &[NewObject]) -> Result<(), HistoryError> {
        let time = Timestamp::now();
        self.write(|transaction| {
            insert_objects(transaction, objects, time)?;
            moves.iter().try_for_each(|moved| record_move(transaction, moved, time))
        })
    }

    /// Records a run of gc.
    pub fn record_gc(&self, report: &Value, author: &Author) -> Result<(), HistoryError> {
        let time = Timestamp::now();
        self.write(|transaction| {
            let nothing = (None, None);
            let operation = NewOperation { kind: "gc", branch: None, before: nothing, after: nothing, detail: Some(report) };
            let seq = insert_operation(transaction, &operation, author, time)?;
            insert_event(transaction, "gc.done", report, &format!("operation:{seq}"), time)
        })
    }

    /// Says where a branch stood before its last restore, undo, import or merge.
    pub fn last_movement(&self, branch_id: i64) -> Result<Option<MovedFrom>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(&format!(
            "SELECT type, before_head, before_root, detail FROM operations WHERE branch_id = ? AND type IN {MOVEMENTS}
             ORDER BY seq DESC LIMIT 1"
        ))?;
        let mut rows = statement.query([branch_id])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let root = id_or_none_at(row, 2)?.ok_or_else(|| HistoryError::damaged("a movement from nowhere"))?;
        let detail: Option<String> = row.get(3)?;
        let detail = detail.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let head = id_or_none_at(row, 1)?;
        let head = head.map(|id| living(&reader, &id)).transpose()?.flatten(); // A branch stands on nothing that is deleted.
        Ok(Some(MovedFrom { operation: row.get(0)?, head, root, detail }))
    }

    /// Returns every state that must be kept: of branches, of checkpoints that are not deleted (or were deleted after
    /// `cutoff`), and of operations that are recent or the last of their branch.
    pub fn kept_roots(&self, cutoff: Timestamp) -> Result<Vec<ObjectId>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare(&format!(
            "SELECT live_root FROM branches WHERE deleted_at IS NULL OR deleted_at > ?1
             UNION SELECT root_tree FROM file_commits WHERE deleted_at IS NULL OR deleted_at > ?1
             UNION SELECT before_root FROM operations WHERE before_root IS NOT NULL AND type IN {MOVEMENTS}
               AND (time > ?1 OR seq IN (SELECT max(seq) FROM operations WHERE type IN {MOVEMENTS} GROUP BY branch_id))
             UNION SELECT after_root FROM operations WHERE after_root IS NOT NULL AND type IN {MOVEMENTS}
               AND (time > ?1 OR seq IN (SELECT max(seq) FROM operations WHERE type IN {MOVEMENTS} GROUP BY branch_id))"
        ))?;
        let mut rows = statement.query([cutoff.nanos_since_epoch()])?;
        let mut roots = Vec::new();
        while let Some(row) = rows.next()? {
            roots.push(super::objects::id_at(row, 0)?);
        }
        Ok(roots)
    }

    /// Returns the ids of all commit records, tombstones too: the chain stays verifiable.
    pub fn commit_ids(&self) -> Result<Vec<ObjectId>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached("SELECT id FROM file_commits ORDER BY seq")?;
        let mut rows = statement.query([])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            ids.push(super::objects::id_at(row, 0)?);
        }
        Ok(ids)
    }

    /// Returns counters, by name.
    pub fn counters(&self) -> Result<Vec<(&'static str, i64)>, HistoryError> {
        const COUNTS: [(&str, &str); 5] = [
            ("checkpoints", "SELECT count(*) FROM file_commits WHERE deleted_at IS NULL"),
            ("checkpoints_deleted", "SELECT count(*) FROM file_commits WHERE deleted_at IS NOT NULL"),
            ("branches", "SELECT count(*) FROM branches WHERE deleted_at IS NULL"),
            ("links", "SELECT count(*) FROM checkpoint_file_links"),
            ("events", "SELECT count(*) FROM outbox"),
        ];
        let scanner = self.scanner(); // Each reads a whole table.
        let mut counters = Vec::new();
        for (name, sql) in COUNTS {
            counters.push((name, scanner.prepare_cached(sql)?.query_row([], |row| row.get(0))?));
        }
        Ok(counters)
    }
}
