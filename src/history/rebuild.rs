//! Puts rows back that were lost: from commit records, from the events beside the database, and from journals.

use super::branches::move_branch;
use super::commits::{insert_commit_row, insert_mementos};
use super::names::{give_name, owner_of, take_last_name, take_name, take_names};
use super::objects::{NewObject, columns_of, insert_objects};
use super::outbox::{Event, insert_event};
use super::{BranchState, History, HistoryError, Memento};
use crate::object::{Commit, ExternalLink, ObjectId, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Where branches stand, by their numbers: the newest checkpoint, and the sealed state.
pub type Standings = HashMap<i64, (Option<ObjectId>, ObjectId)>;

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
                insert_commit_row(transaction, &recorded.id, commit, None, recorded.mementos.len(), recorded.bytes_changed)?;
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

    /// Puts events back that are not recorded, with the names, links, deletions, branches and movements that they tell of.
    /// Returns where each branch stood after the last of them, by its number.
    pub fn restore_events(&self, events: &[Event]) -> Result<Standings, HistoryError> {
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

    /// Puts a branch where it stood. One that is not recorded is, under `name` if that is free.
    pub fn place_branch(&self, id: i64, name: &str, state: &BranchState) -> Result<(), HistoryError> {
        self.write(|transaction| {
            make_branch(transaction, id, name, None, Timestamp::now())?;
            move_branch(transaction, id, state)
        })
    }

    /// Makes sure that a branch is recorded, wherever it stands. Returns its number.
    pub fn make_branch(&self, id: Option<i64>, name: &str) -> Result<i64, HistoryError> {
        self.write(|transaction| {
            let known = branch_named(transaction, name)?;
            let next = || transaction.query_row("SELECT coalesce(max(id), 0) + 1 FROM branches", [], |row| row.get::<_, i64>(0));
            let id = match id.or(known) {
                Some(id) => id,
                None => next()?,
            };
            make_branch(transaction, id, name, None, Timestamp::now())?;
            Ok(id)
        })
    }

    /// Says on which branch each checkpoint was taken that says so by name alone.
    pub fn number_branches(&self) -> Result<(), HistoryError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE file_commits SET branch_id = (SELECT id FROM branches b WHERE b.name = file_commits.branch
                   ORDER BY deleted_at IS NOT NULL, id LIMIT 1) WHERE branch_id IS NULL",
                [],
            )?;
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
        "UPDATE file_commits SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL",
        params![time.nanos_since_epoch(), commit],
    )?;
    take_names(transaction, commit)?;
    transaction.execute("DELETE FROM checkpoint_file_links WHERE commit_id = ?", [commit])?;
    Ok(())
}

fn branch_named(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT id FROM branches WHERE name = ? AND deleted_at IS NULL";
    transaction.query_row(sql, [name], |row| row.get(0)).optional()
}

/// Records a branch that is not recorded. Where it stands is not known yet: on a state that does not exist.
fn make_branch(transaction: &Transaction<'_>, id: i64, name: &str, from: Option<&str>, time: Timestamp) -> rusqlite::Result<()> {
    let free = branch_named(transaction, name)?.is_none();
    let name = if free { name.to_owned() } else { format!("{name}-{id}") };
    transaction.execute(
        "INSERT OR IGNORE INTO branches (id, name, head, live_root, journal_seq, forked_from, time) VALUES (?, ?, NULL, ?, 1, ?, ?)",
        params![id, name, ObjectId::of(b"nowhere").to_hex(), from, time.nanos_since_epoch()],
    )?;
    Ok(())
}

/// Does again what an event tells of.
fn apply(transaction: &Transaction<'_>, event: &Event, stands: &mut Standings) -> Result<(), HistoryError> {
    let Ok(payload) = serde_json::from_str::<Value>(&event.payload) else { return Ok(()) };
    let commit = payload["commit"].as_str().unwrap_or_default();
    let named = payload["branch"].as_str().map(|name| branch_named(transaction, name)).transpose()?.flatten();
    match event.event_type.as_str() {
        "checkpoint.created" | "checkpoint.attached" => {
            name_commit(transaction, commit, payload["name"].as_str(), event.time)?;
            let sql = "SELECT count(*) FROM file_commits WHERE id = ? AND deleted_at IS NULL";
            if transaction.query_row(sql, [commit], |row| row.get::<_, i64>(0))? > 0 {
                tie(transaction, commit, &links_of(&payload["links"]), event.time)?;
            }
            if let (Some(branch), Some(root)) = (named, id_of(&payload["root"])) {
                transaction.execute("UPDATE file_commits SET branch_id = ? WHERE id = ?", params![branch, commit])?;
                stands.insert(branch, (id_of(&payload["commit"]), root));
            }
        }
        "checkpoint.renamed" => {
            match payload["from"].as_str() {
                Some(from) => drop(take_name(transaction, commit, from)?), // One that it does not have was lost before.
                None => take_last_name(transaction, commit)?,
            }
            name_commit(transaction, commit, payload["name"].as_str(), event.time)?;
        }
        "checkpoint.deleted" => mark_deleted(transaction, commit, event.time)?,
        "restore.done" | "undo.done" | "import.done" | "merge.done" => {
            let kind = event.event_type.trim_end_matches(".done");
            record_movement(transaction, kind, named, &payload, event.time)?;
            if let (Some(branch), Some(root)) = (named, id_of(&payload["after"]["root"])) {
                stands.insert(branch, (id_of(&payload["after"]["commit"]), root));
            }
        }
        "branch.created" => {
            let id = event.idempotency_key.strip_prefix("branch:").and_then(|id| id.parse::<i64>().ok());
            if let (Some(id), Some(name)) = (id, payload["branch"].as_str()) {
                make_branch(transaction, id, name, payload["commit"].as_str(), event.time)?;
                let sql = "SELECT root_tree FROM file_commits WHERE id = ?";
                let root: Option<String> = transaction.query_row(sql, [commit], |row| row.get(0)).optional()?;
                if let Some(root) = root.and_then(|root| root.parse().ok()) {
                    stands.insert(id, (id_of(&payload["commit"]), root));
                }
            }
        }
        "branch.renamed" => {
            let (from, to) = (payload["from"].as_str(), payload["to"].as_str());
            transaction.execute("UPDATE branches SET name = ? WHERE name = ? AND deleted_at IS NULL", params![to, from])?;
        }
        "branch.deleted" | "branch.revived" => {
            let at = (event.event_type == "branch.deleted").then(|| event.time.nanos_since_epoch());
            transaction.execute("UPDATE branches SET deleted_at = ? WHERE id = ?", params![at, payload["branch_id"].as_i64()])?;
        }
        _ => {}
    }
    Ok(())
}

/// Gives a checkpoint that is not deleted a name, if there is one to give.
fn name_commit(transaction: &Transaction<'_>, commit: &str, name: Option<&str>, time: Timestamp) -> Result<(), HistoryError> {
    let Some(name) = name else { return Ok(()) };
    if let Some(owner) = owner_of(transaction, name)?.filter(|owner| owner != commit) {
        take_name(transaction, &owner, name)?; // It is moved only by events in between that were lost: the later is right.
    }
    let living = "SELECT count(*) FROM file_commits WHERE id = ? AND deleted_at IS NULL";
    if transaction.query_row(living, [commit], |row| row.get::<_, i64>(0))? > 0 {
        give_name(transaction, commit, name, time)?;
    }
    Ok(())
}

fn record_movement(
    transaction: &Transaction<'_>,
    kind: &str,
    branch_id: Option<i64>,
    payload: &Value,
    time: Timestamp,
) -> rusqlite::Result<()> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    transaction.execute(
        "INSERT INTO operations (type, branch, time, author_uid, author_pid, author_command, before_head, before_root,
         after_head, after_root, detail, branch_id) VALUES (?, ?, ?, 0, 0, '', ?, ?, ?, ?, ?, ?)",
        params![
            kind,
            text(&payload["branch"]),
            time.nanos_since_epoch(),
            text(&payload["before"]["commit"]),
            text(&payload["before"]["root"]),
            text(&payload["after"]["commit"]),
            text(&payload["after"]["root"]),
            payload["detail"].to_string(),
            branch_id
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
