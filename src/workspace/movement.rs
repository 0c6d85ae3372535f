//! Movements of branches: what would be lost is checkpointed, one transaction moves all of them, then each tree is swapped.

use super::Workspace;
use super::changes::Live;
use super::checkpoint::CheckpointRequest;
use super::error::WorkspaceError;
use super::gate::Entered;
use super::head::{Head, HeadGuard};
use super::restore::Restored;
use super::swap::Stale;
use crate::history::{BranchState, Move};
use crate::object::{Author, CommitKind, ObjectId, Root};
use crate::repository::Repository;
use crate::tree::{self, NodeSource, PathChange, StateDiff};

/// How often a movement seals again because writers were faster, before it holds them up.
pub(super) const CHASES_MAX: usize = 4;
/// How often more while they are held up: somebody may have noted what the kernel wrote by itself.
pub(super) const HELD_UP_MAX: usize = 8;

/// Where a branch is to go.
pub(super) struct Target {
    /// The checkpoint on which it will stand.
    pub commit: Option<ObjectId>,
    /// The state that it will show.
    pub root: ObjectId,
    /// The checkpoint that what comes back is taken from.
    pub source: Option<ObjectId>,
}

/// Says where a branch is to go, seen from where it stands.
pub(super) type Destination<'a> = dyn Fn(&Head) -> Result<Target, WorkspaceError> + 'a;

/// What moves branches, for the record.
pub(super) struct Cause<'a> {
    pub operation: &'static str,
    pub author: &'a Author,
    pub detail: serde_json::Value,
}

/// One branch of a movement.
pub(super) struct Leg<'a> {
    workspace: &'a Workspace,
    head: HeadGuard<'a>,
    destination: &'a Destination<'a>,
    safety: Option<ObjectId>,
}

impl<'a> Leg<'a> {
    /// Prepares a movement. Legs of several branches are made in the order of the branches' numbers: each holds a head.
    pub fn new(workspace: &'a Workspace, head: HeadGuard<'a>, destination: &'a Destination<'a>) -> Self {
        Self { workspace, head, destination, safety: None }
    }

    /// Checkpoints what no checkpoint holds yet.
    fn save(&mut self, cause: &Cause<'_>) -> Result<(), WorkspaceError> {
        let mut request = CheckpointRequest::new(&format!("before {}", cause.operation), cause.author.clone());
        request.kind = CommitKind::Safety;
        let checkpoint = self.workspace.checkpoint_at(&mut self.head, &request)?;
        if checkpoint.created {
            self.safety = Some(checkpoint.id);
        }
        Ok(())
    }
}

/// A leg that is ready to go: nothing of its tree is dirty, and nothing becomes so while its live tree is locked.
struct Step {
    target: Target,
    /// The state of the checkpoint on which the branch will stand.
    commit_root: Option<ObjectId>,
    changes: Vec<PathChange>,
    /// What is to be swapped; nothing for a branch that is where it is to go.
    swap: Option<(Root, StateDiff)>,
}

impl Step {
    fn plan(repository: &Repository, head: &Head, target: Target) -> Result<Self, WorkspaceError> {
        let changes = repository.changes_between(Some(&head.live_root), &target.root)?;
        // Everything that can fail comes before the transaction: a movement that is told as failed must not have happened.
        let commit_root = target.commit.map(|id| repository.commit(&id)).transpose()?.map(|commit| commit.root_tree);
        if target.root == head.live_root && target.commit == head.commit {
            return Ok(Self { target, commit_root, changes, swap: None });
        }
        let (old, new) = (repository.root(&head.live_root)?, repository.root(&target.root)?);
        let diff = tree::diff_states(repository, &old, &new)?;
        Ok(Self { target, commit_root, changes, swap: Some((new, diff)) })
    }
}

/// Moves every leg to its destination, or none.
pub(super) fn move_all(legs: &mut [Leg<'_>], cause: &Cause<'_>) -> Result<Vec<Restored>, WorkspaceError> {
    let Some(repository) = legs.first().map(|leg| leg.workspace.repository.clone()) else { return Ok(Vec::new()) };
    let mut holds = Vec::new();
    for chase in 0.. {
        if chase == CHASES_MAX {
            holds.extend(legs.iter().map(|leg| leg.workspace.live.hold())); // What is dirty by now is little, and soon saved.
        }
        legs.iter_mut().try_for_each(|leg| leg.save(cause))?;
        let targets = legs.iter().map(|leg| (leg.destination)(&leg.head)).collect::<Result<Vec<_>, _>>()?;
        let mut lives: Vec<Entered<'_, Live>> = legs.iter().map(|leg| leg.workspace.live()).collect();
        // Whom nobody can hold up, the kernel with a file in hand, writes before the checkpoint or after the movement.
        let held_up = !holds.is_empty();
        if lives.iter_mut().any(|live| if held_up { live.tree.is_dirty() } else { live.is_dirty() }) {
            // Somebody wrote since the cut: that too must be checkpointed, never swapped away.
            if chase >= CHASES_MAX + HELD_UP_MAX {
                return Err(WorkspaceError::Busy("something changed while writers were held up; try again".into()));
            }
            continue;
        }
        let steps = legs.iter().zip(targets).map(|(leg, target)| Step::plan(&repository, &leg.head, target));
        let steps = steps.collect::<Result<Vec<_>, _>>()?;
        let stale = go(&repository, legs, &mut lives, &steps, cause)?;
        drop(lives);
        return Ok(legs.iter_mut().zip(steps).zip(stale).map(|((leg, step), stale)| arrive(leg, step, stale)).collect());
    }
    Ok(Vec::new())
}

/// Records the movements in one transaction and swaps each tree; returns what the kernel must forget of each branch.
fn go(
    repository: &Repository,
    legs: &[Leg<'_>],
    lives: &mut [Entered<'_, Live>],
    steps: &[Step],
    cause: &Cause<'_>,
) -> Result<Vec<Vec<Stale>>, WorkspaceError> {
    let mut moves = Vec::new();
    for ((leg, live), step) in legs.iter().zip(lives.iter_mut()).zip(steps) {
        if step.swap.is_some() {
            let segment = live.journal.rotate().map_err(WorkspaceError::io("journal"))?;
            moves.push(Move {
                operation: cause.operation,
                branch_id: leg.workspace.branch_id,
                branch: &leg.head.branch,
                before: (leg.head.commit, leg.head.live_root),
                after: BranchState { head: step.target.commit, live_root: step.target.root, journal_seq: segment },
                source: step.target.source,
                author: cause.author,
                detail: &cause.detail,
            });
        }
    }
    if !moves.is_empty()
        && let Err(err) = repository.record_movements(&moves)
    {
        // When nobody knows whether a crash brings the movements back, nothing may be journaled that would be replayed over them.
        let doubtful = !repository.history().is_settled();
        lives.iter_mut().for_each(|live| live.poisoned |= doubtful);
        return Err(err.into());
    }
    let swapped = legs.iter().zip(lives.iter_mut()).zip(steps).map(|((leg, live), step)| swap_live(leg, live, step));
    Ok(swapped.collect())
}

fn swap_live(leg: &Leg<'_>, live: &mut Live, step: &Step) -> Vec<Stale> {
    let Some((root, diff)) = &step.swap else { return Vec::new() };
    let stale = live.tree.swap(root, diff);
    live.name_held_again();
    let segment = live.journal.segment();
    leg.workspace.note_standing(live, &leg.head.branch, step.target.commit, step.target.root, segment);
    if let Err(err) = live.journal.sync().forget_before(segment) {
        tracing::warn!(?err, "old journal segments stay for now");
    }
    stale
}

fn arrive(leg: &mut Leg<'_>, step: Step, stale: Vec<Stale>) -> Restored {
    if step.swap.is_some() {
        leg.head.commit = step.target.commit;
        leg.head.live_root = step.target.root;
        leg.head.commit_root = step.commit_root;
    }
    Restored { changes: step.changes, safety: leg.safety, newest: leg.head.commit, stale }
}
