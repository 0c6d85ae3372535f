//! Stores the bytes of a file: one blob when it is small and dense, otherwise pieces cut where the content says.

use super::adopt::ADOPTED_BYTES_MIN;
use super::cutter::{Batch, Cutter, Piece};
use super::side_by_side::side_by_side;
use super::{Repository, RepositoryError};
use crate::object::{Content, Extent, Manifest, ObjectId, ObjectKind};
use crate::store::chunk::{ChunkSizes, chunk_sizes_for};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Stores or finds a piece that begins at an offset of the file, and says what it is called.
pub(super) type PutPiece<'a> = dyn Fn(u64, &[u8]) -> Result<ObjectId, RepositoryError> + Sync + 'a;

/// A file whose bytes are to be stored.
pub trait ByteSource: Sync {
    /// Returns the length of the file.
    fn size_bytes(&self) -> u64;
    /// Returns its runs, from the first byte to the last.
    fn runs(&self) -> Vec<Run>;
    /// Appends a range, whole, to `bytes`.
    fn read(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), RepositoryError>;
    /// Gives away the file in which each byte lies at its own offset, if there is one; whoever could write to it does not any more.
    fn take_file(&self) -> Option<PathBuf> {
        None
    }
    /// Returns the pieces of the whole file, if [`Repository::pieces_of`] named them before and nothing changed since.
    fn named(&self) -> Option<Arc<Vec<Extent>>> {
        None
    }
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
        if size_bytes >= ADOPTED_BYTES_MIN
            && let Some(path) = source.take_file()
            && !self.compresses(source)?
        {
            return self.adopt(source, runs, &path);
        }
        self.put_pieces(source, runs, &|_, bytes| self.put(ObjectKind::Blob, bytes))
    }

    /// Names the pieces of a file, and stores nothing.
    pub fn pieces_of(&self, source: &dyn ByteSource) -> Result<Vec<Extent>, RepositoryError> {
        cut(source, source.runs(), &|_, bytes| Ok(ObjectId::of(bytes)))
    }

    /// Has `put` store or find the pieces of a file, and stores the list of them.
    pub(super) fn put_pieces(
        &self,
        source: &dyn ByteSource,
        runs: Vec<Run>,
        put: &PutPiece<'_>,
    ) -> Result<Content, RepositoryError> {
        self.put_list(cut(source, runs, put)?)
    }

    /// Stores the list of a file's pieces.
    pub(super) fn put_list(&self, extents: Vec<Extent>) -> Result<Content, RepositoryError> {
        Ok(Content::Manifest(self.put(ObjectKind::Manifest, &Manifest { extents }.encode())?))
    }
}

/// Has `put` store, find or name the pieces of a file.
fn cut(source: &dyn ByteSource, runs: Vec<Run>, put: &PutPiece<'_>) -> Result<Vec<Extent>, RepositoryError> {
    let sizes = chunk_sizes_for(source.size_bytes());
    let mut extents = Vec::new();
    for run in runs {
        if run.hole {
            push_hole(&mut extents, run.range.end - run.range.start);
        } else {
            extents.extend(put_run(source, run.range, sizes, put)?);
        }
    }
    Ok(extents)
}

fn put_run(
    source: &dyn ByteSource,
    run: Range<u64>,
    sizes: ChunkSizes,
    put: &PutPiece<'_>,
) -> Result<impl Iterator<Item = Extent>, RepositoryError> {
    let pays = run.end - run.start >= PARALLEL_BYTES_MIN;
    let cutter = Mutex::new(Cutter::new(source, run, sizes));
    let mut batches = side_by_side(pays, || {
        put_batches(&cutter, put).inspect_err(|_| cutter.lock().unwrap_or_else(PoisonError::into_inner).stop())
    })?;
    batches.sort_unstable_by_key(|(number, _)| *number);
    Ok(batches.into_iter().flat_map(|(_, extents)| extents))
}

/// Stores batches of pieces until there are none left. Returns the number of each, and its extents.
fn put_batches(cutter: &Mutex<Cutter<'_>>, put: &PutPiece<'_>) -> Result<Vec<(usize, Vec<Extent>)>, RepositoryError> {
    let mut bytes = Vec::new();
    let mut done = Vec::new();
    loop {
        let batch = cutter.lock().unwrap_or_else(PoisonError::into_inner).next(&mut bytes)?;
        let Some(Batch { number, start, pieces }) = batch else { return Ok(done) };
        let mut extents = Vec::with_capacity(pieces.len());
        for piece in pieces {
            extents.push(match piece {
                Piece::Stored(extent) => extent,
                Piece::New(range) => {
                    let len = range.len() as u64;
                    Extent { len, blob: Some(put(start + range.start as u64, &bytes[range])?) }
                }
            });
        }
        done.push((number, extents));
    }
}

fn push_hole(extents: &mut Vec<Extent>, len: u64) {
    match extents.last_mut() {
        Some(Extent { len: last, blob: None }) => *last += len,
        _ => extents.push(Extent { len, blob: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
