//! Taking a checkpoint: cut, seal, one transaction, settle.

use super::changes::Live;
use super::cut::Cut;
use super::error::WorkspaceError;
use super::seal::{self, Sealed};
use super::{Head, Workspace};
use crate::history::BranchState;
use crate::object::{Author, Commit, CommitKind, ExternalLink, ObjectId, Timestamp};
use crate::repository::CommitRequest;
use crate::tree::PathChange;
use std::time::Instant;

/// What a caller says about a checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointRequest {
    /// Free text.
    pub message: String,
    /// A name for it.
    pub name: Option<String>,
    /// Ids of other systems to tie to it.
    pub links: Vec<ExternalLink>,
    /// Free metadata, a JSON object as text.
    pub metadata: String,
    /// Makes a commit even when nothing changed.
    pub allow_empty: bool,
    /// The checkpoint that must be the newest for this to happen.
    pub expect: Option<ObjectId>,
    /// Why it is taken.
    pub kind: CommitKind,
    /// Who asks.
    pub author: Author,
}

impl CheckpointRequest {
    /// Asks for a checkpoint with a message and nothing else.
    pub fn new(message: &str, author: Author) -> Self {
        Self {
            message: message.to_owned(),
            name: None,
            links: Vec::new(),
            metadata: "{}".to_owned(),
            allow_empty: false,
            expect: None,
            kind: CommitKind::Manual,
            author,
        }
    }
}

/// A checkpoint that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its id.
    pub id: ObjectId,
    /// Whether it was made now; otherwise nothing had changed and it is the one that was there.
    pub created: bool,
    /// Number of paths changed.
    pub files_changed: u64,
}

/// A cut that is sealed but named by no transaction yet.
pub(super) struct Pending {
    taken: Taken,
    sealed: Sealed,
}

/// What a cut takes out of the live tree.
struct Taken {
    cut: Cut,
    /// Replaying starts here once the seal is named.
    segment: u64,
    /// Staging files that nothing needs then.
    released: Vec<u64>,
    time: Timestamp,
}

impl Pending {
    /// Returns the id of the sealed root.
    pub(super) fn root_id(&self) -> ObjectId {
        self.sealed.root_id
    }
}

impl Workspace {
    /// Takes a checkpoint. When this returns it survives a power cut, complete.
    pub fn checkpoint(&self, request: &CheckpointRequest) -> Result<Checkpoint, WorkspaceError> {
        let mut head = self.head_to_move()?;
        check_expected(&head, request.expect.as_ref())?;
        self.repository.check_labels(request.name.as_deref(), &request.links)?;
        self.checkpoint_at(&mut head, request)
    }

    pub(super) fn checkpoint_at(&self, head: &mut Head, request: &CheckpointRequest) -> Result<Checkpoint, WorkspaceError> {
        // As a whole: the last bytes of the objects are written when they are to be durable.
        self.making_room(|| self.checkpoint_once(head, request))
    }

    fn checkpoint_once(&self, head: &mut Head, request: &CheckpointRequest) -> Result<Checkpoint, WorkspaceError> {
        let begun = Instant::now();
        let pending = self.seal()?;
        let sealed = begun.elapsed();
        let root = pending.as_ref().map_or(head.live_root, Pending::root_id);
        if let (Some(id), true, false) = (head.commit, head.commit_root == Some(root), request.allow_empty) {
            self.record_seal(head, pending)?;
            let (name, links) = (request.name.as_deref(), &request.links);
            self.repository.history().attach(&id, name, links, &request.author, Timestamp::now())?;
            return Ok(Checkpoint { id, created: false, files_changed: 0 });
        }
        let changes = self.repository.changes_between(head.commit_root.as_ref(), &root);
        let changes = changes.map_err(WorkspaceError::from);
        let compared = begun.elapsed();
        let recorded = changes.and_then(|changes| self.record_commit(head, pending.as_ref(), root, request, &changes));
        match recorded {
            Ok((checkpoint, segment)) => {
                let recorded = begun.elapsed();
                self.note_standing(&mut self.live(), &head.branch, Some(checkpoint.id), root, segment);
                self.settle(pending);
                self.repository.keep_reserve();
                tracing::debug!(?sealed, ?compared, ?recorded, settled = ?begun.elapsed(), "checkpoint");
                head.commit = Some(checkpoint.id);
                head.commit_root = Some(root);
                head.live_root = root;
                Ok(checkpoint)
            }
            Err(err) => {
                self.abandon(pending);
                Err(err)
            }
        }
    }

    fn record_commit(
        &self,
        head: &Head,
        pending: Option<&Pending>,
        root: ObjectId,
        request: &CheckpointRequest,
        changes: &[PathChange],
    ) -> Result<(Checkpoint, u64), WorkspaceError> {
        let mut links = request.links.clone();
        links.sort();
        links.dedup();
        let commit = Commit {
            parent: head.commit,
            root,
            time: pending.map_or_else(Timestamp::now, |pending| pending.taken.time),
            message: request.message.clone(),
            metadata: request.metadata.clone(),
            links,
            branch: head.branch.clone(),
            author: request.author.clone(),
            kind: request.kind,
        };
        let journal_seq = match pending {
            Some(pending) => pending.taken.segment,
            None => self.live().journal.segment(), // Clean: what the segment holds so far changed nothing.
        };
        let id = self.repository.record_commit(&CommitRequest {
            branch_id: self.branch_id,
            commit: &commit,
            name: request.name.as_deref(),
            changes,
            before_root: head.live_root,
            journal_seq,
            merge: None,
        })?;
        Ok((Checkpoint { id, created: true, files_changed: changes.len() as u64 }, journal_seq))
    }

    /// Cuts and seals what is dirty; nothing when the tree is clean. The caller settles or abandons it.
    pub(super) fn seal(&self) -> Result<Option<Pending>, WorkspaceError> {
        let Some(taken) = cut_live(&mut self.live())? else { return Ok(None) };
        match seal::seal(&self.repository, &taken.cut) {
            Ok(sealed) => Ok(Some(Pending { taken, sealed })),
            Err(err) => {
                self.give_back(taken);
                Err(err)
            }
        }
    }

    /// Gives up on a seal that no transaction names: everything in it is as dirty as before.
    fn abandon(&self, pending: Option<Pending>) {
        if let Some(pending) = pending {
            self.give_back(pending.taken);
        }
    }

    fn give_back(&self, taken: Taken) {
        let unsaved_bytes = taken.cut.bytes_to_save();
        let mut live = self.live();
        live.unsaved_bytes = unsaved_bytes;
        live.tree.abandon_cut();
        live.journal.trim_previous();
        live.staging.release(taken.released);
    }

    /// Names a seal in the database without making a commit, and settles it.
    pub(super) fn record_seal(&self, head: &mut Head, pending: Option<Pending>) -> Result<(), WorkspaceError> {
        let Some(pending) = pending else { return Ok(()) };
        let state = BranchState { head: head.commit, live_root: pending.root_id(), journal_seq: pending.taken.segment };
        if let Err(err) = self.repository.record_seal(self.branch_id, &state) {
            self.abandon(Some(pending));
            return Err(err.into());
        }
        head.live_root = pending.root_id();
        self.note_standing(&mut self.live(), &head.branch, head.commit, head.live_root, pending.taken.segment);
        self.settle(Some(pending));
        Ok(())
    }

    /// Seals what is dirty, so that recovery is short and the sealed state is current.
    pub fn seal_now(&self) -> Result<ObjectId, WorkspaceError> {
        let mut head = self.head_to_move()?;
        self.making_room(|| {
            let pending = self.seal()?;
            self.record_seal(&mut head, pending)
        })?;
        self.repository.note_root(head.live_root); // Before the branch can leave it.
        Ok(head.live_root)
    }

    /// Marks clean what a durable transaction names, and lets go of what only a replay needed.
    pub(super) fn settle(&self, pending: Option<Pending>) {
        let Some(Pending { taken: Taken { cut, segment, released, .. }, sealed }) = pending else { return };
        let (staging, journal) = {
            let mut live = self.live();
            live.tree.settle(&cut, &sealed.directories, &sealed.files, sealed.root.links);
            live.rest_all();
            (live.staging.clone(), live.journal.sync())
        };
        drop(cut); // The last reference to staging files that are sealed now.
        staging.remove(&released);
        if let Err(err) = journal.forget_before(segment) {
            tracing::warn!(?err, "old journal segments stay for now");
        }
    }
}

/// Takes what changed out of the live tree and starts the next journal segment.
fn cut_live(live: &mut Live) -> Result<Option<Taken>, WorkspaceError> {
    live.rest_all();
    live.unsaved_bytes = 0;
    if !live.is_dirty() {
        return Ok(None);
    }
    if live.poisoned {
        return Err(WorkspaceError::ReadOnly);
    }
    live.unsaved_bytes = u64::MAX;
    let segment = live.journal.rotate().map_err(WorkspaceError::io("journal"))?;
    live.name_held()?;
    let cut = live.tree.cut()?;
    live.dirty_bytes = 0;
    live.unsaved_bytes = 0; // Unless the seal fails.
    Ok(Some(Taken { cut, segment, released: live.staging.take_released(), time: Timestamp::now() }))
}

pub(super) fn check_expected(head: &Head, expect: Option<&ObjectId>) -> Result<(), WorkspaceError> {
    match (expect, &head.commit) {
        (Some(expect), Some(newest)) if expect == newest => Ok(()),
        (Some(expect), Some(newest)) => Err(WorkspaceError::Stale(format!("the newest checkpoint is {newest}, not {expect}"))),
        (Some(expect), None) => Err(WorkspaceError::Stale(format!("there is no checkpoint yet, {expect} was expected"))),
        (None, _) => Ok(()),
    }
}
