//! Large files that nobody has written to for a while are read before a checkpoint asks for it: their pieces are named, and their bytes are
//! on the disk. What the checkpoint then has left to do does not depend on their length.

use super::Workspace;
use super::changes::Live;
use super::error::WorkspaceError;
use super::file::{FileBody, Layered};
use super::inode::{Body, Ino};
use super::seal;
use crate::repository::LARGE_BYTES_MIN;
use crate::sys;
use std::collections::HashMap;
use std::sync::Arc;

/// A file of more pieces is not looked at: everybody waits meanwhile. One that was written from begin to end is of few.
const RANGES_MAX: usize = 1000;

/// Files that were written to through their staging file.
#[derive(Debug, Default)]
pub struct Staged(HashMap<Ino, Seen>);

impl Staged {
    /// Notes that a file was written to.
    pub fn note(&mut self, ino: Ino) {
        self.0.entry(ino).or_default();
    }
}

/// How a file looked last.
#[derive(Debug, Default)]
struct Seen {
    edits: u64,
    /// How often it looked the same since.
    quiet: u32,
    /// How often it was read since it was sealed: what is written to again and again is read more and more rarely.
    read: u32,
}

impl Seen {
    /// Looks at a file with this many edits; says whether it was quiet for long enough to be read.
    fn is_quiet(&mut self, edits: u64) -> bool {
        const DOUBLINGS_MAX: u32 = 10;
        if std::mem::replace(&mut self.edits, edits) != edits {
            self.quiet = 0;
            return false;
        }
        self.quiet = self.quiet.saturating_add(1);
        self.quiet >= 1 << self.read.min(DOUBLINGS_MAX)
    }
}

impl Live {
    /// Returns the large files that nobody wrote to since this was asked last, and how many edits they have.
    fn quiet_files(&mut self) -> Vec<(Ino, u64)> {
        let mut quiet = Vec::new();
        let tree = &self.tree;
        self.staged.0.retain(|ino, seen| {
            let Ok(inode) = tree.inode(*ino) else { return false };
            let Some(FileBody::Layered(layered)) = inode.file() else { return false };
            if layered.frozen || inode.orphan {
                return false;
            }
            if seen.is_quiet(layered.edits) && layered.named.is_none() {
                let short = layered.extents.len() <= RANGES_MAX;
                if layered.size_bytes < LARGE_BYTES_MIN || !short || layered.whole().is_none() {
                    return false; // Until it is written to again.
                }
                seen.read += 1;
                quiet.push((*ino, layered.edits));
            }
            true
        });
        quiet
    }

    /// Returns the layer of new bytes of a file, if it has one.
    pub(super) fn layer(&mut self, ino: Ino) -> Option<&mut Layered> {
        match &mut self.tree.inodes.get_mut(ino)?.body {
            Body::File(FileBody::Layered(layered)) => Some(layered),
            _ => None,
        }
    }
}

impl Workspace {
    /// Reads the large files that went quiet since the last call, as long as `goes_on` says so.
    pub(super) fn prepare_quiet_files(&self, goes_on: &(dyn Fn() -> bool + Sync)) {
        let quiet = self.live().quiet_files();
        if quiet.is_empty() {
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sys::give_way();
                for (ino, edits) in quiet {
                    // Not before its turn: who holds it keeps its staging file.
                    let Some(layered) = self.live().layer(ino).filter(|layered| layered.edits == edits).cloned() else {
                        continue;
                    };
                    if let Err(err) = self.prepare(ino, &layered, goes_on) {
                        tracing::debug!(ino, ?err, "a file is not read before its checkpoint");
                    }
                }
            });
        });
    }

    fn prepare(&self, ino: Ino, layered: &Layered, goes_on: &(dyn Fn() -> bool + Sync)) -> Result<(), WorkspaceError> {
        let unchanged = || self.live().layer(ino).is_some_and(|now| now.is_as(layered));
        let pieces = seal::pieces_of(&self.repository, layered, &|| goes_on() && unchanged())?;
        if let Some(now) = self.live().layer(ino).filter(|now| now.is_as(layered)) {
            now.named = Some(Arc::new(pieces));
        }
        if let Some(file) = &layered.staging {
            file.sync().and_then(|()| file.sync_name()).map_err(WorkspaceError::io("staging file"))?;
        }
        tracing::debug!(ino, size_bytes = layered.size_bytes, "a large file that went quiet is ready for its checkpoint");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_again_and_again_is_read_more_and_more_rarely() {
        let mut seen = Seen::default();
        let mut reads = Vec::new();
        let mut read = 0;
        for look in 5..200u64 {
            let edits = look / 5; // Written to before every fifth look.
            if seen.is_quiet(edits) && read != edits {
                read = edits;
                seen.read += 1;
                reads.push(look);
            }
        }
        assert_eq!(reads, [6, 12, 19], "after it was quiet at one look, two, four; it never is at eight");
        assert!(!seen.is_quiet(1000));
        assert_eq!((1..20).find(|_| seen.is_quiet(1000)), Some(8));
    }
}
