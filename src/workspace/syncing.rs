//! What fsync(2) waits for: the bytes of large files in their staging files, and the records of everything else.

use super::Workspace;
use super::error::WorkspaceError;
use super::file::FileBody;
use super::inode::{Ino, Inode};
use super::journal_sync::JournalSync;
use super::staging::StagingFile;
use super::staging_dir::StagingDir;
use std::sync::Arc;

/// One file on its way to survive a power cut.
pub struct FileSync {
    files: Vec<Arc<StagingFile>>,
    staging: Arc<StagingDir>,
    journal: Arc<JournalSync>,
}

impl FileSync {
    /// Says whether the caller of [`Self::then`] waits for the disk itself; otherwise another thread does.
    pub fn blocks(&self) -> bool {
        !self.files.is_empty()
    }

    /// Calls `done` when the file and the names that lead to it survive a power cut.
    pub fn then(self, done: impl FnOnce(Result<(), WorkspaceError>) + Send + 'static) {
        if self.files.is_empty() {
            return self.journal.when_durable(Box::new(move |outcome| done(outcome.map_err(WorkspaceError::io("journal")))));
        }
        done(self.wait());
    }

    /// Returns when the file and the names that lead to it survive a power cut.
    ///
    /// The records are synced while the bytes are. Which of them reaches the disk first does not matter before the call returns:
    /// of a file that is not synced, both an old and a new state may be found.
    fn wait(self) -> Result<(), WorkspaceError> {
        let records = self.journal.begin();
        let staged = self.sync_staged();
        staged.and(records.wait().map_err(WorkspaceError::io("journal")))
    }

    fn sync_staged(&self) -> Result<(), WorkspaceError> {
        if self.files.is_empty() {
            return Ok(());
        }
        self.files.iter().try_for_each(|file| file.sync()).map_err(WorkspaceError::io("staging file"))?;
        self.staging.sync().map_err(WorkspaceError::io("staging directory"))
    }
}

impl Workspace {
    /// Begins to make a file and the names that lead to it survive a power cut; [`FileSync::then`] says when they do.
    pub fn sync_of(&self, ino: Ino) -> Result<FileSync, WorkspaceError> {
        let live = self.live();
        let mut files = Vec::new();
        add_staged(live.tree.inode(ino)?, &mut files);
        Ok(FileSync { files, staging: live.staging.clone(), journal: live.journal.sync() })
    }

    /// Makes a file and the names that lead to it survive a power cut.
    pub fn sync_file(&self, ino: Ino) -> Result<(), WorkspaceError> {
        self.sync_of(ino)?.wait()
    }

    /// Makes every change so far survive a power cut, except the bytes of large files that were not synced themselves.
    pub fn sync(&self) -> Result<(), WorkspaceError> {
        let (sync, staging, released) = {
            let live = self.live();
            (live.journal.sync(), live.staging.clone(), live.staging.take_released())
        };
        match sync.wait() {
            Ok(()) => staging.remove(&released), // The records that let go of them are durable.
            Err(err) => {
                staging.release(released);
                return Err(WorkspaceError::io("journal")(err));
            }
        }
        Ok(())
    }

    /// Makes every change so far survive a power cut, the bytes of large files too.
    pub fn sync_all(&self) -> Result<(), WorkspaceError> {
        let sync = {
            let live = self.live();
            let mut files = Vec::new();
            for inode in live.tree.inodes.all().filter(|inode| !inode.orphan) {
                add_staged(inode, &mut files);
            }
            FileSync { files, staging: live.staging.clone(), journal: live.journal.sync() }
        };
        sync.wait()?;
        self.sync()
    }

    /// Stops journaling: what changes from now on is lost when the process ends. For measuring what journaling costs.
    #[doc(hidden)]
    pub fn stop_journaling(&self) {
        self.live().journal.turn_off();
    }
}

/// Returns the staging files that hold bytes of a file which no sync is known to have covered.
pub fn unsynced(inode: &Inode) -> Vec<Arc<StagingFile>> {
    let mut files = Vec::new();
    add_staged(inode, &mut files);
    let plain = matches!(inode.file(), Some(FileBody::Plain(_))); // The kernel writes it.
    files.retain(|file| plain || file.has_unsynced());
    files
}

/// Adds the staging files that hold bytes of a file.
fn add_staged(inode: &Inode, files: &mut Vec<Arc<StagingFile>>) {
    match inode.file() {
        Some(FileBody::Layered(layered)) => layered.each_staging(&mut |file| files.push(file.clone())),
        Some(FileBody::Plain(plain)) => files.push(plain.file.clone()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::name_changes::RenameMode;
    use crate::object::{EntryKind, Name};
    use crate::repository::Repository;
    use crate::workspace::{Branches, NewNode, ROOT};

    /// After a power cut the target was there, and full of zeros.
    #[test]
    fn what_takes_the_place_of_a_file_is_durable_before_its_new_name() {
        let temp = tempfile::tempdir().unwrap();
        let branches = Branches::new(Repository::create(&temp.path().join("store")).unwrap());
        let workspace = branches.open("main").unwrap();
        let name = |name: &str| Name::new(name.as_bytes()).unwrap();
        let write_large = |at: &str| {
            let node = NewNode { kind: EntryKind::File, mode: 0o644, uid: 0, gid: 0, device: 0, target: Box::default() };
            let ino = workspace.create(ROOT, &name(at), node, 0).unwrap().ino;
            workspace.write(ino, 0, &vec![7; 1 << 20], false).unwrap();
            ino
        };
        write_large("target");
        let (saved, other) = (write_large("saved"), write_large("other"));
        workspace.rename(ROOT, &name("saved"), ROOT, &name("target"), RenameMode::Replace, None).unwrap();
        workspace.rename(ROOT, &name("other"), ROOT, &name("new name"), RenameMode::Replace, None).unwrap();
        workspace.sync_of(ROOT).unwrap().wait().unwrap();
        let is_unsynced = |ino| !super::unsynced(workspace.live().tree.inode(ino).unwrap()).is_empty();
        assert!(!is_unsynced(saved));
        assert!(is_unsynced(other), "a file that takes nobody's place waits for its own fsync");
    }
}
