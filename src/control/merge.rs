//! The merge of another branch, or of any checkpoint, into the branch of a workspace.

use super::command::{ConflictPolicy, MergeCommand};
use super::error::CommandError;
use super::execute::{Reply, changes_json, resolve};
use super::text::quoted_path;
use crate::object::Author;
use crate::tree::{MergeConflict, MergePolicy};
use crate::workspace::{MergeRequest, MergeSource, Workspace};
use serde_json::{Value, json};

/// Runs a merge and says what it did, or would do.
pub fn merge(workspace: &Workspace, command: &MergeCommand, author: &Author) -> Result<Reply, CommandError> {
    let source = source_of(workspace, command)?;
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
    Ok(Reply { json, stale: done.stale })
}

fn source_of(workspace: &Workspace, command: &MergeCommand) -> Result<MergeSource, CommandError> {
    let (name, reference) = match (&command.branch, &command.reference) {
        (Some(branch), None) if *branch == workspace.branch() => {
            return Err(CommandError::Invalid(format!("{branch} is this branch; name another one")));
        }
        (Some(branch), None) => (branch.clone(), format!("branch/{branch}")),
        (None, Some(reference)) => (reference.clone(), reference.clone()),
        _ => return Err(CommandError::Invalid("say what to merge: \"branch\", or \"ref\"".into())),
    };
    let commit = resolve(workspace, &reference)?;
    let root = workspace.repository().commit(&commit)?.root_tree;
    Ok(MergeSource { name, commit, root })
}

fn conflict_json(conflict: &MergeConflict) -> Value {
    let mut json = json!({ "path": quoted_path(&conflict.path), "kind": conflict.kind.as_str() });
    if let Some(other) = &conflict.other {
        json["other"] = quoted_path(other).into();
    }
    json
}
