//! Makes appended records of a journal survive a power cut: one thread syncs for all who wait. It begins with the first of
//! them, so that a branch that is only looked at has none.

use super::group_sync::{Done, GroupSync, Work};
use super::journal::{segment_path, segments};
use super::segment::HEADER_BYTES;
use super::staging::StagingFile;
use crate::watchdog;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// How often a sync looks whether more has to be durable before it. Each look takes on what came during the one before.
const AHEAD_LOOKS_MAX: usize = 4;

/// Makes the records of one journal durable. Whoever waits while a sync goes on shares the next one.
pub struct JournalSync {
    shared: Arc<Shared>,
    /// Whether the thread was started.
    syncs: Mutex<bool>,
    /// Whether anybody asked for durability.
    wanted: AtomicBool,
}

/// A sync that goes on.
pub struct Begun(mpsc::Receiver<io::Result<()>>);

struct Shared {
    dir: PathBuf,
    group: GroupSync<Segments>,
}

/// The files that may hold bytes that are not durable.
#[derive(Default)]
struct Segments {
    /// Oldest first; the last is the newest segment.
    files: Vec<(u64, Arc<File>)>,
    /// A segment was created since the directory was synced.
    directory_dirty: bool,
    /// Staging files whose bytes have to be durable before the records are, also when later records let go of them: those may be lost.
    ahead: Vec<Arc<StagingFile>>,
}

struct Batch {
    files: Vec<(u64, Arc<File>)>,
    directory: bool,
}

impl Work for Segments {
    type Batch = Batch;

    fn take(&mut self) -> Batch {
        Batch { files: self.files.clone(), directory: std::mem::take(&mut self.directory_dirty) }
    }

    fn settle(&mut self, batch: &Batch) {
        let newest = batch.files.last().map_or(0, |(segment, _)| *segment);
        self.files.retain(|(segment, _)| *segment >= newest);
    }
}

impl JournalSync {
    /// Syncs the journal in `dir`, once there is something in it.
    pub fn of(dir: &Path) -> Self {
        let shared = Arc::new(Shared { dir: dir.to_owned(), group: GroupSync::new(Segments::default()) });
        Self { shared, syncs: Mutex::new(false), wanted: AtomicBool::new(false) }
    }

    /// Says whether anybody asked for durability so far.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Starts the thread that syncs, unless it runs.
    fn need_thread(&self) -> io::Result<()> {
        let mut syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        if !*syncs {
            let syncing = self.shared.clone();
            let thread = std::thread::Builder::new().name("journal-sync".into());
            thread.spawn(move || syncing.group.run(|batch| syncing.sync(batch)))?;
            *syncs = true;
        }
        Ok(())
    }

    /// Adds a segment that was just made, or one that another process left. The oldest first.
    pub fn add(&self, segment: u64, file: Arc<File>) {
        self.shared.group.change(|segments| {
            segments.files.push((segment, file));
            segments.directory_dirty = true;
        });
        self.count(HEADER_BYTES as u64);
    }

    /// Counts bytes that were appended to the newest segment.
    pub fn count(&self, bytes: u64) {
        self.shared.group.count(bytes);
    }

    /// Has the bytes that `files` hold so far made durable before any record that is appended from now on, as far as syncs go:
    /// the kernel may write a record by itself. To be called before the record is appended, and followed by [`Self::hurry`].
    pub fn put_ahead(&self, files: &[Arc<StagingFile>]) {
        self.shared.group.change(|segments| segments.ahead.extend_from_slice(files));
    }

    /// Begins a sync that nobody waits for.
    pub fn hurry(&self) {
        self.when_durable(Box::new(drop));
    }

    /// Calls `done` when every record appended before the call is durable, perhaps from the thread that syncs.
    pub fn when_durable(&self, done: Done) {
        self.wanted.store(true, Ordering::Relaxed);
        match self.need_thread() {
            Ok(()) => self.shared.group.when_durable(done),
            Err(err) => done(Err(err)),
        }
    }

    /// Begins to make every record appended before the call durable.
    pub fn begin(&self) -> Begun {
        let (told, outcome) = mpsc::sync_channel(1);
        self.when_durable(Box::new(move |outcome| drop(told.send(outcome))));
        Begun(outcome)
    }

    /// Returns when every record appended before the call is durable.
    pub fn wait(&self) -> io::Result<()> {
        self.begin().wait()
    }

    /// Removes the segments below `segment`: they are part of the branch's sealed state.
    pub fn forget_before(&self, segment: u64) -> io::Result<()> {
        // Nothing in them needs to become durable any more.
        self.shared.group.change(|segments| segments.files.retain(|(number, _)| *number >= segment));
        for number in segments(&self.shared.dir)? {
            if number < segment {
                fs::remove_file(segment_path(&self.shared.dir, number))?;
            }
        }
        Ok(())
    }
}

impl Begun {
    /// Returns when it is durable.
    pub fn wait(self) -> io::Result<()> {
        let _waits = watchdog::waits_for("the sync of the journal");
        self.0.recv().unwrap_or_else(|_| Err(io::Error::other("nobody syncs the journal any more")))
    }
}

impl Shared {
    fn sync(&self, batch: &Batch) -> io::Result<()> {
        self.sync_ahead();
        for (_, file) in &batch.files {
            file.sync_data()?; // Oldest first: a replay stops at the first gap.
        }
        if batch.directory {
            File::open(&self.dir)?.sync_all()?;
            self.dir.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?; // It names the directory.
        }
        Ok(())
    }

    /// A file that fails here tells it to whoever syncs it; the records are not to blame.
    fn sync_ahead(&self) {
        for _ in 0..AHEAD_LOOKS_MAX {
            let ahead = self.group.change(|segments| std::mem::take(&mut segments.ahead));
            if ahead.is_empty() {
                return;
            }
            for file in ahead {
                if let Err(err) = file.sync().and_then(|()| file.sync_name()) {
                    tracing::warn!(staging = file.number(), "what took another file's place could not be synced: {err}");
                }
            }
        }
    }
}

impl Drop for JournalSync {
    fn drop(&mut self) {
        self.shared.group.close();
    }
}

impl std::fmt::Debug for JournalSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalSync").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::Journal;
    use super::super::operation::Operation;
    use super::super::staging_dir::StagingDir;
    use super::*;

    #[test]
    fn many_wait_for_few_syncs() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1, 0).unwrap();
        let (told, outcomes) = mpsc::channel();
        for at in 0..500 {
            journal.append(&Operation::Layer { identity: 1, staging: at }).unwrap();
            if at % 100 == 0 {
                journal.rotate().unwrap();
            }
            let told = told.clone();
            journal.sync().when_durable(Box::new(move |outcome| told.send(outcome.is_ok()).unwrap()));
        }
        drop(told);
        assert_eq!(outcomes.iter().filter(|good| *good).count(), 500);
    }

    /// A process that was killed may have left records in the page cache alone: a sync of the next one makes them durable too.
    #[test]
    fn a_sync_covers_what_an_earlier_process_left() {
        let dir = tempfile::tempdir().unwrap();
        drop(Journal::start(dir.path(), 1, 0).unwrap());
        drop(Journal::start(dir.path(), 2, 0).unwrap());
        let journal = Journal::start(dir.path(), 3, 0).unwrap();
        let covered =
            || journal.sync().shared.group.change(|segments| segments.files.iter().map(|(number, _)| *number).collect());
        let before: Vec<u64> = covered();
        assert_eq!(before, [1, 2, 3]);
        journal.sync().wait().unwrap();
        let after: Vec<u64> = covered();
        assert_eq!(after, [3]);
    }

    /// Found by `scripts/campaigns/power` with passthrough: a small file took another's place while it was open, and its bytes went into a
    /// record when it was closed. The power was cut while a sync had written the one record and not the other.
    #[test]
    fn what_is_ahead_is_kept_until_it_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::start(&dir.path().join("journal"), 1, 0).unwrap();
        let file = StagingDir::open(&dir.path().join("staging")).unwrap().create().unwrap();
        file.write_at(0, b"bytes").unwrap();
        journal.sync().put_ahead(std::slice::from_ref(&file));
        let seen = Arc::downgrade(&file);
        drop(file);
        assert!(seen.upgrade().is_some_and(|file| file.has_unsynced()));
        journal.sync().wait().unwrap();
        assert!(seen.upgrade().is_none());
    }

    #[test]
    fn who_waits_when_the_journal_is_let_go_still_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1, 0).unwrap();
        journal.append(&Operation::Layer { identity: 1, staging: 1 }).unwrap();
        let (told, outcome) = mpsc::channel();
        journal.sync().when_durable(Box::new(move |outcome| told.send(outcome.is_ok()).unwrap()));
        drop(journal);
        assert!(outcome.recv().unwrap());
    }
}
