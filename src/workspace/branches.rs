//! The branches of a store: opened when they are needed, forked, renamed, deleted and brought back.

use super::Workspace;
use super::checkpoint::CheckpointRequest;
use super::error::WorkspaceError;
use super::head::HeadGuard;
use super::movement::{Cause, Leg, Target, move_all};
use super::restore::{BranchUndo, Restored};
use crate::history::{BranchRow, BranchState, validate_branch_name};
use crate::object::{Author, CommitKind, Node, ObjectId};
use crate::repository::{FIRST_SEGMENT, GcRules, InUse, MAIN_BRANCH, Repository};
use crate::sys;
use crate::tree::NodeSource;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The branches of one store, as one process has them open.
pub struct Branches {
    repository: Arc<Repository>,
    open: Mutex<HashMap<i64, Arc<Workspace>>>,
    /// Held by whoever opens the branch of that number.
    opening: Mutex<HashMap<i64, Arc<Mutex<()>>>>,
    pins: Mutex<Pins>,
    /// Has those who only keep what they once saw of deleted checkpoints let go of it.
    let_go: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// What stands in the way of deleting branches.
#[derive(Default)]
struct Pins {
    /// How many mounts show a branch at their top.
    shown: HashMap<i64, usize>,
    /// The directories in which mounts show every branch by name.
    views: Vec<PathBuf>,
}

/// Keeps a branch from being deleted while a mount shows it.
#[must_use]
pub struct Pin {
    branches: Arc<Branches>,
    branch_id: i64,
    view: PathBuf,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.branches.pins();
        if let Some(count) = pins.shown.get_mut(&self.branch_id) {
            *count -= 1;
            if *count == 0 {
                pins.shown.remove(&self.branch_id);
            }
        }
        if let Some(at) = pins.views.iter().position(|view| *view == self.view) {
            pins.views.swap_remove(at);
        }
    }
}

impl Branches {
    /// Makes the table of the branches of a store; none is open yet.
    pub fn new(repository: Arc<Repository>) -> Arc<Self> {
        Arc::new(Self {
            repository,
            open: Mutex::default(),
            opening: Mutex::default(),
            pins: Mutex::default(),
            let_go: OnceLock::new(),
        })
    }

    /// Returns the store.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    fn table(&self) -> MutexGuard<'_, HashMap<i64, Arc<Workspace>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a branch, or returns it as it is open.
    pub fn open(&self, name: &str) -> Result<Arc<Workspace>, WorkspaceError> {
        self.open_row(self.repository.branch(name)?)
    }

    fn open_row(&self, row: BranchRow) -> Result<Arc<Workspace>, WorkspaceError> {
        if let Some(workspace) = self.table().get(&row.id) {
            return Ok(workspace.clone());
        }
        let opening = self.opening(row.id);
        let _alone = opening.lock().unwrap_or_else(PoisonError::into_inner); // Who opens another branch does not wait.
        if let Some(workspace) = self.table().get(&row.id) {
            return Ok(workspace.clone());
        }
        let row = self.repository.history().living_branch(row.id)?; // Somebody may have closed or deleted it meanwhile.
        let workspace = Workspace::open_row(self.repository.clone(), row)?;
        self.table().insert(workspace.branch_id, workspace.clone());
        Ok(workspace)
    }

    fn opening(&self, branch_id: i64) -> Arc<Mutex<()>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner).entry(branch_id).or_default().clone()
    }

    /// Returns the branches that are open.
    pub fn opened(&self) -> Vec<Arc<Workspace>> {
        self.table().values().cloned().collect()
    }

    /// Says that a mount shows a branch at its top, and all of them by name below `view`.
    pub fn pin(self: &Arc<Self>, branch_id: i64, view: PathBuf) -> Pin {
        let mut pins = self.pins();
        *pins.shown.entry(branch_id).or_default() += 1;
        pins.views.push(view.clone());
        Pin { branches: self.clone(), branch_id, view }
    }

    /// Makes a branch: from the checkpoint `at`, or from the live state of `from`, whose changes are checkpointed first.
    /// When this returns the branch survives a power cut.
    pub fn fork(
        &self,
        from: &Workspace,
        at: Option<&ObjectId>,
        name: &str,
        author: &Author,
    ) -> Result<BranchRow, WorkspaceError> {
        validate_branch_name(name)?;
        self.check_free(name)?;
        let mut head = from.head_to_move()?; // Held until the fork is named: gc leaves what it begins with.
        let (commit, root) = match at {
            Some(commit) => (Some(*commit), self.repository.commit_to_use(commit)?.root_tree),
            None => from.standing(&mut head, &format!("before fork {name}"), author)?,
        };
        let state = BranchState { head: commit, live_root: root, journal_seq: FIRST_SEGMENT };
        Ok(self.repository.record_fork(name, state, (from.branch_id, &head.branch), author)?)
    }

    fn check_free(&self, name: &str) -> Result<(), WorkspaceError> {
        match self.repository.branch(name) {
            Ok(_) => Err(WorkspaceError::Exists(format!("the branch {name}"))),
            Err(_) => Ok(()),
        }
    }

    /// Gives a branch another name.
    pub fn rename(&self, name: &str, new_name: &str, author: &Author) -> Result<(), WorkspaceError> {
        let row = self.repository.branch(name)?;
        if name == new_name {
            return Ok(());
        }
        let workspace = self.open_row(row.clone())?;
        let mut head = workspace.head_to_move()?;
        let row = self.repository.history().living_branch(row.id)?; // It may have moved until the head was ours.
        self.repository.history().rename_branch(&row, new_name, author)?;
        head.branch = new_name.to_owned();
        workspace.note_standing(&mut workspace.live(), new_name, head.commit, head.live_root, row.journal_seq);
        Ok(())
    }

    /// Deletes a branch: what it holds that no checkpoint holds is checkpointed first. The deletion is an operation of
    /// the branch `on`, whose `undo` takes it back until gc.
    pub fn delete(&self, name: &str, on: &Workspace, author: &Author) -> Result<(), WorkspaceError> {
        self.delete_row(self.repository.branch(name)?, on, author)
    }

    fn delete_row(&self, row: BranchRow, on: &Workspace, author: &Author) -> Result<(), WorkspaceError> {
        if row.id == on.branch_id {
            return Err(WorkspaceError::Busy(format!("{} is the branch you are in", row.name)));
        }
        self.check_unused(&row)?;
        let workspace = self.open_row(row)?;
        let mut head = workspace.head_to_move()?;
        let name = head.branch.clone(); // It may have been renamed until the head was ours.
        let (commit, root) = workspace.standing(&mut head, &format!("before deleting {name}"), author)?;
        workspace.close(true)?;
        let row = BranchRow { id: workspace.branch_id, name, head: commit, live_root: root, journal_seq: 0 };
        let on = (on.branch_id, on.branch());
        if let Err(err) = self.repository.history().delete_branch(&row, (on.0, &on.1), author) {
            workspace.close(false)?;
            return Err(err.into());
        }
        self.table().remove(&row.id);
        Ok(())
    }

    fn check_unused(&self, row: &BranchRow) -> Result<(), WorkspaceError> {
        let (shown, views) = {
            let pins = self.pins();
            (pins.shown.contains_key(&row.id), pins.views.clone())
        };
        if shown {
            return Err(WorkspaceError::Busy(format!("a mount shows the branch {}", row.name)));
        }
        match views.iter().find_map(|view| sys::process_within(&view.join(&row.name), self.repository.path())) {
            Some(pid) => Err(WorkspaceError::Busy(format!("process {pid} is using the branch {}", row.name))),
            None => Ok(()),
        }
    }

    /// Takes back the last restore, undo, merge, import or deletion of a branch that was asked for on `workspace`.
    pub fn undo(&self, workspace: &Workspace, author: &Author) -> Result<Restored, WorkspaceError> {
        match workspace.plan_undo()?.branch {
            None => workspace.undo(author),
            Some((id, BranchUndo::Delete)) => {
                // By its number: somebody else may have deleted it since, and its name be another branch's.
                self.delete_row(self.repository.history().living_branch(id)?, workspace, author)?;
                Ok(Restored::nothing(workspace))
            }
            Some((id, BranchUndo::Revive)) => {
                let row = self.repository.history().branch_by_id(id)?;
                let gone = |_| WorkspaceError::NotFound(format!("what the branch {} held, which gc has taken,", row.name));
                self.repository.root(&row.live_root).map_err(gone)?;
                let (on, standing) = ((workspace.branch_id, workspace.branch()), workspace.head().standing());
                self.repository.history().revive_branch(&row, (on.0, &on.1), standing, author)?;
                Ok(Restored::nothing(workspace))
            }
        }
    }

    /// Restores several branches, each to a checkpoint: all of them in one transaction, or none.
    pub fn restore(
        &self,
        targets: &[(Arc<Workspace>, ObjectId)],
        author: &Author,
    ) -> Result<Vec<(Arc<Workspace>, Restored)>, WorkspaceError> {
        let mut targets: Vec<_> = targets.to_vec();
        targets.sort_by_key(|(workspace, _)| workspace.branch_id); // Heads are taken in the order of the branches' numbers.
        if targets.windows(2).any(|pair| pair[0].0.branch_id == pair[1].0.branch_id) {
            return Err(WorkspaceError::Invalid("a branch is named twice".into()));
        }
        let _use = self.repository.using();
        let mut destinations = Vec::new();
        for (_, commit) in &targets {
            let (commit, root) = (*commit, self.repository.commit_to_use(commit)?.root_tree);
            destinations.push(move |_: &super::Head| Ok(Target { commit: Some(commit), root, source: Some(commit) }));
        }
        let names: Vec<String> = targets.iter().map(|(workspace, _)| workspace.branch()).collect();
        let cause = Cause { operation: "restore", author, detail: serde_json::json!({ "branches": names }) };
        let legs = targets.iter().zip(&destinations);
        let legs = legs.map(|((workspace, _), to)| Ok(Leg::new(workspace, workspace.head_to_move()?, to)));
        let mut legs = legs.collect::<Result<Vec<Leg<'_>>, WorkspaceError>>()?;
        let moved = move_all(&mut legs, &cause)?;
        drop(legs);
        Ok(targets.into_iter().map(|(workspace, _)| workspace).zip(moved).collect())
    }

    /// Has `let_go` called when gc is about to ask what is in use: of what its caller merely remembers of deleted checkpoints, nothing
    /// should be held any more when it returns. Only the first call counts.
    pub fn when_collecting(&self, let_go: Box<dyn Fn() + Send + Sync>) {
        let _ = self.let_go.set(let_go);
    }

    /// Reclaims space in the store; what the live trees and open files of open branches use stays.
    pub fn collect(&self, rules: &GcRules, author: &Author) -> Result<serde_json::Value, WorkspaceError> {
        let in_use = || {
            if let (Some(let_go), false) = (self.let_go.get(), rules.dry_run) {
                let_go();
            }
            InUse { contents: self.opened().iter().flat_map(|workspace| workspace.contents()).collect() }
        };
        let report = self.repository.collect(rules, author, &in_use)?;
        if !rules.dry_run {
            self.remove_left_over()?;
        }
        Ok(report)
    }

    /// Removes the journals and staging files of deleted branches: all in them is sealed.
    fn remove_left_over(&self) -> Result<(), WorkspaceError> {
        for id in self.repository.history().deleted_branches()? {
            let opening = self.opening(id);
            let _alone = opening.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.repository.history().deleted_branches()?.contains(&id) {
                continue; // It was brought back meanwhile.
            }
            for part in ["journal", "staging"] {
                match std::fs::remove_dir_all(self.repository.path().join(part).join(id.to_string())) {
                    Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                        tracing::warn!(id, part, %err, "what is left of a deleted branch stays for now");
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Makes the changes of every open branch survive a power cut, as [`Workspace::sync_all`] does.
    pub fn sync_all(&self) -> Result<(), WorkspaceError> {
        self.opened().iter().try_for_each(|workspace| workspace.sync_all())
    }

    /// Does what is due from time to time: makes changes that nobody synced durable, and seals branches whose journal has
    /// grown long without a write that would have said so.
    pub fn upkeep(&self) {
        for workspace in self.opened() {
            workspace.live().rest_all();
            if let Err(err) = workspace.sync() {
                tracing::warn!(branch = workspace.branch(), %err, "the journal could not be synced");
            }
            if workspace.is_seal_due()
                && let Err(err) = workspace.seal_now()
            {
                tracing::warn!(branch = workspace.branch(), %err, "background seal failed");
            }
        }
    }

    /// Reads the large files that went quiet since the last call, as long as `goes_on` says so, while everybody else has the processor first.
    pub fn prepare_quiet_files(&self, goes_on: &(dyn Fn() -> bool + Sync)) {
        self.opened().iter().for_each(|workspace| workspace.prepare_quiet_files(goes_on));
    }

    /// Lets go of what is kept in memory only because it may be wanted again.
    pub fn rest(&self) {
        for workspace in self.opened() {
            workspace.live().tree.shrink();
        }
        self.repository.rest();
    }

    /// Opens the branch that every store begins with, or, when it was renamed or deleted, the first there is.
    pub fn open_first(&self) -> Result<Arc<Workspace>, WorkspaceError> {
        match self.repository.branch(MAIN_BRANCH) {
            Ok(row) => self.open_row(row),
            Err(missing) => self.open_row(self.repository.history().branches()?.into_iter().next().ok_or(missing)?),
        }
    }
}

impl Workspace {
    /// Checkpoints what is not checkpointed, and says where the branch then stands. An empty new branch needs no checkpoint.
    pub(super) fn standing(
        &self,
        head: &mut HeadGuard<'_>,
        message: &str,
        author: &Author,
    ) -> Result<(Option<ObjectId>, ObjectId), WorkspaceError> {
        let clean = !self.live().is_dirty();
        let named = match head.commit {
            Some(_) => head.commit_root == Some(head.live_root),
            None => self.is_empty_state(&head.live_root)?,
        };
        if !(clean && named) {
            let mut request = CheckpointRequest::new(message, author.clone());
            request.kind = CommitKind::Auto;
            self.checkpoint_at(head, &request)?;
        }
        Ok(head.standing())
    }

    fn is_empty_state(&self, root: &ObjectId) -> Result<bool, WorkspaceError> {
        let root = self.repository.root(root)?;
        Ok(root.links.is_none() && matches!(root.directory.node, Node::Directory { tree: None, .. }))
    }

    /// Lets nothing change any more, or lets it again. Refuses when something is not checkpointed.
    fn close(&self, closed: bool) -> Result<(), WorkspaceError> {
        let mut live = self.live();
        if closed && live.is_dirty() {
            return Err(WorkspaceError::Busy("the branch is being written to".into()));
        }
        live.closed = closed;
        Ok(())
    }

    fn contents(&self) -> Vec<crate::object::Content> {
        self.live().tree.contents()
    }
}

impl super::Head {
    /// Returns the newest checkpoint and the sealed state.
    pub(super) fn standing(&self) -> (Option<ObjectId>, ObjectId) {
        (self.commit, self.live_root)
    }
}

impl Restored {
    fn nothing(workspace: &Workspace) -> Self {
        Self { changes: Vec::new(), safety: None, newest: workspace.newest(), stale: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
