//! Commands about branches: what there is, forks, names, deletion, several restored at once.

use super::error::CommandError;
use super::execute::{Reply, changes_json};
use crate::history::BranchRow;
use crate::object::{Author, ObjectId};
use crate::workspace::{Branches, Workspace};
use serde_json::{Value, json};

/// Lists the branches.
pub fn list(workspace: &Workspace) -> Result<Value, CommandError> {
    let branches = workspace.repository().history().branches()?;
    let one = |branch: &BranchRow| {
        json!({
            "name": branch.name,
            "newest": branch.head.map(|id| id.to_hex()),
            "current": branch.id == workspace.branch_id(),
        })
    };
    Ok(json!({ "branches": branches.iter().map(one).collect::<Vec<_>>() }))
}

/// Makes a branch from a checkpoint, or from the live state of `workspace`.
pub fn fork(
    branches: &Branches,
    workspace: &Workspace,
    name: &str,
    at: Option<&str>,
    author: &Author,
) -> Result<Value, CommandError> {
    let at = at.map(|reference| super::execute::resolve(workspace, reference)).transpose()?;
    let made = branches.fork(workspace, at.as_ref(), name, author)?;
    Ok(json!({ "branch": made.name, "newest": made.head.map(|id| id.to_hex()) }))
}

/// Restores several branches at once, each to what its reference names seen from it; one reference serves for all.
pub fn restore(branches: &Branches, names: &[String], references: &[String], author: &Author) -> Result<Reply, CommandError> {
    if references.len() != 1 && references.len() != names.len() {
        return Err(CommandError::Invalid(format!("{} branches, but {} references", names.len(), references.len())));
    }
    let mut targets = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let workspace = branches.open(name)?;
        let reference = &references[at.min(references.len() - 1)];
        let id: ObjectId = workspace.repository().history().resolve(reference, name)?;
        targets.push((workspace, id));
    }
    let mut stale = Vec::new();
    let mut moved = Vec::new();
    for (workspace, done) in branches.restore(&targets, author)? {
        moved.push(json!({
            "branch": workspace.branch(),
            "changes": changes_json(&done.changes),
            "safety": done.safety.map(|id| id.to_hex()),
            "newest": done.newest.map(|id| id.to_hex()),
        }));
        stale.push((workspace.branch_id(), done.stale));
    }
    Ok(Reply { json: json!({ "branches": moved }), stale, mount: None })
}
