//! Restore and undo of one branch, and the restore of several at once.

use super::checkpoint::check_expected;
use super::error::WorkspaceError;
use super::movement::{Cause, Destination, Leg, Target, move_all};
use super::swap::Stale;
use super::{Head, HeadGuard, Workspace};
use crate::object::{Author, Name, ObjectId, Timestamp};
use crate::repository::Share;
use crate::tree::{self, NodeSource, PathChange};

/// Up to here what has to be saved may use the last of the room that is kept for a full disk.
const LITTLE_BYTES: u64 = 256 << 10;

/// What a restore or an undo did, or would do.
#[derive(Debug)]
pub struct Restored {
    /// The paths that changed.
    pub changes: Vec<PathChange>,
    /// The checkpoint that holds what was there before, when one had to be taken.
    pub safety: Option<ObjectId>,
    /// The newest checkpoint of the branch afterwards.
    pub newest: Option<ObjectId>,
    /// What the kernel must forget.
    pub stale: Vec<Stale>,
}

/// What an undo would take back.
#[derive(Clone, Debug)]
pub struct UndoPlan {
    /// `restore` or `undo`.
    pub operation: String,
    /// The checkpoint that will be the newest again.
    pub commit: Option<ObjectId>,
    /// The state that comes back.
    pub root: ObjectId,
    /// When not this branch but another comes back or goes: its number, and which.
    pub branch: Option<(i64, BranchUndo)>,
}

/// What an undo does to another branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BranchUndo {
    /// It was deleted and comes back.
    Revive,
    /// Its deletion was undone, and is done again.
    Delete,
}

/// What is to be restored.
#[derive(Clone, Copy, Debug)]
pub struct RestoreRequest<'a> {
    /// The checkpoint.
    pub commit: &'a ObjectId,
    /// What of it; the whole tree without one.
    pub path: Option<&'a [Name]>,
    /// Only say what would change.
    pub dry_run: bool,
    /// The checkpoint that must still be the newest, if the caller counts on that.
    pub expect: Option<&'a ObjectId>,
}

impl Workspace {
    /// Makes the whole tree, or what is at `path`, as it was in the checkpoint `commit`.
    pub fn restore(
        &self,
        commit: &ObjectId,
        path: Option<&[Name]>,
        dry_run: bool,
        author: &Author,
    ) -> Result<Restored, WorkspaceError> {
        self.restore_as(&RestoreRequest { commit, path, dry_run, expect: None }, author)
    }

    /// Restores what was asked for.
    pub fn restore_as(&self, request: &RestoreRequest<'_>, author: &Author) -> Result<Restored, WorkspaceError> {
        self.with_reserve(|| self.restore_once(request, author))
    }

    fn restore_once(&self, request: &RestoreRequest<'_>, author: &Author) -> Result<Restored, WorkspaceError> {
        let RestoreRequest { commit, path, dry_run, expect } = *request;
        let mut head = self.head_to_move()?;
        check_expected(&head, expect)?; // Nobody moves the branch from here on.
        let root = self.repository.commit_to_use(commit)?.root_tree;
        if let Some(path) = path {
            self.check_path(&root, path)?;
        }
        if dry_run {
            let pending = self.seal()?;
            self.record_seal(&mut head, pending)?;
            let target = self.target_of(&head, commit, &root, path)?;
            let changes = self.repository.changes_between(Some(&head.live_root), &target.root)?;
            return Ok(Restored { changes, safety: None, newest: head.commit, stale: Vec::new() });
        }
        let detail = serde_json::json!({ "ref": commit.to_hex(), "path": path.map(display_path) });
        let cause = Cause { operation: "restore", author, detail };
        self.move_to(head, &cause, &|head| self.target_of(head, commit, &root, path))
    }

    /// Takes back the last restore or undo of this branch.
    pub fn undo(&self, author: &Author) -> Result<Restored, WorkspaceError> {
        self.with_reserve(|| self.undo_once(author))
    }

    /// Does something that must work on a full disk too: once more with most of the room that is kept for that, and with all of it
    /// where hardly anything has to be saved.
    fn with_reserve<T>(&self, work: impl Fn() -> Result<T, WorkspaceError>) -> Result<T, WorkspaceError> {
        let mut done = work();
        for share in [Share::Most, Share::All] {
            if !done.as_ref().is_err_and(WorkspaceError::is_full)
                || share == Share::All && self.live().unsaved_bytes > LITTLE_BYTES
            {
                break;
            }
            self.repository.release_reserve(share);
            self.live().journal.reserve_early(); // Before the work takes that room too: names must be removable if it fails.
            done = work();
        }
        self.repository.keep_reserve();
        done
    }

    fn undo_once(&self, author: &Author) -> Result<Restored, WorkspaceError> {
        let head = self.head_to_move()?;
        let plan = self.plan_undo()?;
        if plan.branch.is_some() {
            return Err(WorkspaceError::Busy("a branch was deleted or brought back meanwhile; try again".into()));
        }
        let cause = Cause { operation: "undo", author, detail: serde_json::json!({ "undoes": plan.operation }) };
        self.move_to(head, &cause, &|_| Ok(Target { commit: plan.commit, root: plan.root, source: None }))
    }

    /// Says what [`Self::undo`] would take back.
    pub fn plan_undo(&self) -> Result<UndoPlan, WorkspaceError> {
        let nothing = || WorkspaceError::NotFound("a restore or merge to undo".into());
        let from = self.repository.history().last_movement(self.branch_id)?.ok_or_else(nothing)?;
        let branch = match from.operation.as_str() {
            "branch.delete" => Some((from.detail["branch_id"].as_i64().unwrap_or_default(), BranchUndo::Revive)),
            _ if from.detail["undoes"] == "branch.delete" => {
                Some((from.detail["branch_id"].as_i64().unwrap_or_default(), BranchUndo::Delete))
            }
            _ => None,
        };
        Ok(UndoPlan { operation: from.operation, commit: from.head, root: from.root, branch })
    }

    /// Makes the tree show `root`, which belongs to the checkpoint `commit` or to none: an import.
    pub fn replace_root(
        &self,
        operation: &'static str,
        author: &Author,
        make: &dyn Fn(&ObjectId) -> Result<ObjectId, WorkspaceError>,
    ) -> Result<Restored, WorkspaceError> {
        let cause = Cause { operation, author, detail: serde_json::json!({}) };
        self.move_to(self.head_to_move()?, &cause, &|head| {
            Ok(Target { commit: head.commit, root: make(&head.live_root)?, source: None })
        })
    }

    fn check_path(&self, root: &ObjectId, path: &[Name]) -> Result<(), WorkspaceError> {
        let then = tree::find_item(&*self.repository, &self.repository.root(root)?, path)?;
        if then.is_some() {
            return Ok(());
        }
        let mut ino = super::ROOT;
        let mut live = self.live();
        for name in path {
            let child = if live.tree.inode(ino)?.directory().is_some() { live.tree.child(ino, name)? } else { None };
            ino = child.ok_or_else(|| WorkspaceError::NotFound(format!("path {}", display_path(path))))?;
        }
        Ok(()) // It exists now and did not exist then: restoring removes it.
    }

    fn target_of(
        &self,
        head: &Head,
        commit: &ObjectId,
        root: &ObjectId,
        path: Option<&[Name]>,
    ) -> Result<Target, WorkspaceError> {
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Ok(Target { commit: Some(*commit), root: *root, source: Some(*commit) });
        };
        let repository = &*self.repository;
        let (into, from) = (repository.root(&head.live_root)?, repository.root(root)?);
        let mut identities = repository.identities();
        let grafted = tree::graft(repository, &into, &from, path, Timestamp::now(), &mut || identities.fresh())?;
        identities.finish()?;
        let root = tree::NodeSink::put_root(repository, &grafted)?;
        Ok(Target { commit: head.commit, root, source: Some(*commit) })
    }

    /// Moves the branch: what is not checkpointed is checkpointed first, then one transaction, then the swap.
    fn move_to(&self, head: HeadGuard<'_>, cause: &Cause<'_>, destination: &Destination<'_>) -> Result<Restored, WorkspaceError> {
        let moved = move_all(&mut [Leg::new(self, head, destination)], cause)?;
        moved.into_iter().next().ok_or_else(|| WorkspaceError::Invalid("nothing moved".into()))
    }
}

fn display_path(path: &[Name]) -> String {
    path.iter().map(Name::to_string).collect::<Vec<_>>().join("/")
}
