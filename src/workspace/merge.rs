//! Bringing the work of another branch into this one: a checkpoint before, one transaction, a checkpoint after.

use super::changes::Live;
use super::checkpoint::CheckpointRequest;
use super::error::WorkspaceError;
use super::merge_text::TextMerger;
use super::movement::{CHASES_MAX, HELD_UP_MAX};
use super::swap::Stale;
use super::{Head, Workspace};
use crate::history::MERGED_KEY;
use crate::object::{Author, Commit, CommitKind, ObjectId, Timestamp};
use crate::repository::CommitRequest;
use crate::tree::{self, MergeConflict, MergePolicy, MergeRules, NodeSink, NodeSource, PathChange};
use serde_json::json;

/// What is to be merged.
#[derive(Clone, Debug)]
pub struct MergeSource {
    /// What people call it: the name of the branch, or the reference.
    pub name: String,
    /// Its checkpoint.
    pub commit: ObjectId,
    /// The state that is merged: that of the checkpoint, or, for a preview, a newer one that no checkpoint holds yet.
    pub root: ObjectId,
}

/// How a merge is to be done.
#[derive(Clone, Debug)]
pub struct MergeRequest {
    /// What is to be merged.
    pub source: MergeSource,
    /// Which side conflicts take.
    pub policy: MergePolicy,
    /// Refuses when there is a conflict.
    pub refuse_conflicts: bool,
    /// Only says what would change.
    pub dry_run: bool,
    /// Who asks.
    pub author: Author,
}

/// What a merge did, or would do.
#[derive(Debug)]
pub struct Merged {
    /// The newest checkpoint that both sides come from.
    pub base: ObjectId,
    /// The paths that changed in this branch.
    pub changes: Vec<PathChange>,
    /// What both sides had changed differently.
    pub conflicts: Vec<MergeConflict>,
    /// The checkpoint of what had not been checkpointed, when one had to be taken.
    pub safety: Option<ObjectId>,
    /// The checkpoint of the merge; none for a preview, and when this branch had all of it.
    pub commit: Option<ObjectId>,
    /// The newest checkpoint of this branch afterwards.
    pub newest: Option<ObjectId>,
    /// What the kernel must forget.
    pub stale: Vec<Stale>,
}

/// A merged state that is stored.
struct Outcome {
    root: ObjectId,
    conflicts: Vec<MergeConflict>,
}

impl Workspace {
    /// Merges a state into this branch. All or nothing, and `undo` takes it back.
    pub fn merge(&self, request: &MergeRequest) -> Result<Merged, WorkspaceError> {
        let mut head = self.head_to_move()?;
        let source = &request.source;
        let base = self.merge_base(&head, source)?;
        let base_root = self.repository.commit_to_use(&base)?.root_tree;
        let commit_root = self.repository.commit_to_use(&source.commit)?.root_tree;
        let (newest, stale) = (head.commit, Vec::new());
        if base == source.commit && source.root == commit_root {
            let (changes, conflicts) = (Vec::new(), Vec::new());
            return Ok(Merged { base, changes, conflicts, safety: None, commit: None, newest, stale });
        }
        if request.dry_run || request.refuse_conflicts {
            let pending = self.seal()?;
            self.record_seal(&mut head, pending)?;
            let outcome = self.merged(&head, &base_root, request)?;
            refuse(&outcome.conflicts, request)?;
            if request.dry_run {
                let changes = self.repository.changes_between(Some(&head.live_root), &outcome.root)?;
                return Ok(Merged { base, changes, conflicts: outcome.conflicts, safety: None, commit: None, newest, stale });
            }
        }
        self.merge_into(&mut head, base, &base_root, request)
    }

    fn merge_base(&self, head: &Head, source: &MergeSource) -> Result<ObjectId, WorkspaceError> {
        let missing = || WorkspaceError::NotFound(format!("a common ancestor of {} and {}", head.branch, source.name));
        let newest = head.commit.ok_or_else(missing)?;
        self.repository.history().common_ancestor(&newest, &source.commit)?.ok_or_else(missing)
    }

    fn merged(&self, head: &Head, base: &ObjectId, request: &MergeRequest) -> Result<Outcome, WorkspaceError> {
        let repository = &*self.repository;
        let labels = (head.branch.as_str(), request.source.name.as_str());
        let content = TextMerger { repository, policy: request.policy, labels };
        let rules = MergeRules { policy: request.policy, labels, now: Timestamp::now(), content: &content };
        let (base, ours, theirs) =
            (repository.root(base)?, repository.root(&head.live_root)?, repository.root(&request.source.root)?);
        let mut identities = repository.identities();
        let merged = tree::merge(repository, (&base, &ours, &theirs), &rules, &mut || identities.fresh())?;
        identities.finish()?;
        Ok(Outcome { root: repository.put_root(&merged.root)?, conflicts: merged.conflicts })
    }

    fn merge_into(
        &self,
        head: &mut Head,
        base: ObjectId,
        base_root: &ObjectId,
        request: &MergeRequest,
    ) -> Result<Merged, WorkspaceError> {
        let (mut safety, mut hold) = (None, None);
        for chases in 0.. {
            if chases == CHASES_MAX {
                hold = Some(self.live.hold()); // What is dirty by now is little, and soon saved.
            }
            safety = self.save_before_merge(head, &request.author)?.or(safety);
            let outcome = self.merged(head, base_root, request)?;
            refuse(&outcome.conflicts, request)?;
            let changes = self.repository.changes_between(Some(&head.live_root), &outcome.root)?;
            let mut live = self.live();
            let dirty = if hold.is_some() { live.tree.is_dirty() } else { live.is_dirty() };
            if dirty {
                // Somebody wrote since the cut: that too must be checkpointed first, and merged.
                if chases >= CHASES_MAX + HELD_UP_MAX {
                    return Err(WorkspaceError::Busy("something changed while writers were held up; try again".into()));
                }
                continue;
            }
            let (id, stale) = self.swap_merged(&mut live, head, &outcome, &changes, request, &base)?;
            drop(live);
            (head.commit, head.commit_root, head.live_root) = (Some(id), Some(outcome.root), outcome.root);
            let (commit, newest, conflicts) = (Some(id), Some(id), outcome.conflicts);
            return Ok(Merged { base, changes, conflicts, safety, commit, newest, stale });
        }
        Err(WorkspaceError::Busy("writers were faster than the merge; try again".into()))
    }

    /// Checkpoints what no checkpoint holds yet.
    fn save_before_merge(&self, head: &mut Head, author: &Author) -> Result<Option<ObjectId>, WorkspaceError> {
        let mut request = CheckpointRequest::new("before merge", author.clone());
        request.kind = CommitKind::Safety;
        let checkpoint = self.checkpoint_at(head, &request)?;
        Ok(checkpoint.created.then_some(checkpoint.id))
    }

    /// Records the merge in one transaction and shows it.
    fn swap_merged(
        &self,
        live: &mut Live,
        before: &Head,
        outcome: &Outcome,
        changes: &[PathChange],
        request: &MergeRequest,
        base: &ObjectId,
    ) -> Result<(ObjectId, Vec<Stale>), WorkspaceError> {
        let repository = &*self.repository;
        let (old, new) = (repository.root(&before.live_root)?, repository.root(&outcome.root)?);
        let diff = tree::diff_states(repository, &old, &new)?;
        let segment = live.journal.rotate().map_err(WorkspaceError::io("journal"))?;
        let commit = Commit {
            parent: before.commit,
            root: outcome.root,
            time: Timestamp::now(),
            message: format!("merge {}", request.source.name),
            metadata: json!({ MERGED_KEY: request.source.commit.to_hex() }).to_string(),
            links: Vec::new(),
            branch: before.branch.clone(),
            author: request.author.clone(),
            kind: CommitKind::Manual,
        };
        let detail = json!({
            MERGED_KEY: request.source.commit.to_hex(),
            "name": request.source.name,
            "base": base.to_hex(),
            "conflicts": outcome.conflicts.len(),
        });
        let recorded = repository.record_commit(&CommitRequest {
            branch_id: self.branch_id,
            commit: &commit,
            name: None,
            changes,
            before_root: before.live_root,
            journal_seq: segment,
            merge: Some(&detail),
        });
        // As for every movement: see `movement::go`.
        live.poisoned |= recorded.is_err() && !repository.history().is_settled();
        let id = recorded?;
        let stale = live.tree.swap(&new, &diff);
        live.name_held_again();
        self.note_standing(live, &before.branch, Some(id), outcome.root, segment);
        if let Err(err) = live.journal.sync().forget_before(segment) {
            tracing::warn!(?err, "old journal segments stay for now");
        }
        Ok((id, stale))
    }
}

fn refuse(conflicts: &[MergeConflict], request: &MergeRequest) -> Result<(), WorkspaceError> {
    const NAMED_MAX: usize = 3;
    if !request.refuse_conflicts || conflicts.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = conflicts
        .iter()
        .take(NAMED_MAX)
        .map(|conflict| format!("{} ({})", String::from_utf8_lossy(&conflict.path), conflict.kind.as_str()))
        .collect();
    let more = if conflicts.len() > NAMED_MAX { ", …" } else { "" };
    let count = conflicts.len();
    Err(WorkspaceError::Conflict(format!("{count} in conflict, nothing was changed: {}{more}", named.join(", "))))
}
