//! Private files that hold the new bytes of large files until they are sealed.

use super::plain::Stamp;
use super::replay::fresh_aside;
use crate::object::Timestamp;
use crate::sys;
use std::collections::HashMap;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A staging file; offsets in it are offsets in the file it belongs to.
///
/// When the last reference goes, the file is unlinked at once if its bytes are sealed, and otherwise only after the
/// journal is durable up to the operation that let go of it: until then a replay may need it.
#[derive(Debug)]
pub struct StagingFile {
    number: u64,
    file: File,
    sealed: AtomicBool,
    /// The kernel may write it, and its length means something.
    plain: bool,
    /// Its bytes must not change any more: they may be those of a large object too, or there is no such file.
    given_away: AtomicBool,
    /// A sync failed: what the kernel then dropped nobody knows (fsync(2)), so later ones fail too.
    failed: AtomicBool,
    /// How many writes there were, and how many of them a sync covers.
    writes: AtomicU64,
    synced_writes: AtomicU64,
    dir: Arc<StagingDir>,
}

impl StagingFile {
    /// Returns the number by which the journal names it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Writes `data` at `offset`, as one plain write does. It survives the death of this process when this returns.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        let written = write_part(&self.file, offset, data);
        self.writes.fetch_add(1, Ordering::Release);
        written
    }

    /// Says whether there are bytes of ours that no sync has covered. What the kernel was given to write is not counted.
    pub fn has_unsynced(&self) -> bool {
        self.writes.load(Ordering::Acquire) > self.synced_writes.load(Ordering::Acquire)
    }

    /// Fills `buffer` from `offset`; beyond the end there are zeros.
    pub fn read_at(&self, mut offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset) {
                Ok(0) => {
                    buffer[done..].fill(0);
                    break;
                }
                Ok(read) => {
                    done += read;
                    offset += read as u64;
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Gives the file away to be a large object, if it can be one: from now on its bytes must not change. `None` when it is one already,
    /// and when what a sync of it failed to write may be in memory alone: nobody else's sync would try again.
    ///
    /// One that did not become a large object is given away once more: on a full disk, where that failed, there is no room for a copy.
    /// It is synced here then, because only who had it open the whole time is sure to hear of a failure (fsync(2)).
    pub fn give_away(&self) -> Option<PathBuf> {
        if self.plain || self.failed.load(Ordering::Acquire) {
            return None;
        }
        let again = self.given_away.swap(true, Ordering::AcqRel);
        (!again || self.is_ours_alone() && self.sync().is_ok()).then(|| self.path())
    }

    /// Says whether there is such a file, and no other name for it.
    fn is_ours_alone(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.is_file() && found.nlink() == 1)
    }

    /// Says whether new bytes may be written to the file.
    pub fn may_change(&self) -> bool {
        !self.given_away.load(Ordering::Acquire)
    }

    /// Says how the file looks to the file system.
    pub fn stamp(&self) -> io::Result<Stamp> {
        Stamp::of(&self.file)
    }

    /// Returns the ranges below `size_bytes` that hold data.
    pub fn data_ranges(&self, size_bytes: u64) -> io::Result<Vec<Range<u64>>> {
        sys::data_ranges(&self.file, size_bytes)
    }

    /// Says whether anybody else has a descriptor or a mapping of the file.
    pub fn has_others(&self) -> bool {
        sys::has_others(&self.file)
    }

    /// Opens the file for writing, for as long as nobody need be told apart from us.
    pub fn to_change(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path())
    }

    /// Sets the time of the last change of content.
    pub fn set_modified(&self, time: Timestamp) -> io::Result<()> {
        self.file.set_times(FileTimes::new().set_modified(time.into()))
    }

    /// Makes the bytes written so far survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let covered = self.writes.load(Ordering::Acquire);
        let synced = self.file.sync_data();
        if synced.is_ok() {
            self.synced_writes.fetch_max(covered, Ordering::AcqRel);
        }
        self.failed.fetch_or(synced.is_err(), Ordering::AcqRel);
        synced
    }

    /// Makes the file's name survive a power cut.
    pub fn sync_name(&self) -> io::Result<()> {
        self.dir.sync()
    }

    /// Says that the object store holds the bytes now, durably, and no replay will ask for them.
    pub fn mark_sealed(&self) {
        self.sealed.store(true, Ordering::Relaxed);
    }

    /// Returns the file's path.
    pub fn path(&self) -> PathBuf {
        self.dir.path_of(self.number)
    }
}

/// Writes `data` at `offset`. Returns how much of it was written: less than all when the disk filled on the way, and at least
/// something.
pub fn write_part(file: &File, offset: u64, data: &[u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match file.write_at(&data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) if done == 0 => return Err(err),
            Err(_) => break, // What is written cannot be taken back: it stands in the place of older bytes.
        }
    }
    if done == 0 && !data.is_empty() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(done) }
}

impl AsFd for StagingFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        self.dir.opened().remove(&self.number);
        if self.sealed.load(Ordering::Relaxed) {
            if !self.may_change() {
                // A large object, and nothing else any more. By its name: what is open may be something else.
                let _ = fs::set_permissions(self.path(), Permissions::from_mode(0o400));
            }
            let _ = fs::remove_file(self.path()); // What remains is found at the next start.
        } else {
            self.dir.released().push(self.number);
        }
    }
}

/// The directory of one branch's staging files.
#[derive(Debug)]
pub struct StagingDir {
    dir: PathBuf,
    next: AtomicU64,
    /// Files created since the directory was opened, and how many of them have names that survive a power cut.
    created: AtomicU64,
    synced: Mutex<u64>,
    /// Files that nothing refers to any more, except perhaps records of the journal that are not durable yet.
    released: Mutex<Vec<u64>>,
    /// Files in use, so that a second opening gives the same one.
    open: Mutex<HashMap<u64, Weak<StagingFile>>>,
}

impl StagingDir {
    /// Opens (or makes) the directory; new files get numbers above those that exist.
    pub fn open(dir: &Path) -> io::Result<Arc<Self>> {
        fs::create_dir_all(dir)?;
        let mut next = 1;
        for entry in fs::read_dir(dir)? {
            if let Some(number) = number_of(&entry?.file_name()) {
                next = next.max(number + 1);
            }
        }
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            next: AtomicU64::new(next),
            created: AtomicU64::new(1), // Those that were there.
            synced: Mutex::new(0),
            released: Mutex::default(),
            open: Mutex::default(),
        }))
    }

    /// Makes an empty staging file.
    pub fn create(self: &Arc<Self>) -> io::Result<Arc<StagingFile>> {
        self.create_with(OpenOptions::new().read(true).write(true).create_new(true), false)
    }

    /// Makes an empty staging file for the kernel to write: it is open for reading alone, so that writers can be told.
    pub fn create_plain(self: &Arc<Self>) -> io::Result<Arc<StagingFile>> {
        self.create_with(OpenOptions::new().read(true).custom_flags(libc::O_CREAT | libc::O_EXCL), true)
    }

    fn create_with(self: &Arc<Self>, options: &mut OpenOptions, plain: bool) -> io::Result<Arc<StagingFile>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = options.mode(0o600).open(self.path_of(number))?;
        self.created.fetch_add(1, Ordering::Release);
        Ok(self.handle(number, file, plain, false))
    }

    /// Opens the staging file `number` as a crash left it; one that is missing comes back empty: its name never
    /// reached the disk, or the operation that let go of it follows in the journal.
    pub fn reopen(self: &Arc<Self>, number: u64) -> io::Result<Arc<StagingFile>> {
        self.reopen_with(number, OpenOptions::new().read(true).write(true).create(true).truncate(false), false)
    }

    /// Opens one that the kernel wrote, likewise.
    pub fn reopen_plain(self: &Arc<Self>, number: u64) -> io::Result<Arc<StagingFile>> {
        self.reopen_with(number, OpenOptions::new().read(true).custom_flags(libc::O_CREAT), true)
    }

    fn reopen_with(self: &Arc<Self>, number: u64, options: &mut OpenOptions, plain: bool) -> io::Result<Arc<StagingFile>> {
        if let Some(file) = self.opened().get(&number).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let path = self.path_of(number);
        let (file, given_away) = match options.mode(0o600).open(&path) {
            // One that the journal lets go of later has no need of an inode that the disk does not have. It reads as zeros and
            // takes no writes.
            Err(err) if err.kind() == io::ErrorKind::StorageFull && !path.exists() => (File::open("/dev/null")?, true),
            file => {
                let file = file?;
                // A process that died may have given it away, and somebody else's checkpoint may count on that.
                let given_away = file.metadata()?.nlink() > 1;
                (file, given_away)
            }
        };
        self.next.fetch_max(number.saturating_add(1), Ordering::Relaxed);
        Ok(self.handle(number, file, plain, given_away))
    }

    fn handle(self: &Arc<Self>, number: u64, file: File, plain: bool, given_away: bool) -> Arc<StagingFile> {
        let handle = Arc::new(StagingFile {
            number,
            file,
            sealed: AtomicBool::new(false),
            plain,
            given_away: AtomicBool::new(given_away),
            failed: AtomicBool::new(false),
            writes: AtomicU64::new(1), // Nobody knows what was done to it before.
            synced_writes: AtomicU64::new(0),
            dir: self.clone(),
        });
        self.opened().insert(number, Arc::downgrade(&handle));
        handle
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<u64, Weak<StagingFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many files are in use.
    pub fn open_count(&self) -> usize {
        self.opened().len()
    }

    /// Says whether a file of this number is in use.
    pub fn is_open(&self, number: u64) -> bool {
        self.opened().get(&number).is_some_and(|file| file.strong_count() > 0)
    }

    fn released(&self) -> MutexGuard<'_, Vec<u64>> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether files wait to be removed.
    pub fn has_released(&self) -> bool {
        !self.released().is_empty()
    }

    /// Takes the list of files that can be removed as soon as the journal is durable up to now.
    pub fn take_released(&self) -> Vec<u64> {
        std::mem::take(&mut self.released())
    }

    /// Takes back what [`Self::take_released`] gave: the journal did not become durable.
    pub fn release(&self, numbers: Vec<u64>) {
        self.released().extend(numbers);
    }

    /// Removes files taken from [`Self::take_released`]. Best effort: the next start removes what is left.
    pub fn remove(&self, numbers: &[u64]) {
        for number in numbers {
            let _ = fs::remove_file(self.path_of(*number));
        }
    }

    /// Makes the names of the files created so far survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        let target = self.created.load(Ordering::Acquire);
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner); // Waits for a sync that goes on.
        if *synced < target {
            let upto = self.created.load(Ordering::Acquire);
            File::open(&self.dir).and_then(|dir| dir.sync_all())?;
            *synced = upto;
        }
        Ok(())
    }

    /// Releases every file whose number `needed` does not name, or keeps it beside the others when `set_aside`.
    ///
    /// The records that let go of them were written by another process, and may not be durable yet.
    pub fn release_others(&self, needed: impl Fn(u64) -> bool, set_aside: bool) -> io::Result<()> {
        let mut aside = None;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() || number_of(&entry.file_name()).is_some_and(&needed) {
                continue;
            }
            if set_aside {
                let target = match &aside {
                    Some(target) => target,
                    None => aside.insert(fresh_aside(&self.dir)?),
                };
                fs::rename(entry.path(), target.join(entry.file_name()))?;
            } else {
                match number_of(&entry.file_name()) {
                    Some(number) => self.released().push(number),
                    None => fs::remove_file(entry.path())?,
                }
            }
        }
        Ok(())
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}"))
    }
}

/// Returns the number in the name of a staging file.
pub fn number_of(name: &std::ffi::OsStr) -> Option<u64> {
    name.to_str().filter(|name| name.len() == 16).and_then(|hex| u64::from_str_radix(hex, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel dropped when a sync failed, a later sync through another descriptor knows nothing of: the bytes that are still
    /// in memory must be written anew.
    #[test]
    fn a_file_whose_sync_failed_is_not_given_away() {
        let temp = tempfile::tempdir().unwrap();
        let file = StagingDir::open(temp.path()).unwrap().create().unwrap();
        file.write_at(0, b"bytes").unwrap();
        file.failed.store(true, Ordering::Release);
        assert!(file.give_away().is_none());
    }
}
