//! Gives back what is dead in packs and large objects.

use super::gc::Run;
use super::{Repository, RepositoryError};
use crate::object::{Container, Location, ObjectId, ObjectKind};
use crate::store::{ContainerInfo, PackStore};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::PoisonError;

/// A file of objects with more than this share of dead bytes is rewritten, in percent.
const DEAD_PERCENT_MAX: u64 = 25;
/// Room that copying leaves free for the transactions that name the copies.
const ROOM_LEFT_BYTES: u64 = 2 << 20;
/// Objects named by one transaction while a file is rewritten.
const MOVED_AT_ONCE: usize = 1000;

impl Repository {
    /// Rewrites files of objects with much dead in them, and removes those with nothing left.
    pub(super) fn compact(&self, run: &Run) -> Result<u64, RepositoryError> {
        let usage = self.history.usage()?;
        let live_bytes = |container: &ContainerInfo| usage.get(&container.container).map_or(0, |used| used.stored_bytes);
        let is_wasteful = |container: &ContainerInfo| {
            let used = usage.get(&container.container).copied().unwrap_or_default();
            let dead = container.size_bytes.saturating_sub(used.stored_bytes);
            if run.purge {
                return container.size_bytes > PackStore::size_with(container.container, used.objects, used.stored_bytes);
            }
            container.modified <= run.cutoff_system && dead * 100 > container.size_bytes * DEAD_PERCENT_MAX
        };
        let mut containers = self.packs.containers()?;
        containers.sort_by_key(live_bytes); // On a full disk those that need no room make some for the others.
        if containers.iter().any(|container| container.appending && is_wasteful(container)) {
            self.packs.rotate()?;
        }
        // From here on nothing is appended to the files that are looked at, and what was appended is known as pending.
        drop(self.appending.write().unwrap_or_else(PoisonError::into_inner));
        let mut rewritten = 0;
        for container in containers.iter().filter(|container| is_wasteful(container)) {
            if self.pending_containers().contains(&container.container) {
                continue; // Something in it waits for its transaction.
            }
            let (live, space) = (live_bytes(container), self.space()?);
            if live > 0 && live + ROOM_LEFT_BYTES > space.bytes_available() {
                self.punch(container.container, false)?;
                continue;
            }
            self.rewrite(container.container)?;
            rewritten += 1;
        }
        Ok(rewritten)
    }

    /// Gives back what is dead in a file where it lies, because there is no room for a copy of what lives in it, or a part of that cannot
    /// be read. Then a repair may look for other copies of it: these are to be spared.
    fn punch(&self, container: Container, spare_copies: bool) -> Result<(), RepositoryError> {
        let objects = self.objects_in(container)?;
        let mut live: Vec<Range<u64>> = objects.iter().map(|(_, _, at)| stored_range(at)).collect();
        live.sort_unstable_by_key(|range| range.start);
        let punched = match container {
            Container::Pack(number) => {
                let ids: HashSet<ObjectId> = objects.iter().map(|(id, _, _)| *id).collect();
                let is_spared = |id: &ObjectId| spare_copies && ids.contains(id);
                self.packs.punch_dead(number, |id, at| is_spared(id) || overlaps(&live, &stored_range(at)))
            }
            Container::Large(id) => self.packs.punch_large(id, &live),
        };
        match punched {
            Err(err) if err.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                tracing::warn!(?container, "stays as it is: its file system gives back no room within a file");
                Ok(())
            }
            done => Ok(done?),
        }
    }

    fn objects_in(&self, container: Container) -> Result<Vec<(ObjectId, ObjectKind, Location)>, RepositoryError> {
        let mut found = Vec::new();
        self.history.each_object(|id, kind, location, _| {
            if location.container == container {
                found.push((id, kind, location));
            }
        })?;
        Ok(found)
    }

    /// Moves what lives in a file into packs, and removes the file.
    pub(super) fn rewrite(&self, container: Container) -> Result<(), RepositoryError> {
        let mut live = self.objects_in(container)?;
        live.sort_unstable_by_key(|(_, _, location)| location.offset);
        for batch in live.chunks(MOVED_AT_ONCE) {
            let mut moved = Vec::with_capacity(batch.len());
            for (id, kind, old) in batch {
                let bytes = match self.packs.read(id, old) {
                    Ok(bytes) => bytes,
                    // It stays where it is, and its pack with it.
                    Err(err) => {
                        self.note_trouble(&err.to_string());
                        continue;
                    }
                };
                moved.push((*id, *old, self.packs.append(*kind, id, &bytes)?));
            }
            self.packs.sync()?; // The copies are durable before they are named.
            self.history.relocate(&moved)?;
        }
        if self.history.usage()?.contains_key(&container) {
            // Something is damaged in it, or was named meanwhile.
            if let Err(err) = self.punch(container, true) {
                tracing::warn!(?container, %err, "what is dead in a damaged file of the store stays");
            }
            return Ok(());
        }
        Ok(self.packs.remove(container)?)
    }
}

/// Says whether a range has something in common with one of `ranges`, which are in order and apart from each other.
fn overlaps(ranges: &[Range<u64>], range: &Range<u64>) -> bool {
    let next = ranges.partition_point(|other| other.end <= range.start);
    ranges.get(next).is_some_and(|other| other.start < range.end)
}

fn stored_range(at: &Location) -> Range<u64> {
    at.offset..at.offset + at.stored_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Author, Content};
    use crate::repository::{GcRules, InUse};
    use std::os::unix::fs::FileExt;

    /// An object may be in a pack twice: directories are stored without being looked for. What heals the first must not be given back.
    #[test]
    fn another_copy_of_a_damaged_object_is_spared() {
        let temp = tempfile::tempdir().unwrap();
        let repository = Repository::create(&temp.path().join("store")).unwrap();
        let bytes = |seed: u32| -> Vec<u8> {
            (0..50_000u32).flat_map(|at| (at ^ seed).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
        };
        let append = |seed: u32| {
            let id = ObjectId::of(&bytes(seed));
            (id, repository.packs.append(ObjectKind::Blob, &id, &bytes(seed)).unwrap())
        };
        let [(damaged, named), (_, copy), (dead_id, dead)] = [1, 1, 2].map(append);
        repository.packs.sync().unwrap();
        repository.history.place_objects(&[(damaged, ObjectKind::Blob, named)]).unwrap();
        let pack = std::fs::File::options().write(true).open(repository.packs.path_of(named.container)).unwrap();
        pack.write_all_at(b"rot", named.offset + 1000).unwrap();
        let rules = GcRules { grace_secs: Some(0), ..GcRules::default() };
        let author = Author { uid: 0, pid: 0, command: String::new() };
        let in_use = || InUse { contents: vec![Content::Blob(damaged)] };
        repository.collect(&rules, &author, &in_use).unwrap();
        assert!(repository.packs.read(&damaged, &copy).unwrap() == bytes(1));
        assert!(repository.packs.read(&dead_id, &dead).is_err(), "the rest is given back");
    }

    #[test]
    fn what_touches_something_live_is_spared() {
        let live = [10..20, 30..40];
        for (range, spared) in [(0..10, false), (0..11, true), (12..13, true), (20..30, false), (5..50, true), (40..41, false)] {
            assert_eq!(overlaps(&live, &range), spared, "{range:?}");
        }
    }
}
