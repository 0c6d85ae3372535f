//! Room kept for the day the disk is full: what frees space needs some to work with.

use super::{Repository, RepositoryError};
use crate::history::History;
use crate::object::{Author, ObjectId};
use crate::sys::{self, Space};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a restore, a run of gc and a handful of deletions write at most before they free anything.
const RESERVE_BYTES: u64 = 4 << 20;
/// How much of it is only for gc, deletions, and movements of branches with next to nothing to save: one that fails may have filled
/// the rest with what it had to save, and it takes gc to give that back.
const LAST_BYTES: u64 = 1 << 20;
/// How much of it is asked for at a time.
const STEP_BYTES: u64 = 256 << 10;
/// How many files that takes: a pack, a segment of the journal, and what SQLite writes beside the database.
const RESERVE_FILES: usize = 6;

/// Room for the index beside the database: enough for a write-ahead log of a hundred megabytes.
const INDEX_BYTES: u64 = 256 << 10;

/// How much of the room for a full disk something may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So much that gc can work after a failure.
    Most,
    /// All of it.
    All,
}

/// Files that hold nothing but room: bytes in the first two, and each an inode.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// All of it is there.
    whole: Mutex<bool>,
}

impl Reserve {
    /// Names the reserve of the store at `store`.
    pub fn at(store: &Path) -> Self {
        Self { path: store.join("reserve"), whole: Mutex::new(false) }
    }

    /// Takes the room, as far as there is any.
    pub fn refill(&self) {
        let mut whole = self.whole();
        if *whole {
            return;
        }
        *whole = true;
        for (path, bytes) in self.parts() {
            if let Err(err) = fill(&path, bytes) {
                tracing::warn!(?path, %err, "not all of the room for a full disk can be kept in reserve");
                *whole = false; // What there is helps.
            }
        }
    }

    /// Gives up the room when the disk has next to none, so that a store can be opened there; [`Self::refill`] takes it again.
    ///
    /// SQLite makes two files beside the database and writes into one of them through a mapping: without room it cannot be
    /// opened, or the process dies of SIGBUS.
    pub fn release_if_needed(&self, space: &Space) {
        if space.bytes_available() < RESERVE_BYTES || space.files_free < RESERVE_FILES as u64 {
            self.release(Share::All);
        }
    }

    fn release(&self, share: Share) {
        let mut whole = self.whole();
        *whole = false;
        let kept = usize::from(share == Share::Most);
        self.parts().skip(kept).for_each(|(path, _)| drop(std::fs::remove_file(path)));
    }

    fn whole(&self) -> MutexGuard<'_, bool> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the files and how many bytes each holds; the first one is what [`LAST_BYTES`] says.
    fn parts(&self) -> impl Iterator<Item = (PathBuf, u64)> {
        let numbered = |number: usize| self.path.with_extension(number.to_string());
        let further = (2..RESERVE_FILES).map(move |number| (numbered(number), 0));
        [(numbered(1), LAST_BYTES), (self.path.clone(), RESERVE_BYTES - LAST_BYTES)].into_iter().chain(further)
    }
}

/// Makes a file have `bytes` of room, or as many as there are.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    (0..bytes).step_by(STEP_BYTES as usize).try_for_each(|at| sys::reserve(&file, at, STEP_BYTES))
}

/// Gives the index that SQLite maps beside the database all of its room, so that no write through the mapping meets a full
/// disk: that would be a SIGBUS.
pub(super) fn fill_index(history: &History) {
    if let Some(Err(err)) = history.index().map(|file| sys::reserve(file, 0, INDEX_BYTES)) {
        tracing::warn!(%err, "there is no room for the index beside the database");
    }
}

impl Repository {
    /// Runs what frees space; on a full disk a second time, with the room that was kept for it.
    pub(super) fn with_reserve<T>(&self, work: impl Fn() -> Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        let mut done = work();
        if done.as_ref().is_err_and(RepositoryError::is_full) {
            self.release_reserve(Share::All);
            done = work();
        }
        self.keep_reserve();
        done
    }

    /// Gives up room that was kept for a full disk, until [`Self::keep_reserve`].
    pub fn release_reserve(&self, share: Share) {
        self.reserve.release(share);
    }

    /// Takes the room for a full disk again, if it was given up and there is some.
    pub fn keep_reserve(&self) {
        self.reserve.refill();
    }

    /// Deletes a checkpoint; gc takes what it alone held.
    pub fn delete_checkpoint(&self, id: &ObjectId, author: &Author) -> Result<(), RepositoryError> {
        self.with_reserve(|| Ok(self.history.delete_checkpoint(id, author)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Found by `scripts/campaigns/full`, seed 3292803190: on a full disk with small blocks SQLite wrote through its mapping into a
    /// hole, and the daemon and `fsck` died of SIGBUS.
    #[test]
    fn the_index_beside_the_database_has_no_holes() {
        let temp = tempfile::tempdir().unwrap();
        let store = temp.path().join("store");
        let _repository = Repository::create(&store).unwrap();
        let index = std::fs::metadata(store.join("store.db-shm")).unwrap();
        assert!(index.blocks() * 512 >= INDEX_BYTES, "{} blocks", index.blocks());
    }
}
