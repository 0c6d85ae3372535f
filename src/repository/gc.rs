//! Reclaims what nothing names: checkpoints by rule, objects no state reaches, packs with little left in them.
//!
//! Objects are marked from every kept state, from what live trees and open files use, and from what this process stored
//! or was asked for since the run began. Whatever a crash interrupts leaves objects that are still named, or bytes that
//! nothing names; never a name without bytes.

use super::watch::Watch;
use super::{Repository, RepositoryError};
use crate::history::{KeepRules, removable};
use crate::object::{Author, Content, ObjectId, Timestamp};
use crate::tree::{self, NodeSource, Reached};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::TryLockError;
use std::time::{Duration, SystemTime};

/// What is younger than this stays, unless the run says otherwise.
const GRACE_SECS: u64 = 600;

/// How to collect.
#[derive(Clone, Debug, Default)]
pub struct GcRules {
    /// Only says what would go.
    pub dry_run: bool,
    /// Leaves nothing of what is unreachable in the files of the store: no grace, and every file with dead bytes is rewritten.
    pub purge: bool,
    /// Leaves what is younger.
    pub grace_secs: Option<u64>,
    /// Keeps this many of the newest checkpoints.
    pub keep_last: Option<u32>,
    /// Keeps the newest of each of this many hours.
    pub keep_hourly: Option<u32>,
    /// Keeps the newest of each of this many days.
    pub keep_daily: Option<u32>,
    /// Keeps the newest of each of this many weeks.
    pub keep_weekly: Option<u32>,
}

/// What live trees and open files use.
#[derive(Debug, Default)]
pub struct InUse {
    /// Contents of files that are loaded.
    pub contents: Vec<Content>,
}

/// One run.
pub(super) struct Run {
    cutoff: Timestamp,
    pub(super) cutoff_system: SystemTime,
    dry_run: bool,
    pub(super) purge: bool,
    reached: HashSet<ObjectId>,
}

impl Repository {
    /// Collects. One run at a time; file operations go on meanwhile.
    pub fn collect(&self, rules: &GcRules, author: &Author, in_use: &dyn Fn() -> InUse) -> Result<Value, RepositoryError> {
        let _alone = match self.collecting.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(RepositoryError::Busy("another run of gc is going on".into())),
        };
        let grace = Duration::from_secs(rules.grace_secs.unwrap_or(if rules.purge { 0 } else { GRACE_SECS }));
        let cutoff_system = SystemTime::now().checked_sub(grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let cutoff = Timestamp::from(cutoff_system);
        self.watch_use(true);
        let report = self.with_reserve(|| {
            let mut run = Run { cutoff, cutoff_system, dry_run: rules.dry_run, purge: rules.purge, reached: HashSet::new() };
            self.collect_watched(rules, author, in_use, &mut run)
        });
        self.watch_use(false);
        report
    }

    fn collect_watched(
        &self,
        rules: &GcRules,
        author: &Author,
        in_use: &dyn Fn() -> InUse,
        run: &mut Run,
    ) -> Result<Value, RepositoryError> {
        let removed = self.remove_by_rule(rules, author, run)?;
        self.mark_kept(run, &removed, in_use)?;
        let (objects, object_bytes) = self.sweep(run)?;
        let before = self.bytes_on_disk()?;
        let rewritten = if run.dry_run { 0 } else { self.compact(run)? };
        if !run.dry_run {
            if run.purge { self.history.purge()? } else { self.history.shrink()? }
        }
        let freed = before.saturating_sub(self.bytes_on_disk()?);
        let removed: Vec<String> = removed.iter().map(ObjectId::to_hex).collect();
        let report = json!({
            "dry_run": run.dry_run,
            "checkpoints_removed": removed,
            "objects_reached": run.reached.len(),
            "objects_removed": objects,
            "objects_removed_bytes": object_bytes,
            "files_rewritten": rewritten,
            "freed_bytes": freed,
        });
        if !run.dry_run {
            self.history.record_gc(&report, author)?;
        }
        Ok(report)
    }

    fn bytes_on_disk(&self) -> Result<u64, RepositoryError> {
        Ok(self.packs.containers()?.iter().map(|container| container.allocated_bytes).sum())
    }

    /// Deletes the checkpoints that the rules do not keep. Named, linked and current ones are always kept, and those from which
    /// branches can be merged.
    fn remove_by_rule(&self, rules: &GcRules, author: &Author, run: &Run) -> Result<Vec<ObjectId>, RepositoryError> {
        let keep =
            KeepRules { last: rules.keep_last, hourly: rules.keep_hourly, daily: rules.keep_daily, weekly: rules.keep_weekly };
        if keep == KeepRules::default() {
            return Ok(Vec::new());
        }
        let heads: HashSet<ObjectId> = self.history.branches()?.into_iter().filter_map(|branch| branch.head).collect();
        let mut candidates = Vec::new();
        let mut pinned = self.history.fork_points()?;
        for row in self.history.checkpoints()? {
            if row.name.is_some() || heads.contains(&row.id) || !self.history.links_of(&row.id)?.is_empty() {
                pinned.insert(row.id);
            }
            candidates.push((row.id, row.time));
        }
        let unpinned = removable(&candidates, &keep).into_iter().filter(|id| !pinned.contains(id));
        let mut removed = Vec::new();
        for id in unpinned {
            // Somebody may have given it a name, or stand on it, since it was looked at.
            if run.dry_run || self.history.delete_unless_kept(&id, author)? {
                removed.push(id);
            }
        }
        Ok(removed)
    }

    fn mark_kept(&self, run: &mut Run, removed: &[ObjectId], in_use: &dyn Fn() -> InUse) -> Result<(), RepositoryError> {
        let mut roots = self.history.kept_roots(run.cutoff)?;
        if run.dry_run {
            let gone: HashSet<ObjectId> =
                removed.iter().map(|id| self.commit(id).map(|row| row.root_tree)).collect::<Result<_, _>>()?;
            roots.retain(|root| !gone.contains(root));
        }
        for root in roots {
            self.mark_root(run, &root)?;
        }
        run.reached.extend(self.history.commit_ids()?);
        for content in in_use().contents {
            self.mark_content(run, &content)?;
        }
        for root in self.held() {
            // One that is not stored was held for a moment by somebody who found it deleted.
            if self.contains(&root)? {
                self.mark_root(run, &root)?;
            }
        }
        Ok(())
    }

    fn mark_root(&self, run: &mut Run, id: &ObjectId) -> Result<(), RepositoryError> {
        if !run.reached.insert(*id) {
            return Ok(());
        }
        let root = self.root(id)?;
        let mut manifests = Vec::new();
        let reached = &mut run.reached;
        tree::reach(self, &root, &mut |id, kind| {
            let fresh = reached.insert(*id);
            if fresh && kind == Reached::Manifest {
                manifests.push(*id);
            }
            fresh
        })?;
        manifests.iter().try_for_each(|manifest| self.mark_pieces(run, manifest))
    }

    fn mark_pieces(&self, run: &mut Run, manifest: &ObjectId) -> Result<(), RepositoryError> {
        run.reached.extend(self.manifest(manifest)?.extents.iter().filter_map(|extent| extent.blob));
        Ok(())
    }

    fn mark_content(&self, run: &mut Run, content: &Content) -> Result<(), RepositoryError> {
        match content {
            Content::Empty => Ok(()),
            Content::Blob(id) => {
                run.reached.insert(*id);
                Ok(())
            }
            Content::Manifest(id) => {
                run.reached.insert(*id);
                self.mark_pieces(run, id)
            }
        }
    }

    /// Takes unreachable objects that are old enough out of the index. Returns their number and stored length.
    fn sweep(&self, run: &mut Run) -> Result<(u64, u64), RepositoryError> {
        let mut dead: Vec<(ObjectId, u64)> = Vec::new();
        self.history.each_object(|id, _, location, added| {
            if !run.reached.contains(&id) && added <= run.cutoff {
                dead.push((id, location.stored_bytes));
            }
        })?;
        if run.dry_run {
            return Ok((dead.len() as u64, dead.iter().map(|(_, bytes)| bytes).sum()));
        }
        for root in self.roots_noted() {
            self.mark_root(run, &root)?; // A checkpoint or restore of this very moment.
        }
        dead.retain(|(id, _)| !run.reached.contains(id));
        self.remove_unless_used(&mut dead)?;
        Ok((dead.len() as u64, dead.iter().map(|(_, bytes)| bytes).sum()))
    }
}

/// What the objects used while it lives are kept for; see [`Repository::using`].
#[must_use]
pub struct UseGuard<'a> {
    repository: &'a Repository,
}

impl Drop for UseGuard<'_> {
    fn drop(&mut self) {
        self.repository.watch().end_use();
    }
}

impl Repository {
    fn watch(&self) -> std::sync::MutexGuard<'_, Watch<ObjectId>> {
        self.watch.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn watch_use(&self, running: bool) {
        self.watch().run(running);
    }

    /// Says that objects are about to be stored or found stored, to be named by a transaction before the value is dropped:
    /// gc then leaves them, whether it runs already or begins meanwhile.
    pub fn using(&self) -> UseGuard<'_> {
        self.watch().begin_use();
        UseGuard { repository: self }
    }

    /// Notes that somebody counts on an object, before it is looked up.
    pub(super) fn note_use(&self, id: &ObjectId) {
        self.watch().touch(*id);
    }

    /// Notes that a state is about to be named, or used by somebody who holds [`Self::using`].
    pub fn note_root(&self, id: ObjectId) {
        self.watch().note_root(id);
    }

    fn roots_noted(&self) -> Vec<ObjectId> {
        self.watch().roots()
    }

    /// Removes the objects that nobody counted on since the run began. Who asks for one later finds it gone and stores it anew.
    fn remove_unless_used(&self, dead: &mut Vec<(ObjectId, u64)>) -> Result<(), RepositoryError> {
        let watch = self.watch(); // Held over the transaction: a `put` waits, and then sees what is left.
        dead.retain(|(id, _)| !watch.is_touched(id));
        let ids: Vec<ObjectId> = dead.iter().map(|(id, _)| *id).collect();
        Ok(self.history.remove_objects(&ids)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Location, ObjectKind};

    /// Found by `tests/gc_histories.rs`: the object had no name and was not pending yet when gc looked, and lost its pack.
    #[test]
    fn a_pack_stays_while_an_object_in_it_is_on_its_way_to_be_pending() {
        let temp = tempfile::tempdir().unwrap();
        let repository = Repository::create(&temp.path().join("store")).unwrap();
        let bytes: Vec<u8> = (0..100_000u32).flat_map(|at| at.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        let id = ObjectId::of(&bytes);
        let appending = repository.appending.read().unwrap();
        let location = repository.packs.append(ObjectKind::Blob, &id, &bytes).unwrap();
        repository.packs.sync().unwrap();
        std::thread::scope(|scope| {
            let rules = GcRules { grace_secs: Some(0), ..GcRules::default() };
            let author = Author { uid: 0, pid: 0, command: String::new() };
            let repository = &repository;
            let run = scope.spawn(move || repository.collect(&rules, &author, &InUse::default).unwrap());
            std::thread::sleep(Duration::from_millis(200)); // Enough for a run that does not wait.
            repository.add_pending(id, ObjectKind::Blob, location);
            drop(appending);
            run.join().unwrap();
        });
        assert!(repository.read_object(&id).unwrap() == bytes);
    }

    #[test]
    fn a_damaged_object_holds_up_no_run_and_stays_named() {
        use std::os::unix::fs::FileExt;
        let temp = tempfile::tempdir().unwrap();
        let repository = Repository::create(&temp.path().join("store")).unwrap();
        let bytes =
            |seed: u32| (0..50_000u32).flat_map(|at| (at ^ seed).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect::<Vec<u8>>();
        let objects: Vec<(ObjectId, Location)> = (0..6)
            .map(|seed| {
                let id = ObjectId::of(&bytes(seed));
                (id, repository.packs.append(ObjectKind::Blob, &id, &bytes(seed)).unwrap())
            })
            .collect();
        repository.packs.sync().unwrap();
        let named: Vec<_> = objects.iter().map(|(id, at)| (*id, ObjectKind::Blob, *at)).collect();
        repository.history.place_objects(&named).unwrap();
        let (damaged, at) = objects[1];
        let pack = std::fs::File::options().write(true).open(repository.packs.path_of(at.container)).unwrap();
        pack.write_all_at(b"rot", at.offset + 1000).unwrap();
        let rules = GcRules { grace_secs: Some(0), ..GcRules::default() };
        let author = Author { uid: 0, pid: 0, command: String::new() };
        let kept = || InUse { contents: [0, 1, 2].map(|seed| Content::Blob(objects[seed].0)).to_vec() };
        repository.collect(&rules, &author, &kept).unwrap();
        for seed in [0, 2] {
            assert!(repository.read_object(&objects[seed].0).unwrap() == bytes(seed as u32));
        }
        assert!(repository.read_object(&damaged).is_err());
        assert_eq!(repository.locate(&damaged).unwrap().unwrap().1, at);
        assert!(repository.locate(&objects[4].0).unwrap().is_none());
    }
}
