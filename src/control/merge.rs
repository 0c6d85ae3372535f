//! The merge of another branch, or of any checkpoint, into the branch of a workspace.

use super::command::{ConflictPolicy, MergeCommand};
use super::error::CommandError;
use super::execute::{Reply, changes_json, resolve};
use super::text::quoted_path;
use crate::object::{Author, CommitKind};
use crate::tree::{MergeConflict, MergePolicy};
use crate::workspace::{Branches, CheckpointRequest, MergeRequest, MergeSource, Workspace};
use serde_json::{Value, json};

/// Runs a merge and says what it did, or would do.
pub fn merge(branches: &Branches, workspace: &Workspace, command: &MergeCommand, author: &Author) -> Result<Reply, CommandError> {
    let source = source_of(branches, workspace, command, author)?;
    let policy = match command.policy {
        ConflictPolicy::Markers | ConflictPolicy::Fail => MergePolicy::Markers,
        ConflictPolicy::Ours => MergePolicy::Ours,
        ConflictPolicy::Theirs => MergePolicy::Theirs,
    };
    let request = MergeRequest {
        source,
        policy,
        refuse_conflicts: command.policy == ConflictPolicy::Fail,
        dry_run: command.dry_run,
        author: author.clone(),
    };
    let done = workspace.merge(&request)?;
    let json = json!({
        "merged": request.source.commit.to_hex(),
        "base": done.base.to_hex(),
        "id": done.commit.map(|id| id.to_hex()),
        "dry_run": command.dry_run,
        "up_to_date": done.commit.is_none() && !command.dry_run,
        "changes": changes_json(&done.changes),
        "conflicts": done.conflicts.iter().map(conflict_json).collect::<Vec<_>>(),
        "safety": done.safety.map(|id| id.to_hex()),
        "newest": done.newest.map(|id| id.to_hex()),
    });
    Ok(Reply { json, stale: vec![(workspace.branch_id(), done.stale)], mount: None })
}

fn source_of(
    branches: &Branches,
    workspace: &Workspace,
    command: &MergeCommand,
    author: &Author,
) -> Result<MergeSource, CommandError> {
    match (&command.branch, &command.reference) {
        (Some(branch), None) if *branch == workspace.branch() => {
            Err(CommandError::Invalid(format!("{branch} is this branch; name another one")))
        }
        (Some(branch), None) => {
            let other = branches.open(branch)?;
            of_branch(&other, branch, workspace, command.dry_run, author)
        }
        (None, Some(reference)) => {
            let commit = resolve(workspace, reference)?;
            let root = workspace.repository().commit(&commit)?.root_tree;
            Ok(MergeSource { name: reference.clone(), commit, root })
        }
        _ => Err(CommandError::Invalid("say what to merge: \"branch\", or \"ref\"".into())),
    }
}

/// Takes what a branch holds now: what is not checkpointed is checkpointed first, or, for a preview, only sealed.
fn of_branch(
    other: &Workspace,
    name: &str,
    into: &Workspace,
    dry_run: bool,
    author: &Author,
) -> Result<MergeSource, CommandError> {
    let nothing = || CommandError::NotFound(format!("a checkpoint of the branch {name}"));
    if dry_run {
        let commit = other.newest().ok_or_else(nothing)?;
        return Ok(MergeSource { name: name.to_owned(), commit, root: other.seal_now()? });
    }
    let mut request = CheckpointRequest::new(&format!("before merge into {}", into.branch()), author.clone());
    request.kind = CommitKind::Auto;
    let commit = other.checkpoint(&request)?.id;
    let root = other.repository().commit(&commit)?.root_tree;
    Ok(MergeSource { name: name.to_owned(), commit, root })
}

fn conflict_json(conflict: &MergeConflict) -> Value {
    let mut json = json!({ "path": quoted_path(&conflict.path), "kind": conflict.kind.as_str() });
    if let Some(other) = &conflict.other {
        json["other"] = quoted_path(other).into();
    }
    json
}
