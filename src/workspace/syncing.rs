//! What fsync(2) waits for: the bytes of large files in their staging files, and the records of everything else.

use super::error::WorkspaceError;
use super::inode::Ino;
use super::journal_sync::JournalSync;
use super::staging::{StagingDir, StagingFile};
use super::{Workspace, file};
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
        if let Err(err) = self.sync_staged() {
            return done(Err(err));
        }
        // Last: its records name what was made durable above.
        self.journal.when_durable(Box::new(move |outcome| done(outcome.map_err(WorkspaceError::io("journal")))));
    }

    /// Syncs the staging files and, at the same time, their names.
    fn sync_staged(&self) -> Result<(), WorkspaceError> {
        if self.files.is_empty() {
            return Ok(());
        }
        // The file system's own log then makes both files durable at once; which of them is first does not matter before
        // the call returns.
        self.journal.begin();
        let names = || self.staging.sync().map_err(WorkspaceError::io("staging directory"));
        let bytes = || self.files.iter().try_for_each(|file| file.sync().map_err(WorkspaceError::io("staging file")));
        std::thread::scope(|scope| {
            let Ok(helper) = std::thread::Builder::new().spawn_scoped(scope, names) else {
                return bytes().and_then(|()| names()); // No thread to be had: one after the other.
            };
            let synced = bytes();
            let named = helper.join().unwrap_or_else(|_| Err(WorkspaceError::Invalid("a syncing thread failed".into())));
            synced.and(named)
        })
    }
}

impl Workspace {
    /// Begins to make a file and the names that lead to it survive a power cut; [`FileSync::then`] says when they do.
    pub fn sync_of(&self, ino: Ino) -> Result<FileSync, WorkspaceError> {
        let live = self.live();
        let mut files = Vec::new();
        if let Some(file::FileBody::Layered(layered)) = live.tree.inode(ino)?.file() {
            layered.each_staging(&mut |file| files.push(file.clone()));
        }
        Ok(FileSync { files, staging: live.staging.clone(), journal: live.journal.sync() })
    }

    /// Makes a file and the names that lead to it survive a power cut.
    pub fn sync_file(&self, ino: Ino) -> Result<(), WorkspaceError> {
        let sync = self.sync_of(ino)?;
        sync.sync_staged()?;
        sync.journal.wait().map_err(WorkspaceError::io("journal"))
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

    /// Stops journaling: what changes from now on is lost when the process ends. For measuring what journaling costs.
    #[doc(hidden)]
    pub fn stop_journaling(&self) {
        self.live().journal.turn_off();
    }
}
