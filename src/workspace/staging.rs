//! Private files that hold the new bytes of large files until they are sealed.

use super::plain::Stamp;
use super::staging_dir::StagingDir;
use crate::object::Timestamp;
use crate::sys;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
    /// Takes over an open file of `dir`.
    pub(super) fn new(dir: Arc<StagingDir>, number: u64, file: File, plain: bool, given_away: bool) -> Self {
        Self {
            number,
            file,
            sealed: AtomicBool::new(false),
            plain,
            given_away: AtomicBool::new(given_away),
            failed: AtomicBool::new(false),
            writes: AtomicU64::new(1), // Nobody knows what was done to it before.
            synced_writes: AtomicU64::new(0),
            dir,
        }
    }

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
        self.dir.closed(self.number);
        if self.sealed.load(Ordering::Relaxed) {
            if !self.may_change() {
                // A large object, and nothing else any more. By its name: what is open may be something else.
                let _ = fs::set_permissions(self.path(), Permissions::from_mode(0o400));
            }
            let _ = fs::remove_file(self.path()); // What remains is found at the next start.
        } else {
            self.dir.release(vec![self.number]);
        }
    }
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
