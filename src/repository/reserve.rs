//! Room kept for the day the disk is full: what frees space needs some to work with.

use super::{Repository, RepositoryError};
use crate::history::History;
use crate::object::{Author, ObjectId};
use crate::sys::{self, Space};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a run of gc and a handful of deletions write at most before they free anything.
const RESERVE_BYTES: u64 = 4 << 20;
/// How many files that takes: a pack, a segment of the journal, and what SQLite writes beside the database.
const RESERVE_FILES: usize = 6;

/// Room for the index beside the database: enough for a write-ahead log of a hundred megabytes.
const INDEX_BYTES: u64 = 256 << 10;

/// Files that hold nothing but room: bytes in the first, and each an inode.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Names the reserve of the store at `store`.
    pub fn at(store: &Path) -> Self {
        Self { path: store.join("reserve") }
    }

    /// Takes the room, as far as there is any.
    pub fn refill(&self) {
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        if let Err(err) = file.and_then(|file| sys::reserve(&file, 0, RESERVE_BYTES)) {
            tracing::warn!(%err, "no room can be kept in reserve");
            let _ = std::fs::remove_file(&self.path); // Half a reserve helps nobody.
        }
        for path in self.further() {
            if File::options().write(true).create(true).truncate(false).mode(0o600).open(path).is_err() {
                break; // Each file that there is room for helps.
            }
        }
    }

    /// Gives up the room when the disk has next to none, so that a store can be opened there; [`Self::refill`] takes it again.
    ///
    /// SQLite makes two files beside the database and writes into one of them through a mapping: without room it cannot be
    /// opened, or the process dies of SIGBUS.
    pub fn release_if_needed(&self, space: &Space) {
        let free_bytes = space.blocks_available * u64::from(space.block_bytes);
        if free_bytes < RESERVE_BYTES || space.files_free < RESERVE_FILES as u64 {
            self.release();
        }
    }

    fn release(&self) {
        for path in self.further().chain([self.path.clone()]) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn further(&self) -> impl Iterator<Item = PathBuf> {
        (1..RESERVE_FILES).map(|number| self.path.with_extension(number.to_string()))
    }
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
        let done = work();
        if done.as_ref().is_err_and(RepositoryError::is_full) { self.on_reserve(work) } else { done }
    }

    /// Runs something with the room that was kept for a full disk, and keeps room again.
    pub fn on_reserve<T>(&self, work: impl FnOnce() -> T) -> T {
        self.reserve.release();
        let done = work();
        self.reserve.refill();
        done
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
