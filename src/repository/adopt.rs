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
        let _appending = self.appending.read().unwrap_or_else(PoisonError::into_inner); // Nothing slow is done under it.
        let locations = self.packs.adopt(path, id, fresh)?;
        for ((piece, _), location) in fresh.iter().zip(locations) {
            self.add_pending(*piece, ObjectKind::Blob, location);
        }
        Ok(())
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
