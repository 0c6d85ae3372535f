//! Reads the bytes of a file from wherever they are.

use super::error::WorkspaceError;
use super::file::{BLOCK_BYTES, FileBody, Piece, Source};
use crate::repository::Repository;
use std::ops::Range;

/// Reads `range` of a file as it was when `body` was taken; what lies beyond its end is left out.
pub fn read(repository: &Repository, body: &FileBody, range: Range<u64>) -> Result<Vec<u8>, WorkspaceError> {
    let pieces = body.pieces(range);
    if let [Piece { range, source: Source::Clean(content, offset) }] = &pieces[..] {
        return Ok(repository.read_content(content, *offset..*offset + (range.end - range.start))?);
    }
    let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| (piece.range.end - piece.range.start) as usize).sum());
    read_pieces(repository, &pieces, &mut bytes)?;
    Ok(bytes)
}

/// Reads likewise, and appends what it reads.
pub fn read_into(repository: &Repository, body: &FileBody, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), WorkspaceError> {
    read_pieces(repository, &body.pieces(range), bytes)
}

fn read_pieces(repository: &Repository, pieces: &[Piece], bytes: &mut Vec<u8>) -> Result<(), WorkspaceError> {
    pieces.iter().try_for_each(|piece| read_piece(repository, piece, bytes))
}

fn read_piece(repository: &Repository, piece: &Piece, bytes: &mut Vec<u8>) -> Result<(), WorkspaceError> {
    let len = piece.range.end - piece.range.start;
    let start = bytes.len();
    let end = start + len as usize;
    match &piece.source {
        Source::Hole | Source::Zero => bytes.resize(end, 0),
        Source::Bytes(all, offset) => {
            let from = (*offset as usize).min(all.len());
            let to = (from + len as usize).min(all.len());
            bytes.extend_from_slice(&all[from..to]);
            bytes.resize(end, 0);
        }
        Source::Staging(file, offset) => {
            bytes.resize(end, 0);
            file.read_at(*offset, &mut bytes[start..]).map_err(WorkspaceError::io("staging file"))?;
        }
        Source::Clean(content, offset) => {
            bytes.extend_from_slice(&repository.read_content(content, *offset..*offset + len)?);
        }
    }
    if bytes.len() == end { Ok(()) } else { Err(WorkspaceError::Invalid("a piece of the file is short".into())) }
}

/// Finds the next data (or hole) from `offset` on, in whole blocks.
pub fn seek(repository: &Repository, body: &FileBody, offset: u64, hole: bool) -> Result<u64, WorkspaceError> {
    if let FileBody::Plain(plain) = body {
        return seek(repository, &FileBody::Layered(Box::new(plain.to_layer())), offset, hole);
    }
    let size_bytes = body.size_bytes();
    if offset >= size_bytes {
        return Err(WorkspaceError::NoSuchOffset);
    }
    let mut data = Vec::new();
    for piece in body.pieces(0..size_bytes) {
        match piece.source {
            Source::Hole => {}
            Source::Clean(content, from) => {
                let shift = piece.range.start - from; // Zero: layers keep the offsets of the file.
                let mut at = piece.range.start;
                for hole in repository.holes_of(&content)? {
                    let start = (hole.start + shift).clamp(at, piece.range.end);
                    let end = (hole.end + shift).clamp(at, piece.range.end);
                    data.push(at..start);
                    at = end;
                }
                data.push(at..piece.range.end);
            }
            _ => data.push(piece.range),
        }
    }
    seek_in(&data, offset, size_bytes, hole).ok_or(WorkspaceError::NoSuchOffset)
}

/// Finds the next block of data or hole in sorted, possibly empty, ranges of data.
fn seek_in(data: &[std::ops::Range<u64>], offset: u64, size_bytes: u64, hole: bool) -> Option<u64> {
    let mut at = offset;
    for range in data.iter().filter(|range| !range.is_empty()) {
        let start = range.start / BLOCK_BYTES * BLOCK_BYTES;
        let end = range.end.next_multiple_of(BLOCK_BYTES).min(size_bytes);
        if end <= at {
            continue;
        }
        if !hole {
            return Some(at.max(start));
        }
        if start > at {
            return Some(at);
        }
        at = end;
    }
    hole.then_some(at.min(size_bytes))
}

#[cfg(test)]
mod tests {
    use super::seek_in;

    #[test]
    fn seeking_finds_data_and_holes_and_the_end_is_a_hole() {
        let data = [0..4096, 12_288..20_000];
        assert_eq!(seek_in(&data, 0, 20_000, false), Some(0));
        assert_eq!(seek_in(&data, 5000, 20_000, false), Some(12_288));
        assert_eq!(seek_in(&data, 0, 20_000, true), Some(4096));
        assert_eq!(seek_in(&data, 13_000, 20_000, true), Some(20_000));
        assert_eq!(seek_in(&[], 0, 100, false), None);
        assert_eq!(seek_in(&[], 0, 100, true), Some(0));
    }
}
