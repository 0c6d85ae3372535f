//! Runs a command on a workspace and says what came of it, as JSON.

use super::branching;
use super::command::{Command, GcCommand};
use super::error::CommandError;
use super::link::{DIRECTORY_SYSTEM, directory_id};
use super::text::{change_word, iso_time, quoted_path, unquoted_path};
use crate::history::CommitRow;
use crate::object::{Author, CommitKind, ExternalLink, Name, ObjectId};
use crate::repository::GcRules;
use crate::tree::{ChangeKind, PathChange};
use crate::workspace::{Branches, CheckpointRequest, ImportProgress, RestoreRequest, Restored, Stale, Workspace};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Who asks, as the kernel says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id; 0 when unknown.
    pub pid: u32,
}

impl Caller {
    /// Describes the caller for the record; the name of the program is looked up.
    pub fn author(&self) -> Author {
        let command = match self.pid {
            0 => String::new(),
            pid => std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned(),
        };
        Author { uid: self.uid, pid: self.pid, command }
    }
}

/// What came of a command.
#[derive(Debug)]
pub struct Reply {
    /// For programs and for `--json`.
    pub json: Value,
    /// What the kernel must forget of each branch, by number, before the caller goes on.
    pub stale: Vec<(i64, Vec<Stale>)>,
    /// A mount that the daemon is asked for.
    pub mount: Option<MountWish>,
}

/// A further mount of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountWish {
    /// Where.
    pub path: String,
    /// The branch to show.
    pub branch: String,
    /// Mount options.
    pub options: Vec<String>,
}

impl From<Value> for Reply {
    fn from(json: Value) -> Self {
        Self { json, stale: Vec::new(), mount: None }
    }
}

/// Runs `command`.
pub fn execute(branches: &Branches, workspace: &Workspace, command: &Command, author: &Author) -> Result<Reply, CommandError> {
    match command {
        Command::Checkpoint { message, name, links, metadata, allow_empty, expect } => {
            let request = CheckpointRequest {
                message: message.clone(),
                name: name.clone(),
                links: links.clone(),
                metadata: metadata.clone(),
                allow_empty: *allow_empty,
                expect: expect.as_deref().map(|reference| resolve(workspace, reference)).transpose()?,
                kind: CommitKind::Manual,
                author: author.clone(),
            };
            let done = workspace.checkpoint(&request)?;
            Ok(json!({ "id": done.id.to_hex(), "created": done.created, "files_changed": done.files_changed }).into())
        }
        Command::Restore { reference, path, dry_run, expect } => {
            restore(workspace, reference, path.as_deref(), *dry_run, expect.as_deref(), author)
        }
        Command::Undo => {
            let plan = workspace.plan_undo()?;
            let done = branches.undo(workspace, author)?;
            Ok(restored(workspace, done, json!({ "undid": plan.operation })))
        }
        Command::Gc(gc) => collect(branches, gc, author),
        Command::Status => Ok(json!({ "changes": changes_json(&status(workspace)?) }).into()),
        Command::Log { limit } => {
            let rows = workspace.repository().history().log(workspace.branch_id(), *limit)?;
            let rows: Result<Vec<Value>, CommandError> = rows.iter().map(|row| commit_json(workspace, row)).collect();
            Ok(json!({ "checkpoints": rows? }).into())
        }
        Command::Diff { from, to } => Ok(json!({ "changes": changes_json(&diff(workspace, from, to.as_deref())?) }).into()),
        Command::Show { reference } => show(workspace, reference),
        Command::Name { reference, name } => {
            let id = resolve(workspace, reference)?;
            let history = workspace.repository().history();
            let from = (history.named(reference)? == Some(id)).then_some(reference.as_str());
            history.set_name(&id, from, name.as_deref(), author)?;
            Ok(json!({ "id": id.to_hex(), "name": name }).into())
        }
        Command::Delete { reference } => {
            let id = resolve(workspace, reference)?;
            workspace.repository().delete_checkpoint(&id, author)?;
            Ok(json!({ "id": id.to_hex(), "deleted": true }).into())
        }
        Command::Import { from, into, message } => {
            let into = into.clone().unwrap_or_default();
            let from = unquoted_path(from.as_bytes()); // A path that is not UTF-8 is said in quotes.
            import_into(workspace, Path::new(OsStr::from_bytes(&from)), &into, message, author, &ImportProgress::default())
        }
        Command::Branches => Ok(branching::list(workspace)?.into()),
        Command::Fork { name, at } => Ok(branching::fork(branches, workspace, name, at.as_deref(), author)?.into()),
        Command::RenameBranch { branch, name } => {
            branches.rename(branch, name, author)?;
            Ok(json!({ "branch": name }).into())
        }
        Command::DeleteBranch { branch } => {
            branches.delete(branch, workspace, author)?;
            Ok(json!({ "branch": branch, "deleted": true }).into())
        }
        Command::RestoreBranches { branches: names, references } => branching::restore(branches, names, references, author),
        Command::Mount(wish) => {
            workspace.repository().branch(&wish.branch)?;
            let json = json!({ "mounted": wish.path, "branch": wish.branch });
            Ok(Reply { json, stale: Vec::new(), mount: Some(wish.clone()) })
        }
        Command::Link { reference, links } => super::link::link(workspace, reference, links, author),
        Command::Merge(command) => super::merge::merge(branches, workspace, command, author),
        Command::Stats => Ok(stats_json(workspace)?.into()),
    }
}

/// Imports a directory of the host and checkpoints the result.
pub fn import_into(
    workspace: &Workspace,
    from: &Path,
    into: &[Name],
    message: &str,
    author: &Author,
    progress: &ImportProgress,
) -> Result<Reply, CommandError> {
    let mut imported = workspace.import(from, into, author, progress)?;
    let mut request = CheckpointRequest::new(message, author.clone());
    if into.is_empty() {
        // The checkpoint is what the directory holds: what changes from here on can be applied to it.
        let id = from.canonicalize().ok().and_then(|from| directory_id(&from));
        request.links.extend(id.map(|external_id| ExternalLink { system: DIRECTORY_SYSTEM.to_owned(), external_id }));
    }
    // It is there, and the kernel has to be told so: one that cannot be checkpointed yet is with the next checkpoint.
    let done = workspace.checkpoint(&request).map_err(|err| {
        imported.troubled.push((from.to_owned(), format!("imported, but not checkpointed: {err}")));
    });
    let trouble = |(path, why): &(std::path::PathBuf, String)| json!({ "path": path.to_string_lossy(), "why": why });
    let json = json!({
        "id": done.ok().map(|done| done.id.to_hex()),
        "files": progress.files_done.load(Ordering::Relaxed).saturating_sub(1),
        "bytes": progress.bytes_done.load(Ordering::Relaxed),
        "troubled": imported.troubled.iter().map(trouble).collect::<Vec<_>>(),
    });
    Ok(Reply { json, stale: vec![(workspace.branch_id(), imported.restored.stale)], mount: None })
}

fn restore(
    workspace: &Workspace,
    reference: &str,
    path: Option<&[Name]>,
    dry_run: bool,
    expect: Option<&str>,
    author: &Author,
) -> Result<Reply, CommandError> {
    let target = resolve(workspace, reference)?;
    let expect = expect.map(|expect| resolve(workspace, expect)).transpose()?;
    let request = RestoreRequest { commit: &target, path, dry_run, expect: expect.as_ref() };
    let done = workspace.restore_as(&request, author)?;
    Ok(restored(workspace, done, json!({ "restored": target.to_hex(), "dry_run": dry_run })))
}

fn restored(workspace: &Workspace, done: Restored, mut json: Value) -> Reply {
    json["changes"] = changes_json(&done.changes);
    json["safety"] = json!(done.safety.map(|id| id.to_hex()));
    json["newest"] = json!(done.newest.map(|id| id.to_hex()));
    Reply { json, stale: vec![(workspace.branch_id(), done.stale)], mount: None }
}

fn collect(branches: &Branches, gc: &GcCommand, author: &Author) -> Result<Reply, CommandError> {
    let rules = GcRules {
        dry_run: gc.dry_run,
        purge: gc.purge,
        grace_secs: gc.grace_secs,
        keep_last: gc.keep_last,
        keep_hourly: gc.keep_hourly,
        keep_daily: gc.keep_daily,
        keep_weekly: gc.keep_weekly,
    };
    Ok(branches.collect(&rules, author)?.into())
}

/// Finds the checkpoint that `reference` names, seen from the workspace's branch.
pub fn resolve(workspace: &Workspace, reference: &str) -> Result<ObjectId, CommandError> {
    Ok(workspace.repository().history().resolve(reference, &workspace.branch())?)
}

/// Returns what changed since the newest checkpoint.
pub fn status(workspace: &Workspace) -> Result<Vec<PathChange>, CommandError> {
    let _use = workspace.repository().using();
    let live = workspace.seal_now()?;
    let newest = match workspace.newest() {
        Some(id) => Some(workspace.repository().commit_to_use(&id)?.root_tree),
        None => None,
    };
    Ok(workspace.repository().changes_between(newest.as_ref(), &live)?)
}

/// Compares a checkpoint with another, or with the live tree.
pub fn diff(workspace: &Workspace, from: &str, to: Option<&str>) -> Result<Vec<PathChange>, CommandError> {
    let repository = workspace.repository();
    let _use = repository.using();
    let from = repository.commit_to_use(&resolve(workspace, from)?)?.root_tree;
    let to = match to {
        Some(to) => repository.commit_to_use(&resolve(workspace, to)?)?.root_tree,
        None => workspace.seal_now()?,
    };
    Ok(repository.changes_between(Some(&from), &to)?)
}

fn show(workspace: &Workspace, reference: &str) -> Result<Reply, CommandError> {
    let id = resolve(workspace, reference)?;
    let repository = workspace.repository();
    let _use = repository.using();
    let row = repository.commit_to_use(&id)?;
    let mut json = commit_json(workspace, &row)?;
    let before = repository.kept_before_to_use(&row)?.map(|before| before.root_tree);
    json["changes"] = changes_json(&repository.changes_between(before.as_ref(), &row.root_tree)?);
    Ok(json.into())
}

/// Returns changes for programs.
pub fn changes_json(changes: &[PathChange]) -> Value {
    let one = |change: &PathChange| {
        let mut json = json!({
            "change": change_word(&change.kind),
            "letter": change.kind.letter().to_string(),
            "path": quoted_path(&change.path),
        });
        if let ChangeKind::Renamed { from } = &change.kind {
            json["from"] = quoted_path(from).into();
        }
        if let Some(new) = &change.new {
            json["size"] = new.size_bytes().into();
            json["mode"] = format!("{:o}", new.st_mode()).into();
        }
        json
    };
    changes.iter().map(one).collect()
}

/// Returns a checkpoint for programs.
pub fn commit_json(workspace: &Workspace, row: &CommitRow) -> Result<Value, CommandError> {
    let links = workspace.repository().history().links_of(&row.id)?;
    let links: serde_json::Map<String, Value> =
        links.into_iter().map(|ExternalLink { system, external_id }| (system, external_id.into())).collect();
    Ok(json!({
        "id": row.id.to_hex(),
        "parent": row.parent.map(|id| id.to_hex()),
        "branch": row.branch,
        "root": row.root_tree.to_hex(),
        "time": iso_time(row.time),
        "time_nanos": row.time.nanos_since_epoch(),
        "name": row.name,
        "names": workspace.repository().history().names_of(&row.id)?,
        "message": row.message,
        "kind": row.kind.as_str(),
        "author": { "uid": row.author.uid, "pid": row.author.pid, "command": row.author.command },
        "files_changed": row.files_changed,
        "bytes_changed": row.bytes_changed,
        "meta": serde_json::from_str::<Value>(&row.meta).unwrap_or_default(),
        "links": links,
    }))
}

/// Returns counters and sizes, for programs.
pub fn stats_json(workspace: &Workspace) -> Result<Value, CommandError> {
    let mut stats = workspace.repository().stats()?;
    stats["inodes_loaded"] = workspace.inodes_loaded().into();
    Ok(stats)
}
