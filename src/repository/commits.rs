//! Commits, seals and movements: bytes made durable, then one transaction that names them.

use super::{Repository, RepositoryError};
use crate::history::{BranchRow, BranchState, CommitRow, Fork, HistoryError, Memento, Move, NewCommit};
use crate::object::{Author, Commit, Entry, ExternalLink, Node, ObjectId, ObjectKind, Root, Timestamp};
use crate::tree::{self, ChangeKind, NodeSink, NodeSource, PathChange};
use serde_json::Value;

/// The branch that every store has.
pub const MAIN_BRANCH: &str = "main";
/// Number of a branch's first journal segment.
pub const FIRST_SEGMENT: u64 = 1;

/// A commit that is to be recorded.
pub struct CommitRequest<'a> {
    /// The branch that moves.
    pub branch_id: i64,
    /// The record.
    pub commit: &'a Commit,
    /// Its name.
    pub name: Option<&'a str>,
    /// What it changed.
    pub changes: &'a [PathChange],
    /// The sealed state before.
    pub before_root: ObjectId,
    /// The first journal segment to replay over the commit.
    pub journal_seq: u64,
    /// What the merge was that made it, if one did.
    pub merge: Option<&'a Value>,
}

impl Repository {
    /// Makes the branch `main` with an empty top directory owned by this process's user.
    pub(super) fn init_main(&self) -> Result<(), RepositoryError> {
        let now = Timestamp::now();
        let state = BranchState { head: None, live_root: self.put_empty_root()?, journal_seq: FIRST_SEGMENT };
        let objects = self.sync_pending()?;
        self.history.create_branch(MAIN_BRANCH, &state, &objects, now)?;
        self.forget_pending(&objects);
        Ok(())
    }

    /// Stores the state of an empty top directory owned by this process's user.
    pub(super) fn put_empty_root(&self) -> Result<ObjectId, RepositoryError> {
        let now = Timestamp::now();
        let directory = Entry {
            identity: 1,
            mode: 0o755,
            uid: crate::sys::effective_uid(),
            gid: crate::sys::effective_gid(),
            nlink: 2,
            mtime: now,
            ctime: now,
            atime: now,
            xattrs: None,
            node: Node::Directory { tree: None, has_links: false },
        };
        Ok(self.put_root(&Root { directory, links: None })?)
    }

    /// Finds a branch.
    pub fn branch(&self, name: &str) -> Result<BranchRow, RepositoryError> {
        Ok(self.history.branch(name)?)
    }

    /// Finds a checkpoint by its full id.
    pub fn commit(&self, id: &ObjectId) -> Result<CommitRow, RepositoryError> {
        Ok(self.history.commit(id)?)
    }

    /// Finds a checkpoint whose state is to be used by somebody who holds [`Self::using`]: gc leaves it from here on. One that is
    /// deleted is not found, whether gc has taken what it held or not.
    pub fn commit_to_use(&self, id: &ObjectId) -> Result<CommitRow, RepositoryError> {
        let row = self.commit(id)?;
        self.note_root(row.root_tree); // First: who deletes it after the look finds it noted.
        self.history.check_kept(id)?;
        Ok(row)
    }

    /// Finds the nearest checkpoint before another that is kept, to be used likewise.
    pub fn kept_before_to_use(&self, row: &CommitRow) -> Result<Option<CommitRow>, RepositoryError> {
        loop {
            let Some(before) = self.history.kept_before(row)? else { return Ok(None) };
            match self.commit_to_use(&before.id) {
                // It was deleted after it was found.
                Err(RepositoryError::History(HistoryError::NotFound { .. })) => {}
                found => return found.map(Some),
            }
        }
    }

    /// Checks a name and links before work is done for them.
    pub fn check_labels(&self, name: Option<&str>, links: &[ExternalLink]) -> Result<(), RepositoryError> {
        Ok(self.history.check_new_labels(name, links)?)
    }

    /// Compares two states; without an old one, with an empty tree.
    pub fn changes_between(&self, old: Option<&ObjectId>, new: &ObjectId) -> Result<Vec<PathChange>, RepositoryError> {
        if old == Some(new) {
            return Ok(Vec::new());
        }
        let new = self.root(new)?;
        let old = match old {
            Some(old) => self.root(old)?,
            None => {
                let mut directory = new.directory.clone();
                directory.node = Node::Directory { tree: None, has_links: false };
                Root { directory, links: None }
            }
        };
        Ok(tree::report(self, &old, &new)?)
    }

    /// Records a commit: when this returns it is durable, complete, and names everything it holds.
    pub fn record_commit(&self, request: &CommitRequest<'_>) -> Result<ObjectId, RepositoryError> {
        let commit = request.commit;
        let id = self.put(ObjectKind::Commit, &commit.encode())?;
        self.note_root(commit.root);
        let mementos: Vec<Memento> = request.changes.iter().map(memento_of).collect();
        let bytes_changed = request.changes.iter().filter_map(|change| change.new.as_ref()).map(Entry::size_bytes).sum();
        let objects = self.sync_pending()?;
        self.history.record_commit(&NewCommit {
            id,
            commit,
            name: request.name,
            mementos: &mementos,
            bytes_changed,
            objects: &objects,
            reused: &self.take_reused(),
            branch_id: request.branch_id,
            state: BranchState { head: Some(id), live_root: commit.root, journal_seq: request.journal_seq },
            before_root: request.before_root,
            merge: request.merge,
        })?;
        self.forget_pending(&objects);
        Ok(id)
    }

    /// Records a seal without a commit.
    pub fn record_seal(&self, branch_id: i64, state: &BranchState) -> Result<(), RepositoryError> {
        self.note_root(state.live_root);
        let objects = self.sync_pending()?;
        self.history.record_seal(branch_id, state, &objects, Timestamp::now())?;
        self.forget_pending(&objects);
        Ok(())
    }

    /// Records movements of branches: all of them, or none.
    pub fn record_movements(&self, moves: &[Move<'_>]) -> Result<(), RepositoryError> {
        for moved in moves {
            self.note_root(moved.after.live_root);
        }
        let objects = self.sync_pending()?;
        self.history.record_moves(moves, &objects)?;
        self.forget_pending(&objects);
        Ok(())
    }

    /// Records a fork of the branch `from` (number and name) as `name`, which begins at `state`.
    pub fn record_fork(
        &self,
        name: &str,
        state: BranchState,
        from: (i64, &str),
        author: &Author,
    ) -> Result<BranchRow, RepositoryError> {
        self.note_root(state.live_root);
        let objects = self.sync_pending()?;
        let branch = self.history.record_fork(&Fork { name, state, from, author, objects: &objects })?;
        self.forget_pending(&objects);
        Ok(branch)
    }

    /// Returns the room where the store is.
    pub fn space(&self) -> Result<crate::sys::Space, RepositoryError> {
        Ok(self.dir.space()?)
    }

    /// Returns counters and sizes by name.
    pub fn stats(&self) -> Result<Value, RepositoryError> {
        let mut stats = serde_json::Map::new();
        for (name, count) in self.history.counters()? {
            stats.insert(name.to_owned(), count.into());
        }
        let (objects, bytes, stored) = self.history.object_totals()?;
        stats.insert("objects".into(), objects.into());
        stats.insert("objects_bytes".into(), bytes.into());
        stats.insert("objects_stored_bytes".into(), stored.into());
        let containers = self.packs.containers()?;
        let on_disk: u64 = containers.iter().map(|container| container.size_bytes).sum();
        stats.insert("packs_and_large_objects".into(), containers.len().into());
        stats.insert("packs_and_large_objects_bytes".into(), on_disk.into());
        stats.insert("pending_objects".into(), self.pending_count().into());
        Ok(stats.into())
    }
}

/// Returns what the tables say about a change.
pub(super) fn memento_of(change: &PathChange) -> Memento {
    let object = change.new.as_ref().and_then(|entry| match &entry.node {
        Node::File { content, .. } => content.object(),
        Node::Directory { tree, .. } => *tree,
        _ => None,
    });
    let from_path = match &change.kind {
        ChangeKind::Renamed { from } => Some(from.clone()),
        _ => None,
    };
    Memento {
        path: change.path.clone(),
        change: change.kind.as_str(),
        from_path,
        object,
        size_bytes: change.new.as_ref().map(Entry::size_bytes),
        mode: change.new.as_ref().or(change.old.as_ref()).map(Entry::st_mode),
    }
}
