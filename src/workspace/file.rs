//! The bytes of a regular file in the live tree: clean in the object store, or dirty in memory or staging.

use super::cut::SealedFile;
use super::extents::{ExtentMap, Fill};
use super::plain::Plain;
use super::staging::StagingFile;
use crate::object::{Content, Extent};
use std::ops::Range;
use std::sync::Arc;

/// Dirty files up to this size live in memory, backed by the journal; larger ones in a staging file.
pub const SMALL_BYTES_MAX: u64 = 256 << 10;
/// Space is counted in blocks of this size, as ext4 does.
pub const BLOCK_BYTES: u64 = 4096;

/// Where a file's bytes live right now.
#[derive(Clone, Debug)]
pub enum FileBody {
    /// Unchanged since it was sealed; the object store holds the bytes.
    Clean { content: Content, size_bytes: u64, data_bytes: u64 },
    /// The whole file, in memory and in the journal.
    Small(Arc<Vec<u8>>),
    /// New bytes over what the file had before.
    Layered(Box<Layered>),
    /// The whole file, in a staging file that the kernel may write by itself.
    Plain(Box<Plain>),
}

/// New bytes of a large or sparse file, over what it had before.
#[derive(Clone, Debug)]
pub struct Layered {
    /// Length of the file.
    pub size_bytes: u64,
    /// What lies below the new bytes.
    pub base: Base,
    /// Bytes of the base that still show: truncation lowers it for good.
    pub base_bytes: u64,
    /// Where new bytes lie, once there are some.
    pub staging: Option<Arc<StagingFile>>,
    /// Which ranges are new.
    pub extents: ExtentMap,
    /// A cut holds this layer: its staging file must not change any more.
    pub frozen: bool,
    /// How often it was changed.
    pub edits: u64,
    /// The pieces of the whole file, named since the last change.
    pub named: Option<Arc<Vec<Extent>>>,
}

/// What lies below the new bytes of a file.
#[derive(Clone, Debug)]
pub enum Base {
    /// Nothing: holes.
    Nothing,
    /// Sealed content.
    Clean(Content),
    /// A small file that grew; the journal holds these bytes.
    Bytes(Arc<Vec<u8>>),
    /// A layer that a checkpoint in progress is sealing.
    Frozen(Arc<Layered>),
}

/// Where one piece of a file is to be read from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Zeros without space.
    Hole,
    /// Zeros with space.
    Zero,
    /// Bytes in memory, from an offset.
    Bytes(Arc<Vec<u8>>, u64),
    /// A staging file, from an offset.
    Staging(Arc<StagingFile>, u64),
    /// Sealed content, from an offset.
    Clean(Content, u64),
}

/// A range of a file, and the bytes in memory that are there, from an offset.
pub type BytesAt = (Range<u64>, Arc<Vec<u8>>, usize);

/// One piece of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The range of the file.
    pub range: Range<u64>,
    /// Where its bytes are.
    pub source: Source,
}

impl FileBody {
    /// Returns a file without bytes.
    pub fn empty() -> Self {
        Self::Clean { content: Content::Empty, size_bytes: 0, data_bytes: 0 }
    }

    /// Returns the length of the file.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Clean { size_bytes, .. } => *size_bytes,
            Self::Small(bytes) => bytes.len() as u64,
            Self::Layered(layered) => layered.size_bytes,
            Self::Plain(plain) => plain.seen.size_bytes,
        }
    }

    /// Returns how many bytes take space, in whole blocks for holes.
    pub fn data_bytes(&self) -> u64 {
        match self {
            Self::Clean { data_bytes, .. } => *data_bytes,
            Self::Small(bytes) => bytes.len() as u64,
            Self::Layered(layered) => layered.data_bytes(),
            Self::Plain(plain) => plain.seen.data_bytes,
        }
    }

    /// Returns what is sealed of the file, if it is as sealed.
    pub fn sealed(&self) -> Option<SealedFile> {
        match self {
            Self::Clean { content, size_bytes, data_bytes } => {
                Some(SealedFile { content: *content, size_bytes: *size_bytes, data_bytes: *data_bytes, stamp: None })
            }
            Self::Plain(plain) => plain.sealed,
            Self::Small(_) | Self::Layered(_) => None,
        }
    }

    /// Says where the bytes of `range` are; the part beyond the end of the file is left out.
    pub fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let range = range.start..range.end.min(self.size_bytes());
        if range.is_empty() {
            return Vec::new();
        }
        match self {
            Self::Clean { content, .. } => vec![clean_piece(*content, range)],
            Self::Small(bytes) => vec![Piece { source: Source::Bytes(bytes.clone(), range.start), range }],
            Self::Layered(layered) => layered.pieces(range),
            Self::Plain(plain) => vec![Piece { source: Source::Staging(plain.file.clone(), range.start), range }],
        }
    }
}

impl Layered {
    /// Starts a layer without new bytes over `below`.
    pub fn over(below: &FileBody) -> Self {
        let size_bytes = below.size_bytes();
        let base = match below {
            FileBody::Clean { content: Content::Empty, .. } => Base::Nothing,
            FileBody::Clean { content, .. } => Base::Clean(*content),
            FileBody::Small(bytes) => Base::Bytes(bytes.clone()),
            FileBody::Layered(layered) => Base::Frozen(Arc::new((**layered).clone())),
            FileBody::Plain(plain) => Base::Frozen(Arc::new(plain.to_layer())),
        };
        let base_bytes = if matches!(base, Base::Nothing) { 0 } else { size_bytes };
        let edits = if let FileBody::Layered(below) = below { below.edits + 1 } else { 0 }; // It is no layer that was there before.
        Self { size_bytes, base, base_bytes, staging: None, extents: ExtentMap::default(), frozen: false, edits, named: None }
    }

    /// Changes the length; what is cut off never shows again.
    pub fn resize(&mut self, size_bytes: u64) {
        if size_bytes < self.size_bytes {
            self.extents.clear(size_bytes..u64::MAX);
            self.base_bytes = self.base_bytes.min(size_bytes);
            // The rest of the last block reads as zeros should the file grow again: the extent ends here.
        }
        self.size_bytes = size_bytes;
    }

    /// Makes holes in `range` zeros that take space.
    pub fn allocate(&mut self, range: Range<u64>) {
        for piece in self.pieces(range) {
            if matches!(piece.source, Source::Hole) {
                self.extents.set(piece.range, Fill::Zero);
            }
        }
    }

    /// Says that `range` was written. The blocks at its ends take space as a whole, as on ext4: a block is a hole or it is not.
    pub fn written(&mut self, range: Range<u64>) {
        self.size_bytes = self.size_bytes.max(range.end);
        self.extents.set(range.clone(), Fill::Data);
        for at in [range.start, range.end.saturating_sub(1)] {
            let block = at / BLOCK_BYTES * BLOCK_BYTES;
            self.allocate(block..block.saturating_add(BLOCK_BYTES));
        }
    }

    /// Makes zeros of `range`, and holes of the whole blocks in it; what lies behind the end of the file is one with its last block.
    pub fn punch(&mut self, range: Range<u64>) {
        let size_bytes = self.size_bytes;
        let range = range.start..if range.end > size_bytes { size_bytes.next_multiple_of(BLOCK_BYTES) } else { range.end };
        let start = range.start.next_multiple_of(BLOCK_BYTES);
        let holes = start..(range.end / BLOCK_BYTES * BLOCK_BYTES).max(start);
        for edge in [range.start..holes.start.min(range.end), holes.end..range.end.max(holes.end)] {
            for piece in self.pieces(edge) {
                if !matches!(piece.source, Source::Hole) {
                    self.extents.set(piece.range, Fill::Zero);
                }
            }
        }
        self.extents.set(holes, Fill::Hole); // Behind the end too: an allocated block would show when the file grows.
    }

    fn data_bytes(&self) -> u64 {
        let mut total = 0;
        let mut counted = 0; // Blocks below this are counted.
        for piece in self.pieces(0..self.size_bytes) {
            if matches!(piece.source, Source::Hole) {
                continue;
            }
            let start = (piece.range.start / BLOCK_BYTES * BLOCK_BYTES).max(counted);
            let end = piece.range.end.next_multiple_of(BLOCK_BYTES);
            if end > start {
                total += end - start;
                counted = end;
            }
        }
        total
    }

    fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (range, fill) in self.extents.pieces(range) {
            match (fill, &self.staging) {
                (Some(Fill::Data), Some(staging)) => {
                    pieces.push(Piece { source: Source::Staging(staging.clone(), range.start), range });
                }
                (Some(Fill::Data | Fill::Zero), _) => pieces.push(Piece { source: Source::Zero, range }),
                (Some(Fill::Hole), _) => pieces.push(Piece { source: Source::Hole, range }),
                (None, _) => self.base_pieces(range, &mut pieces),
            }
        }
        pieces
    }

    fn base_pieces(&self, range: Range<u64>, pieces: &mut Vec<Piece>) {
        let split = self.base_bytes.clamp(range.start, range.end);
        let shown = range.start..split;
        if !shown.is_empty() {
            match &self.base {
                Base::Nothing => pieces.push(Piece { source: Source::Hole, range: shown }),
                Base::Clean(content) => pieces.push(clean_piece(*content, shown)),
                Base::Bytes(bytes) => pieces.push(Piece { source: Source::Bytes(bytes.clone(), shown.start), range: shown }),
                Base::Frozen(layer) => pieces.extend(layer.pieces(shown)),
            }
        }
        if split < range.end {
            pieces.push(Piece { source: Source::Hole, range: split..range.end });
        }
    }

    /// Puts sealed content in the place of the frozen layer that it was made of. What is a hole of that layer stays one without
    /// asking the store.
    pub fn rest_on(&mut self, content: Content) {
        let Base::Frozen(sealed) = &self.base else { return };
        let shown = sealed.pieces(0..self.base_bytes).into_iter();
        let holes = shown.filter(|piece| matches!(piece.source, Source::Hole)).map(|piece| piece.range);
        for hole in holes.collect::<Vec<_>>() {
            for (range, fill) in self.extents.pieces(hole) {
                if fill.is_none() {
                    self.extents.set(range, Fill::Hole);
                }
            }
        }
        self.base = if content == Content::Empty { Base::Nothing } else { Base::Clean(content) };
    }

    /// Takes note that it is about to change.
    pub fn edit(&mut self) {
        self.edits += 1;
        self.named = None;
    }

    /// Says whether nothing changed since `then`, which was this layer.
    pub fn is_as(&self, then: &Self) -> bool {
        let file = |layered: &Self| layered.staging.as_ref().map(|file| file.number());
        (file(self), self.edits) == (file(then), then.edits)
    }

    /// Returns the staging file in which all bytes lie, each at its own offset, and those that are in memory instead: the file had them before
    /// it grew.
    pub fn whole(&self) -> Option<(Arc<StagingFile>, Vec<BytesAt>)> {
        let mut only: Option<Arc<StagingFile>> = None;
        let mut in_memory = Vec::new();
        for piece in self.pieces(0..self.size_bytes) {
            match piece.source {
                Source::Hole => {}
                Source::Staging(file, _) if only.as_ref().is_none_or(|only| Arc::ptr_eq(only, &file)) => only = Some(file),
                Source::Bytes(bytes, offset) => in_memory.push((piece.range, bytes, offset as usize)),
                _ => return None,
            }
        }
        Some((only?, in_memory))
    }

    /// Calls `visit` with every staging file that holds bytes of this file.
    pub fn each_staging(&self, visit: &mut dyn FnMut(&Arc<StagingFile>)) {
        let mut layer = self;
        loop {
            if let Some(staging) = &layer.staging {
                visit(staging);
            }
            match &layer.base {
                Base::Frozen(below) => layer = below,
                _ => return,
            }
        }
    }
}

fn clean_piece(content: Content, range: Range<u64>) -> Piece {
    let source = if content == Content::Empty { Source::Hole } else { Source::Clean(content, range.start) };
    Piece { range, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_hole_or_it_is_not() {
        let holes = |layered: &Layered| {
            let pieces = layered.pieces(0..layered.size_bytes).into_iter();
            pieces
                .filter(|piece| matches!(piece.source, Source::Hole))
                .map(|piece| (piece.range.start, piece.range.end))
                .collect::<Vec<_>>()
        };
        let mut layered = Layered::over(&FileBody::empty());
        layered.resize(20_000);
        layered.written(9000..9010);
        assert_eq!(holes(&layered), [(0, 8192), (12_288, 20_000)]);
        layered.resize(8500);
        assert_eq!(holes(&layered), [(0, 8192)], "its block stays though the bytes that were written are gone");
        layered.punch(8200..8500);
        assert_eq!(holes(&layered), [(0, 8192)], "part of a block is made zeros");
        layered.punch(8192..9000);
        assert_eq!(holes(&layered), [(0, 8192), (8192, 8500)], "a range that goes beyond the end has all of the last block");
        layered.written(30_000..30_010);
        assert_eq!(holes(&layered), [(0, 8192), (8192, 12_288), (12_288, 28_672)], "nor is any of it there when the file grows");
    }

    /// Two layers over layers had the same number of edits and no staging file of their own.
    #[test]
    fn a_layer_is_not_taken_for_the_one_below_it() {
        let mut below = Layered::over(&FileBody::Small(Arc::new(vec![7; 10_000])));
        below.edit();
        let mut above = Layered::over(&FileBody::Layered(Box::new(below.clone())));
        assert!(below.is_as(&below.clone()) && !above.is_as(&below));
        above.edit();
        let last = Layered::over(&FileBody::Layered(Box::new(above.clone())));
        assert!(!last.is_as(&above) && !last.is_as(&below));
    }

    #[test]
    fn a_file_that_shrank_and_grew_again_shows_a_hole() {
        let mut layered = Layered::over(&FileBody::Small(Arc::new(vec![7; 10_000])));
        layered.resize(5000);
        layered.resize(9000);
        let sources: Vec<_> =
            layered.pieces(0..9000).into_iter().map(|piece| (piece.range, matches!(piece.source, Source::Hole))).collect();
        assert_eq!(sources, [(0..5000, false), (5000..9000, true)]);
        assert_eq!(layered.data_bytes(), 8192);
    }
}
