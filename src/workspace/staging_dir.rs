//! The directory of one branch's staging files.

use super::replay::fresh_aside;
use super::staging::StagingFile;
use crate::sys;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Most staging files in use, each of which holds a descriptor, where the system allows that many.
const DESCRIPTORS_MAX: usize = 8000;
/// How many are in use: the limit is one of the process.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

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
    /// How many may be in use, of all branches together.
    descriptors: usize,
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
            descriptors: DESCRIPTORS_MAX.min(sys::open_files_limit() / 2),
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
        if IN_USE.load(Ordering::Relaxed) >= self.descriptors {
            return Err(io::Error::from_raw_os_error(libc::EMFILE)); // A seal gives them back, and needs some itself.
        }
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
        let handle = Arc::new(StagingFile::new(self.clone(), number, file, plain, given_away));
        self.opened().insert(number, Arc::downgrade(&handle));
        IN_USE.fetch_add(1, Ordering::Relaxed);
        handle
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<u64, Weak<StagingFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a file is not in use any more.
    pub(super) fn closed(&self, number: u64) {
        self.opened().remove(&number);
        IN_USE.fetch_sub(1, Ordering::Relaxed);
    }

    /// Says whether so many files of this branch are in use that they should be sealed.
    pub fn is_crowded(&self) -> bool {
        let own = self.opened().len();
        own > self.descriptors / 4 || own > self.descriptors / 64 && IN_USE.load(Ordering::Relaxed) > self.descriptors / 2
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

    /// Has files removed as soon as the journal is durable up to now: those that nothing refers to any more, and what
    /// [`Self::take_released`] gave when the journal did not become durable.
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

    /// Returns the path of a staging file.
    pub(super) fn path_of(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}"))
    }
}

/// Returns the number in the name of a staging file.
pub fn number_of(name: &std::ffi::OsStr) -> Option<u64> {
    name.to_str().filter(|name| name.len() == 16).and_then(|hex| u64::from_str_radix(hex, 16).ok())
}
