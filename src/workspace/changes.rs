//! The live tree under its journal: what changes is journaled, then applied. What POSIX wants is checked in `name_changes`,
//! `content_changes` and `plain_changes`.

use super::error::WorkspaceError;
use super::inode::{Ino, ROOT};
use super::journal::Journal;
use super::live::LiveTree;
use super::opens::Opens;
use super::operation::Operation;
use super::quiet::Staged;
use super::staging_dir::StagingDir;
use std::collections::HashMap;
use std::sync::Arc;

/// The live tree with the journal that protects it: what the workspace's one lock covers.
pub struct Live {
    /// The tree.
    pub tree: LiveTree,
    /// Records of the changes since the last seal.
    pub journal: Journal,
    /// Where large new data goes.
    pub staging: Arc<StagingDir>,
    /// A change was journaled but could not be applied: nothing may change any more.
    pub poisoned: bool,
    /// The branch was deleted: nothing may change any more.
    pub closed: bool,
    /// Bytes of small dirty files taken into memory since the last cut.
    pub dirty_bytes: u64,
    /// What the last seal had to save and could not, about; `u64::MAX` while nobody knows.
    pub unsaved_bytes: u64,
    /// How often files are open, where opens are told.
    pub opens: HashMap<Ino, Opens>,
    /// Files whose bytes go to staging files.
    pub staged: Staged,
    /// Files that the kernel had still when they were closed.
    pub closed_and_held: Vec<Ino>,
}

/// When the journal segment is longer than this, the branch is sealed in the background, so that recovery stays short.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;

impl Live {
    /// Says whether the journal has grown so long, or so many staging files are open, that a seal is due.
    pub fn is_seal_due(&self) -> bool {
        self.journal.segment_bytes() > JOURNAL_BYTES_MAX || self.staging.is_crowded()
    }

    /// Journals and applies `operation` unless all files it concerns lost their names: nobody could find those after a restart.
    pub(super) fn perform(&mut self, operation: &Operation, files: &[Ino]) -> Result<(), WorkspaceError> {
        if self.poisoned {
            return Err(WorkspaceError::ReadOnly);
        }
        if self.closed {
            return Err(WorkspaceError::NotFound("the branch".into()));
        }
        let named = files.iter().all(|ino| self.tree.inode(*ino).is_ok_and(|inode| !inode.orphan));
        if named {
            for ino in files {
                self.bind(*ino)?;
            }
            self.journal.append(operation).map_err(WorkspaceError::io("journal"))?;
        }
        let applied = self.tree.apply_to(files, operation, &self.staging);
        if let (Err(err), true) = (&applied, named) {
            tracing::error!(?err, "a journaled operation cannot be applied; the workspace becomes read-only");
            self.poisoned = true;
        }
        applied
    }

    /// Makes sure that the current journal segment says where a file is, so that a replay can load it.
    pub(super) fn bind(&mut self, ino: Ino) -> Result<(), WorkspaceError> {
        let segment = self.bound_now();
        let mut unbound = Vec::new();
        let mut next = ino;
        while next != ROOT {
            let inode = self.tree.inode(next)?;
            if inode.bound_in == segment {
                break;
            }
            unbound.push(next);
            match inode.places.first() {
                Some(place) if !inode.linked => next = place.parent,
                _ => break,
            }
        }
        for ino in unbound.into_iter().rev() {
            let record = self.binding(ino)?;
            self.journal.append(&record).map_err(WorkspaceError::io("journal"))?;
            self.tree.inode_mut(ino)?.bound_in = segment;
        }
        Ok(())
    }

    /// Returns what [`Inode::bound_in`](super::inode::Inode::bound_in) is of a file that the current segment says the place of.
    pub(super) fn bound_now(&self) -> u32 {
        self.journal.segment() as u32
    }

    fn binding(&self, ino: Ino) -> Result<Operation, WorkspaceError> {
        let inode = self.tree.inode(ino)?;
        if inode.linked {
            return Ok(Operation::BindLink { identity: inode.identity });
        }
        let place = inode.places.first().ok_or_else(|| WorkspaceError::NotFound(format!("name of file {ino}")))?;
        let parent = self.tree.inode(place.parent)?.identity;
        Ok(Operation::Bind { identity: inode.identity, parent, name: place.name.clone() })
    }

    pub(super) fn identity(&self, ino: Ino) -> Result<u64, WorkspaceError> {
        Ok(self.tree.inode(ino)?.identity)
    }
}
