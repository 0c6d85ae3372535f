//! Restore and undo: a checkpoint of what would be lost, one transaction, a swap of what differs.

use super::changes::Live;
use super::checkpoint::CheckpointRequest;
use super::error::WorkspaceError;
use super::swap::Stale;
use super::{Head, Workspace};
use crate::history::BranchState;
use crate::object::{Author, CommitKind, Name, ObjectId, Timestamp};
use crate::repository::Movement;
use crate::tree::{self, NodeSource, PathChange};

/// How often a restore seals again because writers were faster, before it holds them up.
const CHASES_MAX: usize = 4;

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
}

/// Where a branch is to go.
struct Target {
    commit: Option<ObjectId>,
    root: ObjectId,
    /// The checkpoint that what comes back is taken from.
    source: Option<ObjectId>,
}

/// Changes wait as long as this lives.
struct Hold<'a> {
    workspace: &'a Workspace,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.workspace.live().held = false;
        self.workspace.released.notify_all();
    }
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
        self.with_reserve(|| self.restore_once(commit, path, dry_run, author))
    }

    fn restore_once(
        &self,
        commit: &ObjectId,
        path: Option<&[Name]>,
        dry_run: bool,
        author: &Author,
    ) -> Result<Restored, WorkspaceError> {
        let mut head = self.head();
        let root = self.repository.commit(commit)?.root_tree;
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
        self.move_to(&mut head, "restore", author, detail, |head| self.target_of(head, commit, &root, path))
    }

    /// Takes back the last restore or undo of this branch.
    pub fn undo(&self, author: &Author) -> Result<Restored, WorkspaceError> {
        self.with_reserve(|| self.undo_once(author))
    }

    /// Does something that must work on a full disk too: a second time, with the room that is kept for that.
    fn with_reserve<T>(&self, work: impl Fn() -> Result<T, WorkspaceError>) -> Result<T, WorkspaceError> {
        let done = work();
        if done.as_ref().is_err_and(WorkspaceError::is_full) { self.repository.on_reserve(work) } else { done }
    }

    fn undo_once(&self, author: &Author) -> Result<Restored, WorkspaceError> {
        let mut head = self.head();
        let plan = self.undo_of(&head.branch)?;
        let detail = serde_json::json!({ "undoes": plan.operation });
        self.move_to(&mut head, "undo", author, detail, |_| Ok(Target { commit: plan.commit, root: plan.root, source: None }))
    }

    /// Says what [`Self::undo`] would take back.
    pub fn plan_undo(&self) -> Result<UndoPlan, WorkspaceError> {
        self.undo_of(&self.branch())
    }

    fn undo_of(&self, branch: &str) -> Result<UndoPlan, WorkspaceError> {
        let nothing = || WorkspaceError::NotFound("a restore to undo".into());
        let from = self.repository.last_movement(branch)?.ok_or_else(nothing)?;
        Ok(UndoPlan { operation: from.operation, commit: from.head, root: from.root })
    }

    /// Makes the tree show `root`, which belongs to the checkpoint `commit` or to none: an import.
    pub fn replace_root(
        &self,
        operation: &'static str,
        author: &Author,
        make: &dyn Fn(&ObjectId) -> Result<ObjectId, WorkspaceError>,
    ) -> Result<Restored, WorkspaceError> {
        let mut head = self.head();
        let detail = serde_json::json!({});
        self.move_to(&mut head, operation, author, detail, |head| {
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
        let mut identities = repository.take_identities()?;
        let mut fresh = || identities.next().unwrap_or(0);
        let grafted = tree::graft(repository, &into, &from, path, Timestamp::now(), &mut fresh)?;
        let root = tree::NodeSink::put_root(repository, &grafted)?;
        Ok(Target { commit: head.commit, root, source: Some(*commit) })
    }

    /// Moves the branch: what is not checkpointed is checkpointed first, then one transaction, then the swap.
    fn move_to(
        &self,
        head: &mut Head,
        operation: &'static str,
        author: &Author,
        detail: serde_json::Value,
        target: impl Fn(&Head) -> Result<Target, WorkspaceError>,
    ) -> Result<Restored, WorkspaceError> {
        let mut safety = None;
        let mut hold = None;
        let mut chases = 0;
        loop {
            if chases == CHASES_MAX {
                hold = Some(self.hold_writers()); // What is dirty by now is little, and soon saved.
            }
            safety = self.save(head, operation, author)?.or(safety);
            let before = head.clone();
            let target = target(head)?;
            let mut live = self.live();
            if live.tree.is_dirty() {
                // Somebody wrote since the cut: that too must be checkpointed, never swapped away.
                if hold.is_some() {
                    return Err(WorkspaceError::Busy("something changed while writers were held up; try again".into()));
                }
                chases += 1;
                continue;
            }
            let changes = self.repository.changes_between(Some(&before.live_root), &target.root)?;
            if target.root == before.live_root && target.commit == before.commit {
                return Ok(Restored { changes, safety, newest: head.commit, stale: Vec::new() });
            }
            let stale = self.swap(&mut live, &before, &target, operation, author, &detail)?;
            drop(live);
            head.commit = target.commit;
            head.live_root = target.root;
            if let Some(id) = &target.commit {
                head.commit_root = Some(self.repository.commit(id)?.root_tree);
            } else {
                head.commit_root = None;
            }
            return Ok(Restored { changes, safety, newest: head.commit, stale });
        }
    }

    /// Lets changes wait until the value returned is dropped.
    fn hold_writers(&self) -> Hold<'_> {
        self.live().held = true;
        Hold { workspace: self }
    }

    /// Checkpoints what no checkpoint holds yet.
    fn save(&self, head: &mut Head, operation: &str, author: &Author) -> Result<Option<ObjectId>, WorkspaceError> {
        let mut request = CheckpointRequest::new(&format!("before {operation}"), author.clone());
        request.kind = CommitKind::Safety;
        let checkpoint = self.checkpoint_at(head, &request)?;
        Ok(checkpoint.created.then_some(checkpoint.id))
    }

    fn swap(
        &self,
        live: &mut Live,
        before: &Head,
        target: &Target,
        operation: &'static str,
        author: &Author,
        detail: &serde_json::Value,
    ) -> Result<Vec<Stale>, WorkspaceError> {
        let repository = &*self.repository;
        let (old, new) = (repository.root(&before.live_root)?, repository.root(&target.root)?);
        let diff = tree::diff_states(repository, &old, &new)?;
        let segment = live.journal.rotate().map_err(WorkspaceError::io("journal"))?;
        let movement = Movement {
            branch_id: self.branch_id,
            branch: &before.branch,
            operation,
            before: (before.commit, before.live_root),
            after: BranchState { head: target.commit, live_root: target.root, journal_seq: segment },
            source: target.source,
            author,
            detail,
        };
        if let Err(err) = repository.record_movement(&movement) {
            // When nobody knows whether a crash brings the movement back, nothing may be journaled that would be replayed over it.
            live.poisoned |= !repository.history().is_settled();
            return Err(err.into());
        }
        let stale = live.tree.swap(&new, &diff);
        if let Err(err) = live.journal.sync().forget_before(segment) {
            tracing::warn!(?err, "old journal segments stay for now");
        }
        Ok(stale)
    }
}

fn display_path(path: &[Name]) -> String {
    path.iter().map(Name::to_string).collect::<Vec<_>>().join("/")
}
