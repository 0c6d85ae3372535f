//! Stores a large file by taking over the file that holds its bytes: they are read once, to name the pieces, and copied nowhere.

use super::put_content::{ByteSource, Run};
use super::{Repository, RepositoryError};
use crate::object::{Content, ObjectId, ObjectKind};
use crate::store::{LargePiece, stored_form};
use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Shorter files are copied into packs: a large object costs three syncs.
pub(super) const ADOPTED_BYTES_MIN: u64 = 4 << 20;
/// What is stored already of a file, or is a hole, shall be no more than this part of it.
const IDLE_PERCENT_MAX: u64 = 25;
/// Whether a file can be compressed is tried on that many samples, of that length.
const SAMPLES: u64 = 8;
const SAMPLE_BYTES: u64 = 64 << 10;
/// A file of which more samples can be compressed is better off in packs.
const SAMPLES_COMPRESSED_MAX: usize = 2;

impl Repository {
    /// Stores a file whose bytes are all in the file at `path`, each at its own offset, and do not change any more.
    pub(super) fn adopt(&self, source: &dyn ByteSource, runs: Vec<Run>, path: &Path) -> Result<Content, RepositoryError> {
        let fresh: Mutex<HashMap<ObjectId, Range<u64>>> = Mutex::default();
        let name = |at: u64, bytes: &[u8]| {
            let id = ObjectId::of(bytes);
            self.note_use(&id);
            if !self.contains(&id)? {
                let mut fresh = fresh.lock().unwrap_or_else(PoisonError::into_inner);
                fresh.entry(id).or_insert(at..at + bytes.len() as u64);
            } else if self.is_damaged(&id) {
                self.put(ObjectKind::Blob, bytes)?;
            } else {
                self.add_reused(id);
            }
            Ok(id)
        };
        let content = std::thread::scope(|scope| {
            let written = scope.spawn(|| sync(path)); // The disk need not wait until everything is named.
            let content = self.put_pieces(source, runs, &name);
            let written = written.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.and(content)
        })?;
        let mut fresh: Vec<LargePiece> = fresh.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        fresh.sort_unstable_by_key(|(_, range)| range.start);
        self.take_over(source, path, &fresh)?;
        Ok(content)
    }

    fn take_over(&self, source: &dyn ByteSource, path: &Path, fresh: &[LargePiece]) -> Result<(), RepositoryError> {
        let fresh_bytes: u64 = fresh.iter().map(|(_, range)| range.end - range.start).sum();
        let len = fs::metadata(path).map_err(failed)?.len();
        if len.saturating_sub(fresh_bytes) * 100 > len * IDLE_PERCENT_MAX {
            return self.copy(source, fresh);
        }
        let id = self.packs.write_list(path, fresh)?;
        if self.name(path, id, fresh)? { Ok(()) } else { self.copy(source, fresh) }
    }

    /// Makes a file with a list a large object, whose pieces wait for their transaction then. Says whether it did.
    fn name(&self, path: &Path, id: ObjectId, fresh: &[LargePiece]) -> Result<bool, RepositoryError> {
        let _appending = self.appending.read().unwrap_or_else(PoisonError::into_inner); // Nothing slow is done under it.
        let Some(locations) = self.packs.adopt(path, id, fresh)? else { return Ok(false) };
        for ((piece, _), location) in fresh.iter().zip(locations) {
            self.add_pending(*piece, ObjectKind::Blob, location);
        }
        Ok(true)
    }

    fn copy(&self, source: &dyn ByteSource, pieces: &[LargePiece]) -> Result<(), RepositoryError> {
        let mut bytes = Vec::new();
        for (_, range) in pieces {
            bytes.clear();
            source.read(range.clone(), &mut bytes)?;
            self.put(ObjectKind::Blob, &bytes)?;
        }
        Ok(())
    }

    /// Says whether compressing a file would save room, as far as samples tell.
    pub(super) fn compresses(&self, source: &dyn ByteSource) -> Result<bool, RepositoryError> {
        let step = source.size_bytes() / SAMPLES;
        let mut bytes = Vec::new();
        let mut compressed = 0;
        for sample in 0..SAMPLES {
            bytes.clear();
            source.read(sample * step..sample * step + SAMPLE_BYTES.min(step), &mut bytes)?;
            let (_, stored) = stored_form(&bytes);
            compressed += usize::from(stored.len() < bytes.len());
        }
        Ok(compressed > SAMPLES_COMPRESSED_MAX)
    }
}

fn sync(path: &Path) -> Result<(), RepositoryError> {
    File::open(path).and_then(|file| file.sync_data()).map_err(failed)
}

fn failed(source: std::io::Error) -> RepositoryError {
    RepositoryError::Io { what: "a file to be stored", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Container;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;
    use std::sync::Arc;

    /// A file that the store may take over.
    struct Given(PathBuf, Vec<u8>);

    impl ByteSource for Given {
        fn size_bytes(&self) -> u64 {
            self.1.len() as u64
        }

        fn runs(&self) -> Vec<Run> {
            vec![Run { range: 0..self.size_bytes(), hole: false }]
        }

        fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError> {
            bytes.extend_from_slice(&self.1[range.start as usize..range.end as usize]);
            Ok(())
        }

        fn take_file(&self) -> Option<PathBuf> {
            Some(self.0.clone())
        }
    }

    fn given(repository: &Repository, name: &str, bytes: &[u8]) -> Given {
        let path = repository.path().join("staging").join(name);
        fs::write(&path, bytes).unwrap();
        Given(path, bytes.to_vec())
    }

    fn large_objects(repository: &Repository) -> Vec<PathBuf> {
        let containers = repository.packs.containers().unwrap().into_iter().map(|info| info.container);
        containers.filter(|at| matches!(at, Container::Large(_))).map(|at| repository.packs.path_of(at)).collect()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(next).collect()
    }

    /// What nothing names any more may have been punched out, may have rotted unseen, and goes with a gc that may be at it.
    #[test]
    fn what_is_left_of_an_unnamed_large_object_is_not_relied_on() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("store");
        let bytes = noise(6 << 20);
        let repository = Repository::create(&path).unwrap();
        let source = given(&repository, "first", &bytes);
        repository.put_content(&source).unwrap();
        fs::remove_file(&source.0).unwrap();
        drop(repository); // Before a transaction named it.
        let repository: Arc<Repository> = Repository::open(&path).unwrap();
        let left = large_objects(&repository);
        assert_eq!(left.len(), 1);
        File::options().write(true).open(&left[0]).unwrap().write_all_at(b"rot", 1 << 20).unwrap();
        let content = repository.put_content(&given(&repository, "second", &bytes)).unwrap();
        assert!(repository.read_content(&content, 0..bytes.len() as u64).unwrap() == bytes);
    }
}
