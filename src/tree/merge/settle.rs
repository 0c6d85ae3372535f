//! What the names alone do not decide: changes against deletions, files renamed twice, directories that must stay.

use super::entries::{changed, merge_files};
use super::plan::{Plan, range_of};
use super::side::{Key, Target};
use super::{ConflictKind, MergePolicy};
use crate::object::Entry;
use crate::tree::TreeError;
use std::collections::{BTreeSet, HashSet};

impl Plan<'_> {
    /// Merges files that theirs changed, and decides about those that one side deleted.
    pub fn settle_files(&mut self) -> Result<(), TreeError> {
        let ids: BTreeSet<u64> = self.theirs.files.keys().copied().collect();
        for id in ids {
            match (self.base_file(id), self.our_file(id), self.their_file(id)) {
                (base, Some(ours), Some(theirs)) => self.both_have(id, base.as_ref(), &ours, &theirs)?,
                (Some(base), None, Some(theirs)) => self.deleted_in_ours(id, &base, &theirs)?,
                (Some(base), Some(ours), None) => self.deleted_in_theirs(id, &base, &ours)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn both_have(&mut self, id: u64, base: Option<&Entry>, ours: &Entry, theirs: &Entry) -> Result<(), TreeError> {
        let (merged, kinds) = merge_files(base, ours, theirs, self.rules)?;
        let (mut our_keys, mut their_keys) = (self.our_keys(id), self.their_keys(id));
        let aside = self.aside.get(&id).cloned();
        if self.rules.policy == MergePolicy::Theirs {
            our_keys.extend(aside)
        } else {
            their_keys.extend(aside)
        }
        if merged != *ours {
            self.files.insert(id, merged);
        }
        let came = |key: &&Key| self.is_at(key, id) && !self.is_ours_at(key, id) && !our_keys.contains(key);
        let came: Vec<Key> = their_keys.iter().filter(came).cloned().collect();
        let gone = our_keys.iter().filter(|key| !self.is_at(key, id)).count();
        let kept: Vec<Key> = our_keys.iter().filter(|key| self.is_at(key, id)).cloned().collect();
        let single = |entry: &Entry| entry.nlink <= 1;
        if let (Some(came), Some(kept)) = (came.first(), kept.first())
            && single(ours)
            && single(theirs)
            && base.is_none_or(single)
        {
            self.renamed_twice(kept, came)?;
        } else if ours.nlink as usize <= gone
            && came.is_empty()
            && base.is_some_and(|base| changed(base, ours) || changed(base, theirs))
        {
            // Each side took other names away, and one of them changed the file: its names stay.
            our_keys.iter().try_for_each(|key| self.give_back(key))?;
            if let Some(key) = our_keys.first() {
                self.raise(key, ConflictKind::Deleted, None);
            }
        }
        if let Some(key) = our_keys.iter().chain(&their_keys).find(|key| self.is_at(key, id)).cloned() {
            kinds.into_iter().for_each(|kind| self.raise(&key, kind, None));
        }
        Ok(())
    }

    fn is_at(&self, key: &Key, id: u64) -> bool {
        self.result_at(key).is_some_and(|target| target.id == id)
    }

    fn is_ours_at(&self, key: &Key, id: u64) -> bool {
        self.ours_at(key).is_some_and(|target| target.id == id)
    }

    /// Lets one of two new names go.
    fn renamed_twice(&mut self, ours: &Key, theirs: &Key) -> Result<(), TreeError> {
        if self.rules.policy == MergePolicy::Theirs {
            self.edits.insert(ours.clone(), None);
        } else {
            self.withdraw(theirs)?;
        }
        self.raise(ours, ConflictKind::Renamed, Some(theirs.clone()));
        Ok(())
    }

    /// Leaves a name as it is in our state, unless what it stood for has another one by now. What theirs put there is not lost:
    /// one of the two makes way.
    fn give_back(&mut self, key: &Key) -> Result<(), TreeError> {
        let came = self.edits.remove(key).flatten();
        let ours = self.ours_at(key);
        if ours.is_some_and(|target| self.is_elsewhere(target, key)) {
            self.edits.insert(key.clone(), came);
            return Ok(());
        }
        self.needed.push(key.0);
        came.filter(|came| Some(*came) != ours).map_or(Ok(()), |came| self.make_way(key, came))
    }

    /// Takes back what theirs put under a name.
    fn withdraw(&mut self, key: &Key) -> Result<(), TreeError> {
        self.edits.remove(key);
        if self.ours_at(key).is_some() { self.give_back(key) } else { Ok(()) }
    }

    /// Says whether the result has a file or directory under another name too.
    fn is_elsewhere(&self, target: Target, key: &Key) -> bool {
        let places = if target.is_directory {
            vec![self.our_place(target.id), self.their_place(target.id)]
        } else if [self.our_file(target.id), self.their_file(target.id)].iter().flatten().any(|file| file.nlink > 1) {
            return false; // It may have several names.
        } else {
            self.our_keys(target.id).into_iter().chain(self.their_keys(target.id)).map(Some).collect()
        };
        let aside = self.aside.get(&target.id).cloned();
        places.into_iter().flatten().chain(aside).any(|place| place != *key && self.is_at(&place, target.id))
    }

    fn deleted_in_ours(&mut self, id: u64, base: &Entry, theirs: &Entry) -> Result<(), TreeError> {
        let keys = self.their_keys(id);
        let was_here = |key: &Key| self.theirs.names.get(key).is_none_or(|slot| slot.base.is_some_and(|base| base.id == id));
        let moved = keys.iter().any(|key| !was_here(key)) && theirs.nlink <= base.nlink;
        if !moved && !changed(base, theirs) {
            return Ok(());
        }
        let file = Target { id, is_directory: false };
        for key in &keys {
            let here = self.is_at(key, id);
            if self.rules.policy == MergePolicy::Ours && here {
                self.withdraw(key)?;
            } else if self.rules.policy != MergePolicy::Ours && !here && !self.aside.contains_key(&id) {
                self.make_way(key, file)?;
            }
        }
        let other = self.aside.get(&id).cloned();
        if self.rules.policy == MergePolicy::Ours
            && let Some(aside) = &other
        {
            self.edits.remove(aside);
        }
        if let Some(key) = keys.first() {
            self.raise(key, if moved { ConflictKind::RenamedDeleted } else { ConflictKind::Deleted }, other);
        }
        Ok(())
    }

    fn deleted_in_theirs(&mut self, id: u64, base: &Entry, ours: &Entry) -> Result<(), TreeError> {
        let keys = self.our_keys(id);
        let was_here = |key: &Key| self.ours.names.get(key).is_none_or(|slot| slot.base.is_some_and(|base| base.id == id));
        let moved = keys.iter().any(|key| !was_here(key)) && ours.nlink <= base.nlink;
        if !moved && !changed(base, ours) {
            return Ok(());
        }
        for key in &keys {
            match self.edits.get(key).copied() {
                None if self.rules.policy == MergePolicy::Theirs => drop(self.edits.insert(key.clone(), None)),
                Some(_) if self.rules.policy != MergePolicy::Theirs => self.give_back(key)?,
                _ => {}
            }
        }
        if let Some(key) = keys.first() {
            self.raise(key, if moved { ConflictKind::RenamedDeleted } else { ConflictKind::Deleted }, None);
        }
        Ok(())
    }

    /// Merges directories that theirs changed, and decides about those that were moved on one side.
    pub fn settle_directories(&mut self) -> Result<(), TreeError> {
        let top = self.our_root.directory.identity;
        let ids: BTreeSet<u64> = self.theirs.directories.keys().copied().collect();
        for id in ids {
            let (ours, theirs) = (self.our_directory(id), self.their_directory(id));
            let (our_place, their_place, base_place) = (self.our_place(id), self.their_place(id), self.base_place(id));
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => {
                    self.merge_directory(id, &ours, &theirs);
                    let aside = self.aside.get(&id).cloned();
                    let (ours, theirs) = match self.rules.policy {
                        MergePolicy::Theirs => (aside.or(our_place), their_place),
                        _ => (our_place, aside.or(their_place)),
                    };
                    if let (Some(ours), Some(theirs)) = (ours, theirs)
                        && id != top
                        && ours != theirs
                        && self.is_at(&ours, id)
                        && self.is_at(&theirs, id)
                    {
                        self.renamed_twice(&ours, &theirs)?;
                    }
                }
                (None, Some(_)) if base_place.is_some() && their_place != base_place => {
                    if let Some(place) = their_place {
                        self.moved_and_deleted(id, &place, true)?;
                    }
                }
                (Some(_), None) if base_place.is_some() && our_place != base_place => {
                    if let Some(place) = our_place {
                        self.moved_and_deleted(id, &place, false)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// One side moved a directory, the other deleted it: it stays whole where it was moved, or goes, as the policy says.
    fn moved_and_deleted(&mut self, id: u64, place: &Key, in_theirs: bool) -> Result<(), TreeError> {
        self.raise(place, ConflictKind::RenamedDeleted, None);
        match (in_theirs, self.rules.policy) {
            (true, MergePolicy::Ours) | (false, MergePolicy::Theirs) if !self.is_at(place, id) => {} // It made way: it stays aside.
            (true, MergePolicy::Ours) => self.withdraw(place)?,
            (false, MergePolicy::Theirs) => drop(self.edits.insert(place.clone(), None)),
            (true, _) => self.restore_theirs(id),
            (false, _) => self.restore_ours(id)?,
        }
        Ok(())
    }

    /// Brings back what ours deleted in a directory that theirs still has.
    fn restore_theirs(&mut self, id: u64) {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let deleted: Vec<Key> = self.ours.names.range(range_of(id)).map(|(key, _)| key.clone()).collect();
            for key in deleted {
                let theirs = self.theirs.names.get(&key).map_or_else(|| self.ours.names[&key].base, |slot| slot.side);
                if let (Some(theirs), None) = (theirs, self.result_at(&key))
                    && !self.is_elsewhere(theirs, &key)
                {
                    self.edits.insert(key, Some(theirs));
                    waiting.extend(theirs.is_directory.then_some(theirs.id));
                }
            }
        }
    }

    /// Keeps what theirs deleted in a directory that ours still has.
    fn restore_ours(&mut self, id: u64) -> Result<(), TreeError> {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            let deleted: Vec<Key> =
                self.edits.range(range_of(id)).filter(|(_, target)| target.is_none()).map(|(key, _)| key.clone()).collect();
            for key in deleted {
                self.give_back(&key)?;
                waiting.extend(self.ours_at(&key).filter(|target| target.is_directory).map(|target| target.id));
            }
        }
        Ok(())
    }

    /// Takes back their move of each directory that would lie within itself; says whether there was one.
    pub fn break_cycles(&mut self) -> Result<bool, TreeError> {
        let mut found = false;
        let moved: Vec<(Key, u64)> = self
            .edits
            .iter()
            .filter_map(|(key, target)| target.filter(|target| target.is_directory).map(|target| (key.clone(), target.id)))
            .filter(|(_, id)| self.our_directory(*id).is_some())
            .collect();
        for (key, id) in moved {
            let mut seen = HashSet::from([id]);
            let mut above = Some(key.0);
            while let Some(directory) = above.filter(|directory| seen.insert(*directory)) {
                above = self.result_place(directory).map(|place| place.0);
            }
            if above == Some(id) {
                found = true;
                self.withdraw(&key)?;
                if let Some(place) = self.our_place(id) {
                    self.give_back(&place)?;
                    self.raise(&place, ConflictKind::Cycle, Some(key));
                }
            }
        }
        Ok(found)
    }

    /// Gives every directory that holds something in the result a place in it.
    pub fn place_directories(&mut self) -> Result<(), TreeError> {
        let mut waiting = std::mem::take(&mut self.needed);
        waiting.extend(self.edits.iter().filter(|(_, target)| target.is_some()).map(|(key, _)| key.0));
        let deleted = self.theirs.directories.iter().filter(|(_, versions)| versions.side.is_none()).map(|(id, _)| *id);
        waiting.extend(deleted.filter(|id| {
            self.ours.names.range(range_of(*id)).any(|(key, slot)| slot.side.is_some() && self.result_at(key).is_some())
        }));
        let top = self.our_root.directory.identity;
        let mut seen = HashSet::from([top]);
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let directory = Target { id, is_directory: true };
            let key = match (self.result_place(id), self.our_place(id), self.their_place(id)) {
                (Some(place), _, _) => place,
                (None, Some(place), _) => {
                    let came = self.edits.remove(&place).flatten();
                    came.map_or(Ok(()), |came| self.make_way(&place, came))?;
                    place
                }
                (None, None, Some(place)) => {
                    self.make_way(&place, directory)?;
                    place
                }
                (None, None, None) => continue, // Damaged trees alone could have such a directory; it stays unreachable.
            };
            waiting.push(key.0);
        }
        Ok(())
    }
}
