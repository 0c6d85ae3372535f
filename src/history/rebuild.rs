//! Puts rows back that were lost: from commit records, from the events beside the database, and from journals.

use super::commits::{insert_commit_row, insert_mementos};
use super::objects::{NewObject, columns_of, insert_objects};
use super::outbox::{Event, insert_event};
use super::{BranchState, History, HistoryError, Memento};
use crate::object::{Commit, ExternalLink, ObjectId, Timestamp};
use rusqlite::{Transaction, params};
use serde_json::{Value, json};
use std::collections::HashMap;

/// A checkpoint found again.
pub struct Recorded {
    /// Its id.
    pub id: ObjectId,
    /// Its record.
    pub commit: Commit,
    /// What it did.
    pub mementos: Vec<Memento>,
    /// Size of the changed files.
    pub bytes_changed: u64,
    /// Whether its state is there; otherwise it comes back as the tombstone of a deleted one.
    pub whole: bool,
}

impl History {
    /// Names objects where they lie now; one that is named elsewhere is named here from now on.
    pub fn place_objects(&self, objects: &[NewObject]) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let mut update = transaction.prepare_cached(
                "UPDATE file_blobs SET kind = ?, size = ?, pack = ?, large = ?, offset = ?, stored = ?, encoding = ? WHERE id = ?",
            )?;
            for (id, kind, location) in objects {
                let (pack, large, encoding) = columns_of(location);
                update.execute(params![
                    kind.as_str(),
                    location.size_bytes as i64,
                    pack,
                    large,
                    location.offset as i64,
                    location.stored_bytes as i64,
                    encoding,
                    id.to_hex()
                ])?;
            }
            insert_objects(transaction, objects, Timestamp::now())
        })
    }

    /// Puts checkpoints back that are not recorded, parents first, with their links and an event where none tells of them.
    pub fn restore_commits(&self, found: &[Recorded]) -> Result<(), HistoryError> {
        self.write(|transaction| {
            for recorded in found {
                let commit = &recorded.commit;
                insert_commit_row(transaction, &recorded.id, commit, recorded.mementos.len(), recorded.bytes_changed, None)?;
                insert_mementos(transaction, &recorded.id, &recorded.mementos)?;
                if recorded.whole {
                    tie(transaction, &recorded.id.to_hex(), &commit.links, commit.time)?;
                } else {
                    mark_deleted(transaction, &recorded.id.to_hex(), Timestamp::now())?;
                }
            }
            Ok(())
        })
    }

    /// Makes sure that an event tells of every checkpoint. Comes after [`Self::restore_events`], which brings the true ones.
    pub fn tell_of_commits(&self, found: &[Recorded]) -> Result<(), HistoryError> {
        self.write(|transaction| {
            for Recorded { id, commit, mementos, bytes_changed, .. } in found {
                let links: HashMap<_, _> = commit.links.iter().map(|link| (&link.system, &link.external_id)).collect();
                let payload = json!({
                    "commit": id.to_hex(),
                    "parent": commit.parent.map(|id| id.to_hex()),
                    "branch": commit.branch,
                    "root": commit.root.to_hex(),
                    "kind": commit.kind.as_str(),
                    "name": null,
                    "message": commit.message,
                    "links": links,
                    "files_changed": mementos.len(),
                    "bytes_changed": bytes_changed,
                });
                insert_event(transaction, "checkpoint.created", &payload, &format!("commit:{id}"), commit.time)?;
            }
            Ok(())
        })
    }

    /// Puts events back that are not recorded, with the names, links, deletions and movements that they tell of.
    /// Returns where each branch stood after the last of them.
    pub fn restore_events(&self, events: &[Event]) -> Result<HashMap<String, (Option<ObjectId>, ObjectId)>, HistoryError> {
        self.write(|transaction| {
            let mut insert = transaction
                .prepare("INSERT OR IGNORE INTO outbox (seq, type, payload, idempotency_key, time) VALUES (?, ?, ?, ?, ?)")?;
            let mut stands = HashMap::new();
            for event in events {
                let time = event.time.nanos_since_epoch();
                let fresh = insert.execute(params![event.seq, event.event_type, event.payload, event.idempotency_key, time])?;
                if fresh > 0 {
                    apply(transaction, event, &mut stands)?;
                }
            }
            Ok(stands)
        })
    }

    /// Returns the events that can still be read, oldest first, of a database that may be damaged.
    pub fn readable_events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(more) = self.events_since(events.last().map_or(0, |event: &Event| event.seq), 1)
            && !more.is_empty()
        {
            events.extend(more);
        }
        events
    }

    /// Says which branch each checkpoint and operation belongs to that came back without one: the one that has the name.
    pub fn claim_by_name(&self) -> Result<(), HistoryError> {
        self.write(|transaction| {
            for table in ["file_commits", "operations"] {
                transaction.execute_batch(&format!(
                    "UPDATE {table} SET branch_id = (SELECT id FROM branches WHERE name = {table}.branch AND deleted_at IS NULL)
                     WHERE branch_id IS NULL"
                ))?;
            }
            Ok(())
        })
    }

    /// Puts a branch where it stood, making it if it is not recorded.
    pub fn restore_branch(&self, id: Option<i64>, name: &str, state: &BranchState) -> Result<(), HistoryError> {
        self.write(|transaction| {
            let head = state.head.map(|id| id.to_hex());
            let (root, segment) = (state.live_root.to_hex(), state.journal_seq as i64);
            let moved = transaction.execute(
                "UPDATE branches SET head = ?1, live_root = ?2, journal_seq = ?3
                 WHERE CASE WHEN ?4 IS NULL THEN name = ?5 ELSE id = ?4 END AND deleted_at IS NULL",
                params![head, root, segment, id, name],
            )?;
            if moved == 0 {
                transaction.execute(
                    "INSERT INTO branches (id, name, head, live_root, journal_seq, time) VALUES (?, ?, ?, ?, ?, ?)",
                    params![id, name, head, root, segment, Timestamp::now().nanos_since_epoch()],
                )?;
            }
            Ok(())
        })
    }

    /// Makes sure that no identity below `end` is given to a new file.
    pub fn raise_identities(&self, end: u64) -> Result<(), HistoryError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO store_meta (key, value) VALUES ('next_identity', ?1)
                 ON CONFLICT (key) DO UPDATE SET value = max(value, ?1)",
                [end as i64],
            )?;
            Ok(())
        })
    }

    /// Says what a checkpoint did, anew.
    pub fn replace_mementos(&self, id: &ObjectId, mementos: &[Memento]) -> Result<(), HistoryError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM file_mementos WHERE commit_id = ?", [id.to_hex()])?;
            insert_mementos(transaction, id, mementos)
        })
    }

    /// Moves everything into the database file itself and closes it, so that the file alone is the database.
    pub fn close_alone(self) -> Result<(), HistoryError> {
        self.shrink()
    }
}

fn tie(transaction: &Transaction<'_>, commit: &str, links: &[ExternalLink], time: Timestamp) -> rusqlite::Result<()> {
    for link in links {
        transaction.execute(
            "INSERT OR REPLACE INTO checkpoint_file_links (system, external_id, commit_id, time) VALUES (?, ?, ?, ?)",
            params![link.system, link.external_id, commit, time.nanos_since_epoch()],
        )?;
    }
    Ok(())
}

fn mark_deleted(transaction: &Transaction<'_>, commit: &str, time: Timestamp) -> rusqlite::Result<()> {
    transaction.execute(
        "UPDATE file_commits SET deleted_at = ?, name = NULL WHERE id = ? AND deleted_at IS NULL",
        params![time.nanos_since_epoch(), commit],
    )?;
    transaction.execute("DELETE FROM checkpoint_file_links WHERE commit_id = ?", [commit])?;
    Ok(())
}

/// Does again what an event tells of.
fn apply(
    transaction: &Transaction<'_>,
    event: &Event,
    stands: &mut HashMap<String, (Option<ObjectId>, ObjectId)>,
) -> Result<(), HistoryError> {
    let Ok(payload) = serde_json::from_str::<Value>(&event.payload) else { return Ok(()) };
    let commit = payload["commit"].as_str().unwrap_or_default();
    match event.event_type.as_str() {
        "checkpoint.created" | "checkpoint.attached" => {
            if let Some(name) = payload["name"].as_str() {
                name_commit(transaction, commit, Some(name))?;
            }
            let live = transaction.query_row(
                "SELECT count(*) FROM file_commits WHERE id = ? AND deleted_at IS NULL",
                [commit],
                |row| row.get::<_, i64>(0),
            )?;
            if live > 0 {
                tie(transaction, commit, &links_of(&payload["links"]), event.time)?;
            }
            if let (Some(branch), Some(root)) = (payload["branch"].as_str(), id_of(&payload["root"])) {
                stands.insert(branch.to_owned(), (id_of(&payload["commit"]), root));
            }
        }
        "checkpoint.renamed" => name_commit(transaction, commit, payload["name"].as_str())?,
        "checkpoint.deleted" => mark_deleted(transaction, commit, event.time)?,
        "restore.done" | "undo.done" | "import.done" | "merge.done" => {
            let kind = event.event_type.trim_end_matches(".done");
            record_movement(transaction, kind, &payload, event.time)?;
            if let (Some(branch), Some(root)) = (payload["branch"].as_str(), id_of(&payload["after"]["root"])) {
                stands.insert(branch.to_owned(), (id_of(&payload["after"]["commit"]), root));
            }
        }
        _ => {}
    }
    Ok(())
}

fn name_commit(transaction: &Transaction<'_>, commit: &str, name: Option<&str>) -> rusqlite::Result<()> {
    // A name is moved only by events in between that were lost: the later one is right.
    transaction.execute("UPDATE file_commits SET name = NULL WHERE name = ?", [name])?;
    transaction.execute("UPDATE file_commits SET name = ? WHERE id = ? AND deleted_at IS NULL", params![name, commit])?;
    Ok(())
}

fn record_movement(transaction: &Transaction<'_>, kind: &str, payload: &Value, time: Timestamp) -> rusqlite::Result<()> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    transaction.execute(
        "INSERT INTO operations (type, branch, time, author_uid, author_pid, author_command, before_head, before_root,
         after_head, after_root, detail) VALUES (?, ?, ?, 0, 0, '', ?, ?, ?, ?, ?)",
        params![
            kind,
            text(&payload["branch"]),
            time.nanos_since_epoch(),
            text(&payload["before"]["commit"]),
            text(&payload["before"]["root"]),
            text(&payload["after"]["commit"]),
            text(&payload["after"]["root"]),
            payload["detail"].to_string()
        ],
    )?;
    Ok(())
}

fn id_of(value: &Value) -> Option<ObjectId> {
    value.as_str()?.parse().ok()
}

fn links_of(value: &Value) -> Vec<ExternalLink> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(system, id)| Some(ExternalLink { system: system.clone(), external_id: id.as_str()?.to_owned() })).collect()
}
