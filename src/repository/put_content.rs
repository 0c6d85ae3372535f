//! Stores the bytes of a file: one blob when it is small and dense, otherwise pieces cut where the content says.

use super::cutter::{Batch, Cutter, Piece};
use super::side_by_side::side_by_side;
use super::{Repository, RepositoryError};
use crate::object::{Content, Extent, Manifest, ObjectKind};
use crate::store::chunk::{ChunkSizes, chunk_sizes_for};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Files without holes up to this size are one blob.
const BLOB_BYTES_MAX: u64 = 1 << 20;
/// From this many bytes on several threads store the pieces.
const PARALLEL_BYTES_MIN: u64 = 4 << 20;

/// A run of bytes, or a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it is in the file.
    pub range: Range<u64>,
    /// Whether it is a hole.
    pub hole: bool,
}

/// A file whose bytes are to be stored.
pub trait ByteSource: Sync {
    /// Returns the length of the file.
    fn size_bytes(&self) -> u64;
    /// Returns its runs, from the first byte to the last.
    fn runs(&self) -> Vec<Run>;
    /// Appends a range, whole, to `bytes`.
    fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError>;
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
            let mut bytes = Vec::with_capacity(size_bytes as usize);
            source.read(0..size_bytes, &mut bytes)?;
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
        let pays = run.end - run.start >= PARALLEL_BYTES_MIN;
        let cutter = Mutex::new(Cutter::new(source, run, *sizes));
        let mut batches = side_by_side(pays, || {
            self.put_batches(&cutter).inspect_err(|_| cutter.lock().unwrap_or_else(PoisonError::into_inner).stop())
        })?;
        batches.sort_unstable_by_key(|(number, _)| *number);
        manifest.extents.extend(batches.into_iter().flat_map(|(_, extents)| extents));
        Ok(())
    }

    /// Stores batches of pieces until there are none left. Returns the number of each, and its extents.
    fn put_batches(&self, cutter: &Mutex<Cutter<'_>>) -> Result<Vec<(usize, Vec<Extent>)>, RepositoryError> {
        let mut bytes = Vec::new();
        let mut done = Vec::new();
        loop {
            let batch = cutter.lock().unwrap_or_else(PoisonError::into_inner).next(&mut bytes)?;
            let Some(Batch { number, pieces }) = batch else { return Ok(done) };
            let extents = pieces.into_iter().map(|piece| self.put_piece(piece, &bytes)).collect::<Result<_, _>>()?;
            done.push((number, extents));
        }
    }

    fn put_piece(&self, piece: Piece, bytes: &[u8]) -> Result<Extent, RepositoryError> {
        match piece {
            Piece::Stored(extent) => Ok(extent),
            Piece::New(range) => {
                let len = range.len() as u64;
                Ok(Extent { len, blob: Some(self.put(ObjectKind::Blob, &bytes[range])?) })
            }
        }
    }
}

fn push_hole(manifest: &mut Manifest, len: u64) {
    match manifest.extents.last_mut() {
        Some(Extent { len: last, blob: None }) => *last += len,
        _ => manifest.extents.push(Extent { len, blob: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectId;
    use crate::store::chunk::first_chunk;

    struct Bytes(Vec<u8>, Vec<(u64, Extent)>);

    impl ByteSource for Bytes {
        fn size_bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn runs(&self) -> Vec<Run> {
            vec![Run { range: 0..self.size_bytes(), hole: false }]
        }

        fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError> {
            bytes.extend_from_slice(&self.0[range.start as usize..range.end as usize]);
            Ok(())
        }

        fn stored(&self, at: u64, _end: u64) -> Option<Extent> {
            self.1.iter().find(|(start, _)| *start == at).map(|(_, extent)| *extent)
        }
    }

    /// However many threads store the pieces, and whatever of them is known to be stored, the list is the same.
    #[test]
    fn pieces_are_those_that_one_thread_would_cut() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::create(&dir.path().join("store")).unwrap();
        let mut state = 88_172_645_463_325_252_u64;
        let noise = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..12 << 20).map(noise).collect();
        let sizes = chunk_sizes_for(bytes.len() as u64);
        let (mut expected, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(first_chunk(rest, &sizes));
            expected.push(Extent { len: piece.len() as u64, blob: Some(ObjectId::of(piece)) });
            rest = tail;
        }
        let starts = expected.iter().scan(0, |at, extent| Some(std::mem::replace(at, *at + extent.len)));
        let known: Vec<_> = starts.zip(expected.clone()).filter(|(at, _)| at % 3 == 0).collect();
        for known in [Vec::new(), known] {
            let content = repository.put_content(&Bytes(bytes.clone(), known)).unwrap();
            let Content::Manifest(id) = content else { panic!("{content:?}") };
            assert_eq!(repository.manifest(&id).unwrap().extents, expected);
            assert_eq!(repository.read_content(&content, 0..bytes.len() as u64).unwrap(), bytes);
        }
    }
}
