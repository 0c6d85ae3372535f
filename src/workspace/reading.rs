//! Reads the bytes of a file from wherever they are.

use super::error::WorkspaceError;
use super::file::{FileBody, Piece, Source};
use crate::repository::Repository;
use std::ops::Range;

/// Reads `range` of a file as it was when `body` was taken; what lies beyond its end is left out.
pub fn read(repository: &Repository, body: &FileBody, range: Range<u64>) -> Result<Vec<u8>, WorkspaceError> {
    let pieces = body.pieces(range);
    if let [Piece { range, source: Source::Clean(content, offset) }] = &pieces[..] {
        return Ok(repository.read_content(content, *offset..*offset + (range.end - range.start))?);
    }
    let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| (piece.range.end - piece.range.start) as usize).sum());
    for piece in pieces {
        read_piece(repository, &piece, &mut bytes)?;
    }
    Ok(bytes)
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
