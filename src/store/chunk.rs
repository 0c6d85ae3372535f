//! Cuts large files where their content says, so that an edit moves few cuts.

use fastcdc::v2020::FastCDC;

/// Smallest, average and largest piece in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    /// Smallest.
    pub min: usize,
    /// Average.
    pub average: usize,
    /// Largest.
    pub max: usize,
}

const KIB: usize = 1 << 10;
/// Files from this size on are cut into larger pieces, so that their lists stay short.
const LARGE_BYTES_MIN: u64 = 64 << 20;

/// Returns how a file of that length is cut.
pub fn chunk_sizes_for(size_bytes: u64) -> ChunkSizes {
    if size_bytes < LARGE_BYTES_MIN {
        ChunkSizes { min: 16 * KIB, average: 64 * KIB, max: 256 * KIB }
    } else {
        ChunkSizes { min: 64 * KIB, average: 256 * KIB, max: 1024 * KIB }
    }
}

/// Returns the length of the first piece of `bytes`, which must be as long as the largest piece unless the file ends earlier.
pub fn first_chunk(bytes: &[u8], sizes: &ChunkSizes) -> usize {
    if bytes.len() <= sizes.min {
        return bytes.len();
    }
    let window = &bytes[..bytes.len().min(sizes.max)];
    let (_, end) = FastCDC::new(window, sizes.min, sizes.average, sizes.max).cut(0, window.len());
    if end == 0 { window.len() } else { end.min(window.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectId;
    use std::collections::HashSet;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let step = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(step).collect()
    }

    fn pieces(bytes: &[u8]) -> Vec<ObjectId> {
        let sizes = chunk_sizes_for(bytes.len() as u64);
        let mut rest = bytes;
        let mut ids = Vec::new();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(first_chunk(rest, &sizes));
            ids.push(ObjectId::of(piece));
            rest = tail;
        }
        ids
    }

    #[test]
    fn an_insertion_or_a_changed_byte_in_the_middle_makes_few_new_pieces() {
        let original = noise(8 << 20);
        let before: HashSet<_> = pieces(&original).into_iter().collect();
        let mut inserted = original.clone();
        inserted.splice(4 << 20..4 << 20, *b"inserted");
        let mut changed = original;
        changed[4 << 20] ^= 1;
        for edited in [inserted, changed] {
            let fresh = pieces(&edited).into_iter().filter(|id| !before.contains(id)).count();
            assert!((1..=3).contains(&fresh), "{fresh} new pieces");
        }
    }
}
