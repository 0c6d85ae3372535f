//! Stores a large file by taking over the file that holds its bytes: they are read once, to name the pieces, and copied nowhere.

use super::put_content::{ByteSource, Run};
use super::side_by_side::side_by_side;
use super::{Repository, RepositoryError};
use crate::object::{Content, Extent, ObjectId, ObjectKind};
use crate::store::{LargePiece, stored_form};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shorter files are copied into packs: a large object costs three syncs.
pub const ADOPTED_BYTES_MIN: u64 = 4 << 20;
/// What is stored already of a file, or is a hole, shall be no more than this part of it.
const IDLE_PERCENT_MAX: u64 = 25;
/// From this many bytes on one can tell, as a rule, which it will be.
const JUDGED_BYTES: u64 = 2 << 20;
/// Whether a file can be compressed is tried on that many samples, of that length.
const SAMPLES: u64 = 8;
const SAMPLE_BYTES: u64 = 64 << 10;
/// A file of which more samples can be compressed is better off in packs.
const SAMPLES_COMPRESSED_MAX: usize = 2;

/// What became of a file's pieces so far.
#[derive(Default)]
struct Named {
    /// Those that are not stored yet, and where they are.
    fresh: HashMap<ObjectId, Range<u64>>,
    fresh_bytes: u64,
    bytes: u64,
    /// Says that the file is worth being written to the disk: it will be taken over, as far as one can tell.
    worth: Option<Sender<()>>,
}

impl Named {
    fn add(&mut self, id: ObjectId, range: Range<u64>, fresh: bool) {
        let len = range.end - range.start;
        self.bytes += len;
        if fresh && let Entry::Vacant(place) = self.fresh.entry(id) {
            place.insert(range);
            self.fresh_bytes += len;
        }
        if self.bytes >= JUDGED_BYTES && !is_idle(self.bytes, self.fresh_bytes) {
            self.worth.take().map(|worth| worth.send(()));
        }
    }
}

/// As long as this lives, the file may yet be called worth writing.
struct Judging<'a>(&'a Mutex<Named>);

impl Drop for Judging<'_> {
    fn drop(&mut self) {
        locked(self.0).worth = None; // Also when a panic ends the naming: who waits for the word must not wait for ever.
    }
}

/// Says whether too little of `bytes` is new for the file to be taken over.
fn is_idle(bytes: u64, fresh_bytes: u64) -> bool {
    bytes.saturating_sub(fresh_bytes) * 100 > bytes * IDLE_PERCENT_MAX
}

impl Repository {
    /// Stores a file whose bytes are all in the file at `path`, each at its own offset, and do not change any more.
    pub(super) fn adopt(&self, source: &dyn ByteSource, runs: Vec<Run>, path: &Path) -> Result<Content, RepositoryError> {
        let (worth, is_worth) = mpsc::channel();
        let named = Mutex::new(Named { worth: Some(worth), ..Named::default() });
        let (content, synced) = std::thread::scope(|scope| {
            // The disk need not wait until everything is named. A file that nobody calls worth it ends the waiting unwritten.
            let synced = scope.spawn(move || is_worth.recv().is_ok().then(|| sync(path)));
            let judging = Judging(&named);
            let content = self.name_pieces(source, runs, &named);
            drop(judging);
            (content, synced.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let synced = synced.transpose()?.is_some();
        let content = content?;
        let Named { fresh, fresh_bytes, .. } = named.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut fresh: Vec<LargePiece> = fresh.into_iter().collect();
        fresh.sort_unstable_by_key(|(_, range)| range.start);
        if is_idle(fs::metadata(path).map_err(failed)?.len(), fresh_bytes) {
            return self.copy(source, &fresh).map(|()| content);
        }
        if !synced {
            sync(path)?;
        }
        self.take_over(source, path, &fresh)?;
        Ok(content)
    }

    /// Names the pieces of a file, sees which are stored already, and stores the list of them.
    fn name_pieces(&self, source: &dyn ByteSource, runs: Vec<Run>, named: &Mutex<Named>) -> Result<Content, RepositoryError> {
        let name = |id: ObjectId, range: Range<u64>, bytes: &dyn Fn() -> Result<Vec<u8>, RepositoryError>| {
            self.note_use(&id);
            let fresh = !self.contains(&id)?;
            if !fresh && self.is_damaged(&id) {
                self.put(ObjectKind::Blob, &bytes()?)?;
            } else if !fresh {
                self.add_reused(id);
            }
            locked(named).add(id, range, fresh);
            Ok::<_, RepositoryError>(())
        };
        let Some(extents) = source.named() else {
            return self.put_pieces(source, runs, &|at, bytes| {
                let id = ObjectId::of(bytes);
                name(id, at..at + bytes.len() as u64, &|| Ok(bytes.to_vec()))?;
                Ok(id)
            });
        };
        let mut at = 0;
        for Extent { len, blob } in &*extents {
            let range = at..at + len;
            at = range.end;
            if let Some(id) = blob {
                let read = || {
                    let mut bytes = Vec::new();
                    source.read(range.clone(), &mut bytes)?;
                    Ok(bytes)
                };
                name(*id, range.clone(), &read)?;
            }
        }
        self.put_list(extents.to_vec())
    }

    fn take_over(&self, source: &dyn ByteSource, path: &Path, fresh: &[LargePiece]) -> Result<(), RepositoryError> {
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

    /// Copies pieces into packs, from several threads.
    fn copy(&self, source: &dyn ByteSource, pieces: &[LargePiece]) -> Result<(), RepositoryError> {
        let next = AtomicUsize::new(0);
        side_by_side(pieces.len() > 1, || {
            let mut bytes = Vec::new();
            while let Some((_, range)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                bytes.clear();
                source.read(range.clone(), &mut bytes)?;
                self.put(ObjectKind::Blob, &bytes)?;
            }
            Ok(Vec::<()>::new())
        })
        .map(drop)
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

fn locked(named: &Mutex<Named>) -> MutexGuard<'_, Named> {
    named.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Most of a large file may be stored already: then it was written to the disk, and copied nevertheless.
    #[test]
    fn a_file_is_called_worth_writing_when_most_of_it_is_new() {
        let told = |fresh: fn(u64) -> bool| {
            let (worth, is_worth) = mpsc::channel();
            let mut named = Named { worth: Some(worth), ..Named::default() };
            for at in 0..16 {
                let id = ObjectId::of(&at.to_string().into_bytes());
                named.add(id, at << 20..(at + 1) << 20, fresh(at));
                if is_worth.try_recv().is_ok() {
                    return Some(at);
                }
            }
            None
        };
        assert_eq!(told(|_| true), Some(1), "as soon as one can tell");
        assert_eq!(told(|at| at % 2 == 0), None);
        assert_eq!(told(|at| at > 1), Some(7), "the beginning was stored");
        let mut named = Named::default();
        (0..4).for_each(|at| named.add(ObjectId::of(b"the same"), at << 20..(at + 1) << 20, true));
        assert_eq!((named.bytes, named.fresh_bytes), (4 << 20, 1 << 20));
    }

    /// A file that cannot be read, by a fault of our own.
    struct Faulty(Given);

    impl ByteSource for Faulty {
        fn size_bytes(&self) -> u64 {
            self.0.size_bytes()
        }

        fn runs(&self) -> Vec<Run> {
            self.0.runs()
        }

        fn read(&self, _range: Range<u64>, _bytes: &mut Vec<u8>) -> Result<(), RepositoryError> {
            panic!("a fault")
        }
    }

    #[test]
    fn a_fault_in_naming_pieces_ends_the_waiting_for_a_word_on_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let repository = Repository::create(&temp.path().join("store")).unwrap();
        let source = Faulty(given(&repository, "file", &noise(5 << 20)));
        let adopt = || repository.adopt(&source, source.runs(), &source.0.0);
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(adopt)).is_err());
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
