//! What threads make: who made small files time and again makes the next one small too. Nothing but speed depends on it.

use crate::workspace::REST_BYTES_MAX;
use std::collections::HashMap;

/// So many files in a row that stayed small foretell another.
const IN_A_ROW: u8 = 8;
/// Most threads that are remembered.
const MAKERS_MAX: usize = 256;

/// How many small files in a row each thread filled that filled one of late.
#[derive(Debug, Default)]
pub struct Makers(HashMap<u32, u8>);

impl Makers {
    /// Notes that a file was closed which this thread opened empty. Small is what would not stay in a staging file of its own.
    pub fn filled(&mut self, thread: u32, size_bytes: u64) {
        if size_bytes > REST_BYTES_MAX {
            self.0.remove(&thread);
            return;
        }
        if self.0.len() >= MAKERS_MAX && !self.0.contains_key(&thread) {
            self.0.clear(); // They are learned again soon.
        }
        let in_a_row = self.0.entry(thread).or_default();
        *in_a_row = in_a_row.saturating_add(1);
    }

    /// Says whether the next file that this thread makes will be small, as far as one can tell.
    pub fn makes_small_ones(&self, thread: u32) -> bool {
        self.0.get(&thread).is_some_and(|in_a_row| *in_a_row >= IN_A_ROW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_made_small_files_makes_another_until_one_is_large() {
        let mut makers = Makers::default();
        for _ in 0..IN_A_ROW {
            assert!(!makers.makes_small_ones(7));
            makers.filled(7, REST_BYTES_MAX);
        }
        assert!(makers.makes_small_ones(7) && !makers.makes_small_ones(8));
        makers.filled(7, REST_BYTES_MAX + 1);
        makers.filled(7, 0);
        assert!(!makers.makes_small_ones(7));
    }

    #[test]
    fn no_more_threads_are_remembered_than_there_is_room_for() {
        let mut makers = Makers::default();
        (0..10 * MAKERS_MAX as u32).for_each(|thread| makers.filled(thread, 1));
        assert!(makers.0.len() <= MAKERS_MAX);
    }
}
