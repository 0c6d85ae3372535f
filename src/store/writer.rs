//! Appends records to packs: gathered in memory, written in large steps, made durable together.

use super::StoreError;
use super::dir::sync_dir;
use super::pack::PACK_MAGIC;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A pack that is longer than this is closed, and the next begun.
const PACK_BYTES_MAX: u64 = 256 << 20;
/// Records are gathered up to this size.
const BUFFER_BYTES_MAX: usize = 512 << 10;

/// Writes the newest pack of a store.
#[derive(Debug)]
pub struct PackWriter {
    dir: PathBuf,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the newest pack, open or not.
    number: u32,
    open: Option<Arc<File>>,
    /// Bytes of the pack that are written; what follows is in `buffer`.
    written: u64,
    /// Records that are not written yet.
    buffer: Vec<u8>,
    /// Bytes appended since the store was opened, and how many of them are durable.
    appended: u64,
    durable: u64,
    /// Files with bytes that are not durable.
    dirty: Vec<Arc<File>>,
    directory_dirty: bool,
    syncing: bool,
    failed: bool,
}

impl PackWriter {
    /// Writes into the directory `dir`, in packs with numbers above `newest`: what a crash left at the end of an older one
    /// is never touched.
    pub fn new(dir: PathBuf, newest: u32) -> Self {
        let state = State { number: newest, ..State::default() };
        Self { dir, state: Mutex::new(state), synced: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record; [`Self::sync`] makes it survive. Returns the number of the pack and where in it the record begins.
    pub fn append(&self, record: &[u8]) -> Result<(u32, u64), StoreError> {
        let mut state = self.state();
        if state.open.is_none() || state.written + state.buffer.len() as u64 >= PACK_BYTES_MAX {
            self.start_pack(&mut state)?;
        }
        let at = state.written + state.buffer.len() as u64;
        state.buffer.extend_from_slice(record);
        if state.buffer.len() > BUFFER_BYTES_MAX
            && let Err(err) = self.write_out(&mut state)
        {
            let kept = state.buffer.len() - record.len();
            state.buffer.truncate(kept); // The others are written when there is room again.
            return Err(err);
        }
        state.appended += record.len() as u64;
        Ok((state.number, at))
    }

    /// Makes sure that bytes of the pack `number` before `end` can be read from its file.
    pub fn write_before(&self, number: u32, end: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.number == number && end > state.written { self.write_out(&mut state) } else { Ok(()) }
    }

    fn write_out(&self, state: &mut State) -> Result<(), StoreError> {
        let Some(file) = state.open.clone() else { return Ok(()) };
        if state.buffer.is_empty() {
            return Ok(());
        }
        if let Err(err) = file.write_all_at(&state.buffer, state.written) {
            // What was written of it is written again; until then nothing names it.
            let _ = file.set_len(state.written);
            return Err(StoreError::io("cannot append to", pack_path(&self.dir, state.number))(err));
        }
        state.written += state.buffer.len() as u64;
        state.buffer.clear();
        Ok(())
    }

    fn start_pack(&self, state: &mut State) -> Result<(), StoreError> {
        self.write_out(state)?;
        state.open = None;
        let number = state.number + 1;
        let path = pack_path(&self.dir, number);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = Arc::new(file.map_err(StoreError::io("cannot make", &path))?);
        if let Err(err) = file.write_all_at(&PACK_MAGIC, 0) {
            let _ = fs::remove_file(&path);
            return Err(StoreError::io("cannot make", &path)(err));
        }
        state.number = number;
        state.open = Some(file.clone());
        state.written = PACK_MAGIC.len() as u64;
        state.appended += state.written;
        state.dirty.push(file);
        state.directory_dirty = true;
        Ok(())
    }

    /// Closes the pack being appended to; the next record begins another.
    pub fn rotate(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        self.write_out(&mut state)?;
        state.open = None;
        Ok(())
    }

    /// Returns the number of the pack being appended to.
    pub fn appending(&self) -> Option<u32> {
        let state = self.state();
        state.open.as_ref().map(|_| state.number)
    }

    /// Makes everything appended before the call durable. Concurrent callers share one sync.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let target = state.appended;
        loop {
            if state.failed {
                let failed = io::Error::from_raw_os_error(libc::EIO);
                return Err(StoreError::io("an earlier sync failed in", &self.dir)(failed));
            }
            if state.durable >= target {
                return Ok(());
            }
            if !state.syncing {
                break;
            }
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.write_out(&mut state)?;
        state.syncing = true;
        let upto = state.appended;
        let files = state.dirty.clone();
        let directory = std::mem::take(&mut state.directory_dirty);
        drop(state);
        let outcome = self.sync_files(&files, directory);
        let mut state = self.state();
        state.syncing = false;
        match &outcome {
            Ok(()) => {
                state.durable = state.durable.max(upto);
                let open = state.open.clone();
                state.dirty.retain(|file| {
                    open.as_ref().is_some_and(|open| Arc::ptr_eq(open, file)) || !files.iter().any(|done| Arc::ptr_eq(done, file))
                });
            }
            Err(_) => state.failed = true, // What the kernel dropped nobody knows (fsync(2)).
        }
        self.synced.notify_all();
        outcome
    }

    fn sync_files(&self, files: &[Arc<File>], directory: bool) -> Result<(), StoreError> {
        for file in files {
            file.sync_data().map_err(StoreError::io("cannot sync a pack in", &self.dir))?;
        }
        if directory { sync_dir(&self.dir) } else { Ok(()) }
    }
}

/// Returns the path of the pack `number` in the directory of packs.
pub fn pack_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.pack"))
}
