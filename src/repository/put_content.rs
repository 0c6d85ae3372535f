//! Stores the bytes of a file: one blob when it is small and dense, otherwise pieces cut where the content says.

use super::{Repository, RepositoryError};
use crate::object::{Content, Extent, Manifest, ObjectKind};
use crate::store::chunk::{ChunkSizes, chunk_sizes_for, first_chunk};
use std::ops::Range;

/// Files without holes up to this size are one blob.
const BLOB_BYTES_MAX: u64 = 1 << 20;
/// Bytes are read this many chunks at a time.
const CHUNKS_READ_AHEAD: u64 = 8;

/// A run of bytes, or a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it is in the file.
    pub range: Range<u64>,
    /// Whether it is a hole.
    pub hole: bool,
}

/// A file whose bytes are to be stored.
pub trait ByteSource {
    /// Returns the length of the file.
    fn size_bytes(&self) -> u64;
    /// Returns its runs, from the first byte to the last.
    fn runs(&self) -> Vec<Run>;
    /// Reads a range, whole.
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RepositoryError>;
    /// Returns the piece starting at `at` if it is known to be stored already and ends by `end`.
    fn stored(&self, _at: u64, _end: u64) -> Option<Extent> {
        None
    }
}

impl Repository {
    /// Stores the bytes of a file. Pieces that are stored already, in this or any other file, are not stored again.
    pub fn put_content(&self, source: &dyn ByteSource) -> Result<Content, RepositoryError> {
        let size_bytes = source.size_bytes();
        if size_bytes == 0 {
            return Ok(Content::Empty);
        }
        let runs = source.runs();
        if size_bytes <= BLOB_BYTES_MAX && runs.iter().all(|run| !run.hole) {
            let bytes = source.read(0..size_bytes)?;
            return Ok(Content::Blob(self.put(ObjectKind::Blob, &bytes)?));
        }
        let sizes = chunk_sizes_for(size_bytes);
        let mut manifest = Manifest::default();
        for run in runs {
            if run.hole {
                push_hole(&mut manifest, run.range.end - run.range.start);
            } else {
                self.put_run(source, run.range, &sizes, &mut manifest)?;
            }
        }
        Ok(Content::Manifest(self.put(ObjectKind::Manifest, &manifest.encode())?))
    }

    fn put_run(
        &self,
        source: &dyn ByteSource,
        run: Range<u64>,
        sizes: &ChunkSizes,
        manifest: &mut Manifest,
    ) -> Result<(), RepositoryError> {
        let mut window = Window::default();
        let mut at = run.start;
        while at < run.end {
            if let Some(extent) = source.stored(at, run.end) {
                manifest.extents.push(extent);
                at += extent.len;
                continue;
            }
            let bytes = window.at(source, at, run.end, sizes.max as u64)?;
            let len = first_chunk(bytes, sizes);
            let blob = self.put(ObjectKind::Blob, &bytes[..len])?;
            manifest.extents.push(Extent { len: len as u64, blob: Some(blob) });
            at += len as u64;
        }
        Ok(())
    }
}

fn push_hole(manifest: &mut Manifest, len: u64) {
    match manifest.extents.last_mut() {
        Some(Extent { len: last, blob: None }) => *last += len,
        _ => manifest.extents.push(Extent { len, blob: None }),
    }
}

/// Reads ahead in large steps and hands out what lies at a moving position.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Returns the bytes from `at` on: `want`, or up to `end` when that is nearer.
    fn at(&mut self, source: &dyn ByteSource, at: u64, end: u64, want: u64) -> Result<&[u8], RepositoryError> {
        let want = want.min(end - at);
        let have = self.start..self.start + self.bytes.len() as u64;
        if at < have.start || at + want > have.end {
            let ahead = (want * CHUNKS_READ_AHEAD).min(end - at);
            self.bytes = source.read(at..at + ahead)?;
            self.start = at;
        }
        let from = (at - self.start) as usize;
        let piece = self.bytes.get(from..from + want as usize);
        piece
            .filter(|piece| !piece.is_empty())
            .ok_or_else(|| RepositoryError::Other("a file became shorter while it was read".into()))
    }
}
