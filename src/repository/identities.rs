//! Identities for new files, as many as are asked for.

use super::{Repository, RepositoryError};
use std::ops::Range;
use std::sync::{MutexGuard, PoisonError};

/// Identities taken from the database at a time: what a process does not use is lost, and there are 2^46.
const IDENTITIES_TAKEN: u64 = 1 << 20;
/// Identities that a branch or a command gets at a time.
const IDENTITIES_GIVEN: u64 = 1 << 14;

/// Hands out identities that no other file of the store has or will get. The store is asked when the first is needed, and again
/// when those are used up.
#[derive(Debug)]
pub struct Identities<'a> {
    repository: &'a Repository,
    range: Range<u64>,
    failed: Option<RepositoryError>,
}

impl Repository {
    /// Takes a range of identities for new files and returns its bounds.
    pub fn take_identities(&self) -> Result<Range<u64>, RepositoryError> {
        let mut kept = self.kept_identities()?;
        let given = kept.start..kept.end.min(kept.start + IDENTITIES_GIVEN);
        kept.start = given.end;
        Ok(given)
    }

    /// Has identities at hand before the first is needed: whoever makes a file does not wait for somebody else's transaction.
    pub fn expect_identities(&self) -> Result<(), RepositoryError> {
        self.kept_identities().map(drop)
    }

    /// Returns those at hand, at least one.
    fn kept_identities(&self) -> Result<MutexGuard<'_, Range<u64>>, RepositoryError> {
        let mut kept = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_empty() {
            let first = self.history.take_identities(IDENTITIES_TAKEN)?;
            *kept = first..first + IDENTITIES_TAKEN;
        }
        Ok(kept)
    }

    /// Begins to hand out identities.
    pub fn identities(&self) -> Identities<'_> {
        Identities { repository: self, range: 0..0, failed: None }
    }
}

impl Identities<'_> {
    /// Returns the next one. What is made with it counts only if [`Self::finish`] finds nothing wrong.
    pub fn fresh(&mut self) -> u64 {
        if self.range.is_empty() && self.failed.is_none() {
            match self.repository.take_identities() {
                Ok(range) => self.range = range,
                Err(err) => self.failed = Some(err),
            }
        }
        self.range.next().unwrap_or_default()
    }

    /// Says whether all that were handed out are what they should be.
    pub fn finish(self) -> Result<(), RepositoryError> {
        self.failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A restore of a path, an import and a merge had a million, and from then on gave all files the identity 0.
    #[test]
    fn identities_do_not_run_out_within_a_large_change() {
        let temp = tempfile::tempdir().unwrap();
        let repository = Repository::create(&temp.path().join("store")).unwrap();
        let mut identities = repository.identities();
        let mut last = 1; // The top directory's.
        for _ in 0..(1 << 20) + 10 {
            let identity = identities.fresh();
            assert!(identity > last, "{identity} behind {last}");
            last = identity;
        }
        identities.finish().unwrap();
    }
}
