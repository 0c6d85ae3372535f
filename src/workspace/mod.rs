//! The live tree of one branch: answers file operations, journals them, checkpoints and restores.
//!
//! Every change is an `Operation`: checked against POSIX (`changes`), written to the journal (`journal`), applied by one
//! function (`apply`). A checkpoint takes what changed out of memory (`cut`), turns it into objects (`seal`) while work
//! goes on, names them in one transaction (`checkpoint`) and marks the tree clean (`cut` again). A restore seals
//! likewise, compares two sealed states and swaps what differs (`swap`).

mod acl;
mod apply;
mod branches;
mod changes;
mod checkpoint;
pub mod clock;
mod content_changes;
mod cut;
mod error;
mod extents;
mod file;
mod gate;
mod group_sync;
mod head;
mod held_files;
mod import;
mod inode;
mod inspect;
mod journal;
mod journal_sync;
mod listing;
mod live;
mod merge;
mod merge_text;
mod movement;
mod name_changes;
mod opens;
mod operation;
mod places;
mod plain;
mod plain_changes;
mod primitives;
mod quiet;
mod reading;
mod replay;
mod restore;
mod seal;
mod segment;
mod share;
mod staging;
mod staging_dir;
mod standing;
mod swap;
mod syncing;
mod table;
mod writing;

pub use acl::{ACCESS as ACL_ACCESS, DEFAULT as ACL_DEFAULT};
pub use branches::{Branches, Pin};
pub use checkpoint::{Checkpoint, CheckpointRequest};
pub use content_changes::{FILE_BYTES_MAX, XattrMode};
pub use error::WorkspaceError;
pub use import::{ImportProgress, Imported};
pub use inode::{Attributes, Ino, ROOT};
pub use inspect::{Inspected, found_branches, inspect};
pub use listing::Listed;
pub use merge::{MergeRequest, MergeSource, Merged};
pub use name_changes::RenameMode;
pub use opens::{Closed, Opened, Purpose, REST_BYTES_MAX, why_not_handed};
pub use operation::{AttributeChange, NewNode, RangeChange, RangeOptions};
pub use restore::{BranchUndo, RestoreRequest, Restored, UndoPlan};
#[doc(hidden)]
pub use segment::rewritten_records;
pub use staging::StagingFile;
pub use swap::Stale;
pub use syncing::FileSync;

use crate::history::BranchRow;
use crate::object::{Name, ObjectId};
use crate::repository::Repository;
use crate::tree::NodeSource;
use crate::watchdog;
use changes::Live;
use gate::{Entered, Gate};
use head::{Head, HeadGuard};
use journal::Journal;
use live::LiveTree;
use quiet::Staged;
use staging_dir::StagingDir;
use standing::Standing;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a write did.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// How many bytes: less than were given when the disk filled on the way.
    pub len: usize,
    /// Whether the journal has grown so long that a seal is due.
    pub seal_due: bool,
}

/// The live tree behind one branch.
///
/// Lock order, outermost first: `head` (one checkpoint or restore at a time), then `live`. `live` is held for memory
/// work, one journal record and the loading of a directory node; hashing, syncing and transactions happen outside,
/// except for the transaction of a restore.
pub struct Workspace {
    repository: Arc<Repository>,
    branch_id: i64,
    head: Mutex<Head>,
    /// What others may know of the head while a checkpoint or a restore goes on.
    published: Mutex<Head>,
    /// Changes wait at the gate while a restore holds writers up.
    live: Gate<Live>,
}

impl Workspace {
    /// Opens a branch and replays what its journal holds. What is found damaged is said in the log and by
    /// [`Repository::trouble`]; what can be served is served.
    fn open_row(repository: Arc<Repository>, row: BranchRow) -> Result<Arc<Self>, WorkspaceError> {
        let journal_dir = repository.path().join("journal").join(row.id.to_string());
        let staging = StagingDir::open(&repository.path().join("staging").join(row.id.to_string()))?;
        let stands = standing::decide(&repository, &row, &journal_dir)?;
        let root = repository.root(&stands.live_root)?;
        let mut tree = LiveTree::new(repository.clone(), &root);
        let mut count = 0u64;
        let replayed = replay::replay(&journal_dir, stands.journal_seq, |operation| {
            count += 1;
            tree.apply(&operation, &staging)
        })?;
        tree.take_over();
        tree.drop_all_unused();
        staging.release_others(|number| staging.is_open(number), !replayed.damage.is_empty())?;
        for damage in &replayed.damage {
            repository.note_trouble(damage);
        }
        let journal = Journal::start(&journal_dir, replayed.next, replayed.end)?;
        if count > 0 {
            tracing::info!(branch = row.name, replayed = count, "replayed the journal");
        }
        let (commit, commit_root) = standing::head_of(&repository, &row, stands.head)?;
        standing::correct(&repository, &row, commit, &stands)?;
        let head = Head { branch: row.name, commit, commit_root, live_root: stands.live_root };
        let mut live = Live {
            tree,
            journal,
            staging,
            poisoned: false,
            closed: false,
            dirty_bytes: 0,
            unsaved_bytes: 0,
            opens: HashMap::new(),
            staged: Staged::default(),
            closed_and_held: Vec::new(),
        };
        let standing = Standing {
            branch_id: row.id,
            branch: head.branch.clone(),
            head: head.commit,
            live_root: head.live_root,
            journal_seq: stands.journal_seq,
        };
        live.journal.append_standing(&standing);
        let workspace = Self {
            repository,
            branch_id: row.id,
            published: Mutex::new(head.clone()),
            head: Mutex::new(head),
            live: Gate::new(live),
        };
        Ok(Arc::new(workspace))
    }

    /// Writes into the journal where the branch stands since the last transaction; `journal_seq` is the first segment over that.
    fn note_standing(&self, live: &mut Live, branch: &str, head: Option<ObjectId>, live_root: ObjectId, journal_seq: u64) {
        let (branch_id, branch) = (self.branch_id, branch.to_owned());
        live.journal.append_standing(&Standing { branch_id, branch, head, live_root, journal_seq });
    }

    fn live(&self) -> Entered<'_, Live> {
        noting_doubt(self.live.try_enter().unwrap_or_else(|| {
            let _waits = watchdog::waits_for("the live tree, which another request has");
            self.live.enter()
        }))
    }

    /// Takes the lock for a change: waits while a restore holds writers up.
    fn live_to_change(&self) -> Entered<'_, Live> {
        noting_doubt(self.live.try_enter_to_change().unwrap_or_else(|| {
            let _waits = watchdog::waits_for("the live tree, which another request has or a restore keeps from changing");
            self.live.enter_to_change()
        }))
    }

    fn head(&self) -> HeadGuard<'_> {
        let _waits = watchdog::waits_for("the checkpoint or restore before it");
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        HeadGuard { head, published: &self.published, _use: self.repository.using() }
    }

    /// Takes the head to move the branch. Of a branch that was deleted there is nothing to move; one that was brought back since
    /// is open anew, elsewhere.
    fn head_to_move(&self) -> Result<HeadGuard<'_>, WorkspaceError> {
        let head = self.head();
        if self.live().closed { Err(WorkspaceError::NotFound("the branch".into())) } else { Ok(head) }
    }

    fn published(&self) -> MutexGuard<'_, Head> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the repository behind the branch.
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Returns the number of the branch, which stays when its name changes.
    pub fn branch_id(&self) -> i64 {
        self.branch_id
    }

    /// Returns the name of the branch.
    pub fn branch(&self) -> String {
        self.published().branch.clone()
    }

    /// Returns the newest checkpoint of the branch.
    pub fn newest(&self) -> Option<ObjectId> {
        self.published().commit
    }

    /// Finds a name and adds a reference to the file, to be given back with [`Self::forget`]. In a directory that has no name itself
    /// it is an error that there is none: that is not to be remembered.
    pub fn lookup(&self, parent: Ino, name: &Name) -> Result<Option<Attributes>, WorkspaceError> {
        let mut live = self.live();
        let Some(ino) = live.tree.child(parent, name)? else {
            return if live.tree.inode(parent)?.orphan { Err(WorkspaceError::NotFound(name.to_string())) } else { Ok(None) };
        };
        live.tree.remember(ino);
        Ok(Some(live.tree.attributes(ino)?))
    }

    /// Finds the file that a name leads to, without a reference.
    pub fn child(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, WorkspaceError> {
        self.live().tree.child(parent, name)
    }

    /// Gives back `count` references.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.live().tree.forget(ino, count);
    }

    /// Returns what `stat` shows.
    pub fn attributes(&self, ino: Ino) -> Result<Attributes, WorkspaceError> {
        self.live().tree.attributes(ino)
    }

    /// Lists up to `limit` names behind a position; 0 starts.
    pub fn list(&self, ino: Ino, after_position: u64, limit: usize) -> Result<Vec<Listed>, WorkspaceError> {
        self.live().tree.list(ino, after_position, limit)
    }

    /// Returns the path held by a symbolic link.
    pub fn read_link(&self, ino: Ino) -> Result<Arc<[u8]>, WorkspaceError> {
        match &self.live().tree.inode(ino)?.body {
            inode::Body::Symlink(target) => Ok(target.clone()),
            _ => Err(WorkspaceError::Invalid("not a symbolic link".into())),
        }
    }

    /// Reads up to `len` bytes from `offset`; fewer only at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, len: u64) -> Result<Vec<u8>, WorkspaceError> {
        let body = {
            let mut live = self.live();
            live.tree.look(ino);
            let inode = live.tree.inode(ino)?;
            inode.file().ok_or(WorkspaceError::IsDirectory)?.clone()
        };
        reading::read(&self.repository, &body, offset..offset.saturating_add(len))
    }

    /// Creates a file and adds a reference to it. The creator's `umask` counts unless the directory has a default ACL.
    pub fn create(&self, parent: Ino, name: &Name, node: NewNode, umask: u32) -> Result<Attributes, WorkspaceError> {
        let mut live = self.live_to_change();
        let ino = live.create(parent, name, node, umask)?;
        live.tree.remember(ino);
        live.tree.attributes(ino)
    }

    /// Gives a file a further name and adds a reference to it.
    pub fn link(&self, ino: Ino, parent: Ino, name: &Name) -> Result<Attributes, WorkspaceError> {
        let mut live = self.live_to_change();
        live.link(ino, parent, name)?;
        live.tree.remember(ino);
        live.tree.attributes(ino)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: Ino, name: &Name) -> Result<(), WorkspaceError> {
        self.live_to_change().remove(parent, name, false)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, parent: Ino, name: &Name) -> Result<(), WorkspaceError> {
        self.live_to_change().remove(parent, name, true)
    }

    /// Moves a name, and leaves `whiteout` in its place if there is one.
    pub fn rename(
        &self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        mode: RenameMode,
        whiteout: Option<NewNode>,
    ) -> Result<(), WorkspaceError> {
        self.live_to_change().rename(parent, name, new_parent, new_name, mode, whiteout)
    }

    /// Changes mode, owner, times or size.
    pub fn set_attributes(&self, ino: Ino, change: AttributeChange) -> Result<Attributes, WorkspaceError> {
        self.live_to_change().set_attributes(ino, change)
    }

    /// Returns an extended attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Box<[u8]>, WorkspaceError> {
        let live = self.live();
        let value = live.tree.inode(ino)?.xattrs.as_ref().and_then(|xattrs| xattrs.get(name)).cloned();
        value.ok_or(WorkspaceError::NoData("extended attribute"))
    }

    /// Returns the names of the extended attributes.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<Box<[u8]>>, WorkspaceError> {
        let live = self.live();
        Ok(live.tree.inode(ino)?.xattrs.as_ref().map(|xattrs| xattrs.keys().cloned().collect()).unwrap_or_default())
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), WorkspaceError> {
        self.live_to_change().set_xattr(ino, name, value, mode)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), WorkspaceError> {
        self.live_to_change().remove_xattr(ino, name)
    }

    /// Says whether the journal has grown so long that a seal is due.
    pub fn is_seal_due(&self) -> bool {
        self.live().is_seal_due()
    }

    /// Changes a range of a file without data.
    pub fn change_range(
        &self,
        ino: Ino,
        offset: u64,
        len: u64,
        change: RangeChange,
        options: RangeOptions,
    ) -> Result<(), WorkspaceError> {
        self.live_to_change().change_range(ino, offset, len, change, options)
    }

    /// Copies a whole file by sharing what is stored of it; `None` when it must be copied by its bytes.
    pub fn share(&self, source: Ino, target: Ino, len_bytes: u64, strip_privileges: bool) -> Result<Option<u64>, WorkspaceError> {
        self.live_to_change().share(source, target, len_bytes, strip_privileges)
    }

    /// Finds the next data (or hole) from `offset` on, in whole blocks.
    pub fn seek(&self, ino: Ino, offset: u64, hole: bool) -> Result<u64, WorkspaceError> {
        let body = {
            let mut live = self.live();
            live.tree.look(ino);
            live.tree.inode(ino)?.file().ok_or(WorkspaceError::IsDirectory)?.clone()
        };
        reading::seek(&self.repository, &body, offset, hole)
    }

    /// Takes the room on disk that lets names be removed when the disk is full, and identities for new files. A branch that is only
    /// looked at takes none.
    pub fn expect_changes(&self) {
        if let Err(err) = self.repository.expect_identities() {
            tracing::debug!(%err, "the first new file takes the identities");
        }
        self.live().journal.reserve_early();
    }

    /// Returns how many inodes are in memory.
    pub fn inodes_loaded(&self) -> usize {
        self.live().tree.inodes.len()
    }
}

/// After a panic in the middle of a change reading goes on, changing does not.
fn noting_doubt(mut live: Entered<'_, Live>) -> Entered<'_, Live> {
    live.poisoned |= live.doubtful;
    live
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_leaves_the_value_in_doubt_and_not_out_of_reach() {
        let gate = Gate::new(1);
        assert!(!gate.enter().doubtful);
        let struck = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut entered = gate.enter_to_change();
            *entered = 2;
            panic!("in the middle of a change");
        }));
        assert!(struck.is_err());
        assert!(gate.enter().doubtful);
        assert!(gate.try_enter_to_change().is_some_and(|entered| entered.doubtful));
        assert_eq!(*gate.enter(), 2);
    }
}
