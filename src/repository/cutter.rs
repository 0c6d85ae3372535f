//! Cuts a run of bytes into pieces where the content says, a batch at a time, so that threads can share the work of storing them.

use super::RepositoryError;
use super::put_content::ByteSource;
use crate::object::Extent;
use crate::store::chunk::{ChunkSizes, first_chunk};
use std::ops::Range;

/// Most largest pieces that are read for one batch. The first batch of changed bytes reads one: often there is no more.
const AHEAD_MAX: u64 = 8;

/// Where the next piece begins.
pub struct Cutter<'a> {
    source: &'a dyn ByteSource,
    sizes: ChunkSizes,
    at: u64,
    end: u64,
    ahead: u64,
    batches: usize,
}

/// Pieces that follow each other.
pub struct Batch {
    /// Its place among the batches of the run.
    pub number: usize,
    /// Where in the file the buffer begins.
    pub start: u64,
    /// The pieces.
    pub pieces: Vec<Piece>,
}

/// One piece.
pub enum Piece {
    /// It is stored already.
    Stored(Extent),
    /// Its bytes are in this range of the buffer.
    New(Range<usize>),
}

impl<'a> Cutter<'a> {
    /// Cuts `run` of `source`.
    pub fn new(source: &'a dyn ByteSource, run: Range<u64>, sizes: ChunkSizes) -> Self {
        Self { source, sizes, at: run.start, end: run.end, ahead: 1, batches: 0 }
    }

    /// Cuts the next pieces, if there are any, and puts the bytes of new ones into `bytes`, whose room is used again.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<Batch>, RepositoryError> {
        bytes.clear();
        let mut pieces = Vec::new();
        while let Some(extent) = self.stored() {
            pieces.push(Piece::Stored(extent));
            self.at += extent.len;
            self.ahead = 1;
        }
        let start = self.at;
        if self.at < self.end {
            self.cut_new(bytes, &mut pieces)?;
        }
        if pieces.is_empty() {
            return Ok(None);
        }
        self.batches += 1;
        Ok(Some(Batch { number: self.batches - 1, start, pieces }))
    }

    fn cut_new(&mut self, bytes: &mut Vec<u8>, pieces: &mut Vec<Piece>) -> Result<(), RepositoryError> {
        let start = self.at;
        let upto = self.end.min(start + self.ahead * self.sizes.max as u64);
        self.source.read(start..upto, bytes)?;
        if bytes.len() as u64 != upto - start {
            return Err(RepositoryError::Other("a file became shorter while it was read".into()));
        }
        loop {
            let from = (self.at - start) as usize;
            let rest = &bytes[from..];
            // What is shorter than the largest piece may go on behind the buffer.
            if rest.is_empty() || rest.len() < self.sizes.max && upto < self.end {
                break;
            }
            let len = first_chunk(rest, &self.sizes);
            pieces.push(Piece::New(from..from + len));
            self.at += len as u64;
            if self.stored().is_some() {
                break;
            }
        }
        self.ahead = (self.ahead * 2).min(AHEAD_MAX);
        Ok(())
    }

    fn stored(&self) -> Option<Extent> {
        if self.at < self.end { self.source.stored(self.at, self.end) } else { None }
    }

    /// Cuts no more.
    pub fn stop(&mut self) {
        self.at = self.end;
    }
}
