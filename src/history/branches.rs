//! Where each branch stands.

use super::labels::validate_branch_name;
use super::objects::{NewObject, id_at, id_or_none_at, insert_objects};
use super::operations::{NewOperation, check_living, insert_operation, living};
use super::outbox::insert_event;
use super::{History, HistoryError};
use crate::object::{Author, ObjectId, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::json;

/// A branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchRow {
    /// Its number; journal and staging directories are named by it.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its newest checkpoint.
    pub head: Option<ObjectId>,
    /// The state of its last seal.
    pub live_root: ObjectId,
    /// The first journal segment to replay over that.
    pub journal_seq: u64,
}

/// Where a transaction moves a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchState {
    /// Its newest checkpoint.
    pub head: Option<ObjectId>,
    /// Its sealed state.
    pub live_root: ObjectId,
    /// The first journal segment to replay over that.
    pub journal_seq: u64,
}

/// A fork to be recorded.
pub struct Fork<'a> {
    /// Name of the new branch.
    pub name: &'a str,
    /// Where it begins.
    pub state: BranchState,
    /// The branch on which somebody asked for it, by number and name.
    pub from: (i64, &'a str),
    /// Who asked.
    pub author: &'a Author,
    /// Objects to name in the same transaction.
    pub objects: &'a [NewObject],
}

const COLUMNS: &str = "id, name, head, live_root, journal_seq";

fn branch_of(row: &Row<'_>) -> Result<BranchRow, HistoryError> {
    Ok(BranchRow {
        id: row.get(0)?,
        name: row.get(1)?,
        head: id_or_none_at(row, 2)?,
        live_root: id_at(row, 3)?,
        journal_seq: u64::try_from(row.get::<_, i64>(4)?).map_err(|_| HistoryError::damaged("a negative segment"))?,
    })
}

pub(super) fn move_branch(transaction: &Transaction<'_>, branch_id: i64, state: &BranchState) -> Result<(), HistoryError> {
    let moved = transaction
        .prepare_cached("UPDATE branches SET head = ?, live_root = ?, journal_seq = ? WHERE id = ?")?
        .execute(params![state.head.map(|id| id.to_hex()), state.live_root.to_hex(), state.journal_seq as i64, branch_id])?;
    if moved == 1 { Ok(()) } else { Err(HistoryError::not_found(format!("branch {branch_id}"))) }
}

fn check_free(transaction: &Transaction<'_>, name: &str) -> Result<(), HistoryError> {
    let taken =
        transaction.query_row("SELECT 1 FROM branches WHERE name = ? AND deleted_at IS NULL", [name], |_| Ok(())).optional()?;
    if taken.is_some() { Err(HistoryError::NameTaken { name: name.to_owned() }) } else { Ok(()) }
}

impl History {
    /// Finds a branch by name.
    pub fn branch(&self, name: &str) -> Result<BranchRow, HistoryError> {
        let reader = self.reader();
        let sql = format!("SELECT {COLUMNS} FROM branches WHERE name = ? AND deleted_at IS NULL");
        let mut statement = reader.prepare_cached(&sql)?;
        let mut rows = statement.query([name])?;
        let row = rows.next()?.ok_or_else(|| HistoryError::NoBranch { name: name.to_owned() })?;
        branch_of(row)
    }

    /// Finds a branch by number, a deleted one too.
    pub fn branch_by_id(&self, id: i64) -> Result<BranchRow, HistoryError> {
        self.numbered_branch(id, "id = ?")
    }

    /// Finds a branch by number that is not deleted.
    pub fn living_branch(&self, id: i64) -> Result<BranchRow, HistoryError> {
        self.numbered_branch(id, "id = ? AND deleted_at IS NULL")
    }

    fn numbered_branch(&self, id: i64, condition: &str) -> Result<BranchRow, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(&format!("SELECT {COLUMNS} FROM branches WHERE {condition}"))?;
        let mut rows = statement.query([id])?;
        branch_of(rows.next()?.ok_or_else(|| HistoryError::NoBranch { name: format!("number {id}") })?)
    }

    /// Returns every branch.
    pub fn branches(&self) -> Result<Vec<BranchRow>, HistoryError> {
        let reader = self.reader();
        let sql = format!("SELECT {COLUMNS} FROM branches WHERE deleted_at IS NULL ORDER BY name");
        let mut statement = reader.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut branches = Vec::new();
        while let Some(row) = rows.next()? {
            branches.push(branch_of(row)?);
        }
        Ok(branches)
    }

    /// Returns the numbers of the deleted branches.
    pub fn deleted_branches(&self) -> Result<Vec<i64>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached("SELECT id FROM branches WHERE deleted_at IS NOT NULL")?;
        let ids = statement.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// Makes a branch.
    pub fn create_branch(
        &self,
        name: &str,
        state: &BranchState,
        objects: &[NewObject],
        time: Timestamp,
    ) -> Result<(), HistoryError> {
        self.write(|transaction| {
            insert_objects(transaction, objects, time)?;
            transaction.execute(
                "INSERT INTO branches (name, head, live_root, journal_seq, time) VALUES (?, ?, ?, ?, ?)",
                params![
                    name,
                    state.head.map(|id| id.to_hex()),
                    state.live_root.to_hex(),
                    state.journal_seq as i64,
                    time.nanos_since_epoch()
                ],
            )?;
            Ok(())
        })
    }

    /// Records a fork: the branch, the operation and the event become visible together. Returns the new branch.
    pub fn record_fork(&self, fork: &Fork<'_>) -> Result<BranchRow, HistoryError> {
        validate_branch_name(fork.name)?;
        let time = Timestamp::now();
        let head = fork.state.head.map(|id| id.to_hex());
        let id = self.write(|transaction| {
            check_free(transaction, fork.name)?;
            fork.state.head.iter().try_for_each(|id| check_living(transaction, id))?;
            insert_objects(transaction, fork.objects, time)?;
            transaction
                .prepare_cached(
                    "INSERT INTO branches (name, head, live_root, journal_seq, forked_from, time) VALUES (?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    fork.name,
                    head,
                    fork.state.live_root.to_hex(),
                    fork.state.journal_seq as i64,
                    head,
                    time.nanos_since_epoch()
                ])?;
            let id = transaction.last_insert_rowid();
            let standing = (fork.state.head, Some(fork.state.live_root));
            let detail = json!({ "branch": fork.name, "branch_id": id });
            let operation = NewOperation {
                kind: "branch.fork",
                branch: Some(fork.from),
                before: (None, None),
                after: standing,
                detail: Some(&detail),
            };
            insert_operation(transaction, &operation, fork.author, time)?;
            let payload = json!({ "branch": fork.name, "from": fork.from.1, "commit": head });
            insert_event(transaction, "branch.created", &payload, &format!("branch:{id}"), time)?;
            Ok(id)
        })?;
        let BranchState { head, live_root, journal_seq } = fork.state;
        Ok(BranchRow { id, name: fork.name.to_owned(), head, live_root, journal_seq })
    }

    /// Gives a branch another name.
    pub fn rename_branch(&self, branch: &BranchRow, name: &str, author: &Author) -> Result<(), HistoryError> {
        validate_branch_name(name)?;
        let time = Timestamp::now();
        self.write(|transaction| {
            check_free(transaction, name)?;
            transaction.execute("UPDATE branches SET name = ? WHERE id = ?", params![name, branch.id])?;
            let detail = json!({ "from": branch.name, "to": name });
            let standing = (branch.head, None);
            let operation = NewOperation {
                kind: "branch.rename",
                branch: Some((branch.id, name)),
                before: standing,
                after: standing,
                detail: Some(&detail),
            };
            let seq = insert_operation(transaction, &operation, author, time)?;
            insert_event(transaction, "branch.renamed", &detail, &format!("operation:{seq}"), time)
        })
    }

    /// Deletes a branch whose every change is sealed. Its row stays, so that [`Self::revive_branch`] can bring it back.
    /// The deletion is an operation of the branch `on`, on which somebody asked for it.
    pub fn delete_branch(&self, branch: &BranchRow, on: (i64, &str), author: &Author) -> Result<(), HistoryError> {
        let time = Timestamp::now();
        self.write(|transaction| {
            let others: i64 = transaction.query_row(
                "SELECT count(*) FROM branches WHERE deleted_at IS NULL AND id <> ?",
                [branch.id],
                |row| row.get(0),
            )?;
            if others == 0 {
                return Err(HistoryError::InUse { what: format!("{} is the only branch", branch.name) });
            }
            let deleted = transaction.execute(
                "UPDATE branches SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL",
                params![time.nanos_since_epoch(), branch.id],
            )?;
            if deleted == 0 {
                return Err(HistoryError::NoBranch { name: branch.name.clone() });
            }
            let detail = json!({ "branch": branch.name, "branch_id": branch.id });
            let standing = (branch.head, Some(branch.live_root));
            let operation = NewOperation {
                kind: "branch.delete",
                branch: Some(on),
                before: standing,
                after: standing,
                detail: Some(&detail),
            };
            let seq = insert_operation(transaction, &operation, author, time)?;
            insert_event(transaction, "branch.deleted", &detail, &format!("operation:{seq}"), time)
        })
    }

    /// Brings a deleted branch back; when its newest checkpoint was deleted since, on the nearest one before it. An operation of the branch `on`, which stands at `standing` before and after.
    pub fn revive_branch(
        &self,
        branch: &BranchRow,
        on: (i64, &str),
        standing: (Option<ObjectId>, ObjectId),
        author: &Author,
    ) -> Result<(), HistoryError> {
        let time = Timestamp::now();
        self.write(|transaction| {
            check_free(transaction, &branch.name)?;
            let head = branch.head.map(|id| living(transaction, &id)).transpose()?.flatten();
            transaction.execute(
                "UPDATE branches SET deleted_at = NULL, head = ? WHERE id = ?",
                params![head.map(|id| id.to_hex()), branch.id],
            )?;
            let detail = json!({ "undoes": "branch.delete", "branch": branch.name, "branch_id": branch.id });
            let standing = (standing.0, Some(standing.1));
            let operation =
                NewOperation { kind: "undo", branch: Some(on), before: standing, after: standing, detail: Some(&detail) };
            let seq = insert_operation(transaction, &operation, author, time)?;
            insert_event(transaction, "branch.revived", &detail, &format!("operation:{seq}"), time)
        })
    }

    /// Records that a branch was sealed without a checkpoint.
    pub fn record_seal(
        &self,
        branch_id: i64,
        state: &BranchState,
        objects: &[NewObject],
        time: Timestamp,
    ) -> Result<(), HistoryError> {
        self.write(|transaction| {
            insert_objects(transaction, objects, time)?;
            move_branch(transaction, branch_id, state)
        })
    }
}
