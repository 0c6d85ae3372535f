//! Checkpoints and what each did to each path.

use super::ancestry::MERGED_KEY;
use super::branches::{BranchState, move_branch};
use super::labels::{validate_link, validate_name};
use super::names::{give_name, take_last_name, take_name, take_names};
use super::objects::{NewObject, count_reuse, id_at, id_or_none_at, insert_objects};
use super::operations::{NewOperation, check_living, insert_operation, living};
use super::outbox::insert_event;
use super::{History, HistoryError};
use crate::object::{Author, Commit, CommitKind, ExternalLink, ObjectId, Timestamp};
use rusqlite::types::ToSqlOutput;
use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params};
use serde_json::json;

/// A checkpoint as the database describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitRow {
    /// Its place in the order of all checkpoints.
    pub seq: i64,
    /// Its id.
    pub id: ObjectId,
    /// The checkpoint before it.
    pub parent: Option<ObjectId>,
    /// The branch it was taken on.
    pub branch: String,
    /// Its state.
    pub root_tree: ObjectId,
    /// When it was taken.
    pub time: Timestamp,
    /// What was said about it.
    pub message: String,
    /// Its name.
    pub name: Option<String>,
    /// Who took it.
    pub author: Author,
    /// Why.
    pub kind: CommitKind,
    /// Number of changed paths.
    pub files_changed: u64,
    /// Size of the changed files.
    pub bytes_changed: u64,
    /// Free metadata, JSON.
    pub meta: String,
}

/// What a checkpoint did to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memento {
    /// The path, as bytes.
    pub path: Vec<u8>,
    /// The word of the change.
    pub change: &'static str,
    /// Where it was before, for a rename.
    pub from_path: Option<Vec<u8>>,
    /// Content of the file afterwards.
    pub object: Option<ObjectId>,
    /// Its size.
    pub size_bytes: Option<u64>,
    /// Its mode with the file type.
    pub mode: Option<u32>,
}

/// A checkpoint to be recorded.
pub struct NewCommit<'a> {
    /// Its id: the hash of the record.
    pub id: ObjectId,
    /// The record.
    pub commit: &'a Commit,
    /// Its name.
    pub name: Option<&'a str>,
    /// What it did.
    pub mementos: &'a [Memento],
    /// Size of the changed files.
    pub bytes_changed: u64,
    /// Objects to name in the same transaction.
    pub objects: &'a [NewObject],
    /// Content that was found stored already.
    pub reused: &'a [ObjectId],
    /// The branch to move.
    pub branch_id: i64,
    /// Where to.
    pub state: BranchState,
    /// The sealed state before.
    pub before_root: ObjectId,
    /// What the merge was that made it, if one did: the operation that an undo takes back. Under [`MERGED_KEY`] it names
    /// the checkpoint that was merged, which must not be deleted.
    pub merge: Option<&'a serde_json::Value>,
}

/// What stands in `checkpoints/` for the newest checkpoint.
const LATEST: &str = "latest";

/// Bytes that are text where they are UTF-8, so that people can read them in queries.
struct TextOrBytes<'a>(&'a [u8]);

impl ToSql for TextOrBytes<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match std::str::from_utf8(self.0) {
            Ok(text) => text.to_sql(),
            Err(_) => self.0.to_sql(),
        }
    }
}

pub(super) const COLUMNS: &str = "seq, id, parent, branch, root_tree, time, message, name, author_uid, author_pid, author_command, \
    kind, files_changed, bytes_changed, meta";

pub(super) fn commit_of(row: &Row<'_>) -> Result<CommitRow, HistoryError> {
    let kind: String = row.get(11)?;
    Ok(CommitRow {
        seq: row.get(0)?,
        id: id_at(row, 1)?,
        parent: id_or_none_at(row, 2)?,
        branch: row.get(3)?,
        root_tree: id_at(row, 4)?,
        time: Timestamp::from_nanos(row.get(5)?),
        message: row.get(6)?,
        name: row.get(7)?,
        author: Author { uid: row.get(8)?, pid: row.get(9)?, command: row.get(10)? },
        kind: CommitKind::from_word(&kind).ok_or_else(|| HistoryError::damaged(format!("commit kind {kind:?}")))?,
        files_changed: row.get::<_, i64>(12)? as u64,
        bytes_changed: row.get::<_, i64>(13)? as u64,
        meta: row.get(14)?,
    })
}

fn links_json(links: &[ExternalLink]) -> serde_json::Value {
    links.iter().map(|link| (link.system.clone(), link.external_id.clone().into())).collect::<serde_json::Map<_, _>>().into()
}

fn check_labels(name: Option<&str>, links: &[ExternalLink]) -> Result<(), HistoryError> {
    name.map_or(Ok(()), validate_name)?;
    if let Some(name @ LATEST) = name {
        return Err(HistoryError::NameTaken { name: name.to_owned() }); // It leads to the newest checkpoint, whichever that is.
    }
    links.iter().try_for_each(validate_link)
}

/// Ties links to a commit; returns how many were not tied to it before. An id that was tied elsewhere moves here.
fn tie_links(
    transaction: &Transaction<'_>,
    id: &ObjectId,
    links: &[ExternalLink],
    time: Timestamp,
) -> Result<usize, HistoryError> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO checkpoint_file_links (system, external_id, commit_id, time) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (system, external_id) DO UPDATE SET commit_id = ?3, time = ?4 WHERE commit_id <> ?3",
    )?;
    let mut tied = 0;
    for link in links {
        tied += upsert.execute(params![link.system, link.external_id, id.to_hex(), time.nanos_since_epoch()])?;
    }
    Ok(tied)
}

pub(super) fn insert_mementos(transaction: &Transaction<'_>, id: &ObjectId, mementos: &[Memento]) -> Result<(), HistoryError> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO file_mementos (commit_id, path, change, from_path, object, size, mode) VALUES (?,?,?,?,?,?,?)",
    )?;
    for memento in mementos {
        insert.execute(params![
            id.to_hex(),
            TextOrBytes(&memento.path),
            memento.change,
            memento.from_path.as_deref().map(TextOrBytes),
            memento.object.map(|id| id.to_hex()),
            memento.size_bytes.map(|size| size as i64),
            memento.mode
        ])?;
    }
    Ok(())
}

/// Records a commit alone; `changes` and `bytes_changed` say how much it changed.
pub(super) fn insert_commit_row(
    transaction: &Transaction<'_>,
    id: &ObjectId,
    commit: &Commit,
    branch_id: Option<i64>,
    changes: usize,
    bytes_changed: u64,
) -> Result<(), HistoryError> {
    transaction
        .prepare_cached(
            "INSERT INTO file_commits (id, parent, branch, root_tree, time, message, author_uid, author_pid, author_command, kind,
             files_changed, bytes_changed, meta, branch_id) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        )?
        .execute(params![
            id.to_hex(),
            commit.parent.map(|id| id.to_hex()),
            commit.branch,
            commit.root.to_hex(),
            commit.time.nanos_since_epoch(),
            commit.message,
            commit.author.uid,
            commit.author.pid,
            commit.author.command,
            commit.kind.as_str(),
            changes as i64,
            bytes_changed as i64,
            commit.metadata,
            branch_id
        ])?;
    Ok(())
}

/// Returns the name of a branch that stands on a checkpoint.
fn branch_on(transaction: &Transaction<'_>, id: &ObjectId) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT name FROM branches WHERE head = ? AND deleted_at IS NULL";
    transaction.query_row(sql, [id.to_hex()], |row| row.get(0)).optional()
}

/// Makes a tombstone of a checkpoint's row. Says whether it was none.
fn bury(transaction: &Transaction<'_>, id: &ObjectId, author: &Author) -> Result<bool, HistoryError> {
    let time = Timestamp::now();
    let deleted = transaction.execute(
        "UPDATE file_commits SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL",
        params![time.nanos_since_epoch(), id.to_hex()],
    )?;
    if deleted == 0 {
        return Ok(false);
    }
    take_names(transaction, &id.to_hex())?;
    transaction.execute("DELETE FROM checkpoint_file_links WHERE commit_id = ?", [id.to_hex()])?;
    let ids = (Some(*id), None);
    let operation = NewOperation { kind: "delete", branch: None, before: ids, after: (None, None), detail: None };
    insert_operation(transaction, &operation, author, time)?;
    insert_event(transaction, "checkpoint.deleted", &json!({ "commit": id.to_hex() }), &format!("delete:{id}"), time)?;
    Ok(true)
}

impl History {
    /// Checks that a name and links are allowed and the name is free, before work is done for them.
    pub fn check_new_labels(&self, name: Option<&str>, links: &[ExternalLink]) -> Result<(), HistoryError> {
        check_labels(name, links)
    }

    /// Records a checkpoint with all that belongs to it.
    pub fn record_commit(&self, new: &NewCommit<'_>) -> Result<(), HistoryError> {
        let commit = new.commit;
        check_labels(new.name, &commit.links)?;
        self.write(|transaction| {
            if let Some(merged) = new.merge.and_then(|merge| merge[MERGED_KEY].as_str()?.parse().ok()) {
                check_living(transaction, &merged)?; // The merged state holds objects of it.
            }
            insert_objects(transaction, new.objects, commit.time)?;
            count_reuse(transaction, new.reused)?;
            insert_commit_row(transaction, &new.id, commit, Some(new.branch_id), new.mementos.len(), new.bytes_changed)?;
            if let Some(name) = new.name {
                give_name(transaction, &new.id.to_hex(), name, commit.time)?;
            }
            insert_mementos(transaction, &new.id, new.mementos)?;
            tie_links(transaction, &new.id, &commit.links, commit.time)?;
            move_branch(transaction, new.branch_id, &new.state)?;
            let before = (commit.parent, Some(new.before_root));
            let after = (Some(new.id), Some(commit.root));
            let kind = if new.merge.is_some() { "merge" } else { "checkpoint" };
            let branch = Some((new.branch_id, commit.branch.as_str()));
            let operation = NewOperation { kind, branch, before, after, detail: new.merge };
            let seq = insert_operation(transaction, &operation, &commit.author, commit.time)?;
            let payload = json!({
                "commit": new.id.to_hex(),
                "parent": commit.parent.map(|id| id.to_hex()),
                "branch": commit.branch,
                "root": commit.root.to_hex(),
                "kind": commit.kind.as_str(),
                "name": new.name,
                "message": commit.message,
                "links": links_json(&commit.links),
                "files_changed": new.mementos.len(),
                "bytes_changed": new.bytes_changed,
            });
            insert_event(transaction, "checkpoint.created", &payload, &format!("commit:{}", new.id), commit.time)?;
            let Some(detail) = new.merge else { return Ok(()) };
            let payload = json!({
                "branch": commit.branch,
                "before": { "commit": commit.parent.map(|id| id.to_hex()), "root": new.before_root.to_hex() },
                "after": { "commit": new.id.to_hex(), "root": commit.root.to_hex() },
                "detail": detail,
            });
            insert_event(transaction, "merge.done", &payload, &format!("operation:{seq}"), commit.time)
        })
    }

    /// Gives an existing checkpoint a name or links. Nothing new leaves no event.
    pub fn attach(
        &self,
        id: &ObjectId,
        name: Option<&str>,
        links: &[ExternalLink],
        author: &Author,
        time: Timestamp,
    ) -> Result<(), HistoryError> {
        check_labels(name, links)?;
        if name.is_none() && links.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            check_living(transaction, id)?; // It would keep the name, and nobody could have it.
            let renamed = match name {
                Some(name) => give_name(transaction, &id.to_hex(), name, time)?,
                None => false,
            };
            let tied = tie_links(transaction, id, links, time)?;
            if !renamed && tied == 0 {
                return Ok(());
            }
            let detail = json!({ "name": name, "links": links_json(links) });
            let ids = (Some(*id), None);
            let operation = NewOperation { kind: "attach", branch: None, before: ids, after: ids, detail: Some(&detail) };
            let seq = insert_operation(transaction, &operation, author, time)?;
            let payload = json!({ "commit": id.to_hex(), "name": name, "links": links_json(links) });
            insert_event(transaction, "checkpoint.attached", &payload, &format!("operation:{seq}"), time)
        })
    }

    /// Gives a checkpoint a name in place of `from`, one that it has, or takes that away. Without `from` it is the one given last.
    pub fn set_name(&self, id: &ObjectId, from: Option<&str>, name: Option<&str>, author: &Author) -> Result<(), HistoryError> {
        check_labels(name, &[])?;
        let time = Timestamp::now();
        self.write(|transaction| {
            check_living(transaction, id)?;
            match from {
                None => take_last_name(transaction, &id.to_hex())?,
                // Somebody else may have renamed it since it was looked up.
                Some(from) if !take_name(transaction, &id.to_hex(), from)? => return Err(HistoryError::not_found(from)),
                Some(_) => {}
            }
            if let Some(name) = name
                && !give_name(transaction, &id.to_hex(), name, time)?
            {
                return Err(HistoryError::NameTaken { name: name.to_owned() }); // By itself.
            }
            let detail = json!({ "name": name });
            let ids = (Some(*id), None);
            let operation = NewOperation { kind: "rename", branch: None, before: ids, after: ids, detail: Some(&detail) };
            let seq = insert_operation(transaction, &operation, author, time)?;
            let payload = json!({ "commit": id.to_hex(), "name": name, "from": from });
            insert_event(transaction, "checkpoint.renamed", &payload, &format!("operation:{seq}"), time)
        })
    }

    /// Deletes a checkpoint: its row stays as a tombstone so that the chain can be verified, its content goes with the next gc.
    pub fn delete_checkpoint(&self, id: &ObjectId, author: &Author) -> Result<(), HistoryError> {
        self.write(|transaction| {
            if let Some(branch) = branch_on(transaction, id)? {
                return Err(HistoryError::InUse { what: format!("the branch {branch} stands on the checkpoint {id}") });
            }
            if bury(transaction, id, author)? { Ok(()) } else { Err(HistoryError::not_found(id.to_hex())) }
        })
    }

    /// Deletes a checkpoint unless somebody means to keep it: it has a name or a link, or a branch stands on it. Says whether it did.
    pub fn delete_unless_kept(&self, id: &ObjectId, author: &Author) -> Result<bool, HistoryError> {
        const LABELLED: &str = "SELECT EXISTS (SELECT 1 FROM file_commits WHERE id = ?1 AND name IS NOT NULL)
            OR EXISTS (SELECT 1 FROM checkpoint_file_links WHERE commit_id = ?1)";
        self.write(|transaction| {
            let labelled: bool = transaction.prepare_cached(LABELLED)?.query_row([id.to_hex()], |row| row.get(0))?;
            Ok(!labelled && branch_on(transaction, id)?.is_none() && bury(transaction, id, author)?)
        })
    }

    /// Finds a checkpoint by its full id, deleted ones too.
    pub fn commit(&self, id: &ObjectId) -> Result<CommitRow, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(&format!("SELECT {COLUMNS} FROM file_commits WHERE id = ?"))?;
        let mut rows = statement.query([id.to_hex()])?;
        rows.next()?.map(commit_of).transpose()?.ok_or_else(|| HistoryError::not_found(id.to_hex()))
    }

    /// Returns the checkpoint that `row` follows; when it was deleted, the nearest before it that was not: gc may have
    /// taken what a deleted one held.
    pub fn kept_before(&self, row: &CommitRow) -> Result<Option<CommitRow>, HistoryError> {
        let Some(parent) = &row.parent else { return Ok(None) };
        let kept = living(&self.reader(), parent)?;
        kept.map(|id| self.commit(&id)).transpose()
    }

    /// Returns every checkpoint that is not deleted, newest first.
    pub fn checkpoints(&self) -> Result<Vec<CommitRow>, HistoryError> {
        self.commits_where("deleted_at IS NULL ORDER BY seq DESC", [])
    }

    /// Returns the checkpoints of a branch, newest first: those taken on it, and those its newest one descends from.
    pub fn log(&self, branch_id: i64, limit: Option<usize>) -> Result<Vec<CommitRow>, HistoryError> {
        let limit = limit.map_or(-1, |limit| limit as i64);
        self.commits_where(
            "deleted_at IS NULL AND (branch_id = ?1 OR id IN (
                WITH RECURSIVE line (id) AS (
                    SELECT head FROM branches WHERE id = ?1 AND head IS NOT NULL
                    UNION
                    SELECT parent FROM file_commits WHERE branch_id = ?1 AND parent IS NOT NULL
                    UNION
                    SELECT parent FROM file_commits JOIN line ON file_commits.id = line.id WHERE parent IS NOT NULL
                      AND file_commits.branch_id IS NOT ?1
                ) SELECT id FROM line)) ORDER BY seq DESC LIMIT ?2",
            params![branch_id, limit],
        )
    }

    fn commits_where(&self, condition: &'static str, values: impl rusqlite::Params) -> Result<Vec<CommitRow>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(&format!("SELECT {COLUMNS} FROM file_commits WHERE {condition}"))?;
        let mut rows = statement.query(values)?;
        let mut commits = Vec::new();
        while let Some(row) = rows.next()? {
            commits.push(commit_of(row)?);
        }
        Ok(commits)
    }

    /// Returns the links of a checkpoint.
    pub fn links_of(&self, id: &ObjectId) -> Result<Vec<ExternalLink>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached(
            "SELECT system, external_id FROM checkpoint_file_links WHERE commit_id = ? ORDER BY system, external_id",
        )?;
        let links =
            statement.query_map([id.to_hex()], |row| Ok(ExternalLink { system: row.get(0)?, external_id: row.get(1)? }))?;
        Ok(links.collect::<Result<_, _>>()?)
    }

    /// Returns the checkpoint tied to an external id.
    pub fn link(&self, system: &str, external_id: &str) -> Result<Option<ObjectId>, HistoryError> {
        let reader = self.reader();
        let mut statement =
            reader.prepare_cached("SELECT commit_id FROM checkpoint_file_links WHERE system = ? AND external_id = ?")?;
        let mut rows = statement.query([system, external_id])?;
        rows.next()?.map(|row| id_at(row, 0)).transpose()
    }

    /// Returns the names of the systems that have links.
    pub fn link_systems(&self) -> Result<Vec<String>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader.prepare_cached("SELECT DISTINCT system FROM checkpoint_file_links ORDER BY system")?;
        let systems = statement.query_map([], |row| row.get(0))?;
        Ok(systems.collect::<Result<_, _>>()?)
    }

    /// Returns the external ids of a system with the checkpoints they name.
    pub fn links_in(&self, system: &str) -> Result<Vec<(String, ObjectId)>, HistoryError> {
        let reader = self.reader();
        let mut statement = reader
            .prepare_cached("SELECT external_id, commit_id FROM checkpoint_file_links WHERE system = ? ORDER BY external_id")?;
        let mut rows = statement.query([system])?;
        let mut links = Vec::new();
        while let Some(row) = rows.next()? {
            links.push((row.get(0)?, id_at(row, 1)?));
        }
        Ok(links)
    }
}
