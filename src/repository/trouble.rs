//! What went wrong with the store lately, kept for people: the log says all of it, this says the last.

use super::{Repository, RepositoryError};
use crate::object::{ObjectId, ObjectKind};
use crate::store::StoreError;
use std::collections::HashSet;
use std::sync::{MutexGuard, PoisonError};

/// What is known to be wrong.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// The last of it, in words.
    last: Option<String>,
    /// Objects that a read found damaged.
    damaged: HashSet<ObjectId>,
}

impl Repository {
    fn lock_trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says in the log that something in the store is damaged, and keeps the sentence.
    pub fn note_trouble(&self, sentence: &str) {
        let mut trouble = self.lock_trouble();
        if trouble.last.as_deref() != Some(sentence) {
            tracing::error!("{sentence}");
            trouble.last = Some(sentence.to_owned());
        }
    }

    /// Returns the last thing found damaged since the store was opened, or since it was forgotten.
    pub fn trouble(&self) -> Option<String> {
        self.lock_trouble().last.clone()
    }

    /// Forgets what was found damaged: something newer is to be said.
    pub fn forget_trouble(&self) {
        self.lock_trouble().last = None;
    }

    /// Keeps the sentence of an error about damaged bytes.
    pub(super) fn troubled(&self, err: StoreError) -> RepositoryError {
        if let StoreError::Damaged { id, .. } | StoreError::Missing { id } = &err {
            self.note_trouble(&err.to_string());
            self.lock_trouble().damaged.insert(*id);
        }
        err.into()
    }

    /// Says whether a read found an object damaged.
    pub(super) fn is_damaged(&self, id: &ObjectId) -> bool {
        self.lock_trouble().damaged.contains(id)
    }

    /// Stores an object that is named and damaged once more: who brings the same bytes heals every state that holds them.
    pub(super) fn store_again(&self, id: ObjectId, kind: ObjectKind, bytes: &[u8]) -> Result<(), RepositoryError> {
        let location = self.packs.append(kind, &id, bytes)?;
        self.packs.sync()?; // The index names it at once.
        self.history.place_objects(&[(id, kind, location)])?;
        self.lock_trouble().damaged.remove(&id);
        tracing::info!(%id, "a damaged object was stored once more");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::InUse;
    use crate::repository::gc::GcRules;
    use std::os::unix::fs::FileExt;
    use std::time::Duration;

    /// gc saw the pack with the new copy before the index named it there, and took the pack.
    #[test]
    fn gc_leaves_the_pack_in_which_an_object_is_being_healed() {
        let temp = tempfile::tempdir().unwrap();
        let repository = Repository::create(&temp.path().join("store")).unwrap();
        let bytes: Vec<u8> = (0..100_000u32).flat_map(|at| at.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
        let id = repository.put(ObjectKind::Blob, &bytes).unwrap();
        let objects = repository.sync_pending().unwrap();
        repository.history.place_objects(&objects).unwrap();
        repository.forget_pending(&objects);
        let (_, location) = repository.locate(&id).unwrap().unwrap();
        let pack = std::fs::File::options().write(true).open(repository.packs.path_of(location.container)).unwrap();
        pack.write_all_at(&[0; 100], location.offset).unwrap();
        assert!(repository.read_object(&id).is_err());
        let stored_bytes = || repository.packs.containers().unwrap().iter().map(|pack| pack.size_bytes).sum::<u64>();
        let gc_looks = repository.appending.write().unwrap();
        let before = stored_bytes();
        std::thread::scope(|scope| {
            let heals = scope.spawn(|| repository.put(ObjectKind::Blob, &bytes).unwrap());
            std::thread::sleep(Duration::from_millis(200)); // Enough for one that does not wait.
            assert_eq!(stored_bytes(), before);
            drop(gc_looks);
            heals.join().unwrap();
        });
        let rules = GcRules { grace_secs: Some(3600), ..GcRules::default() };
        let author = crate::object::Author { uid: 0, pid: 0, command: String::new() };
        repository.collect(&rules, &author, &InUse::default).unwrap();
        assert!(repository.read_object(&id).unwrap() == bytes);
    }
}
