//! Where each branch stands.

use super::objects::{NewObject, id_at, id_or_none_at, insert_objects};
use super::{History, HistoryError};
use crate::object::{ObjectId, Timestamp};
use rusqlite::{Row, Transaction, params};

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

impl History {
    /// Finds a branch by name.
    pub fn branch(&self, name: &str) -> Result<BranchRow, HistoryError> {
        let reader = self.reader();
        let sql = format!("SELECT {COLUMNS} FROM branches WHERE name = ? AND deleted_at IS NULL");
        let mut statement = reader.prepare_cached(&sql)?;
        let mut rows = statement.query([name])?;
        let row = rows.next()?.ok_or_else(|| HistoryError::not_found(format!("branch/{name}")))?;
        branch_of(row)
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
