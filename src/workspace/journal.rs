//! The operations since the last seal of a branch, in numbered segment files.
//!
//! Appending is one plain `write(2)`: the page cache survives the death of the daemon. [`JournalSync`] makes what was
//! appended survive a power cut; concurrent callers share one sync. A checkpoint's cut starts a new segment, and the
//! database says from which segment on a branch has to be replayed.

use super::journal_sync::JournalSync;
use super::operation::Operation;
use super::segment::{FRAME_BYTES, HEADER_BYTES, MAGIC};
use super::standing::Standing;
use crate::object::Writer;
use crate::sys;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Room kept free in the segment, so that names can be removed and files shortened when the disk is full.
const RESERVE_BYTES: u64 = 512 << 10;
/// More than any record without data, names and attributes takes.
const PLAIN_RECORD_BYTES_MAX: u64 = 256;
/// Room asked for at a time.
const RESERVE_STEP_BYTES: u64 = 512 << 10;

/// What room a record may use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// What is left beside the room that is kept.
    Free,
    /// Also the room that is kept for what frees space.
    Kept,
    /// Whatever there is, and none is asked for.
    Any,
}

/// Appends operations to the newest segment of one branch.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    segment: u64,
    file: Arc<File>,
    /// Where the next record goes.
    offset: u64,
    /// Up to here the segment has its space on disk already.
    reserved: u64,
    /// Makes records durable, also while others append.
    sync: Arc<JournalSync>,
    scratch: Vec<u8>,
    /// Nothing is written: for measuring what writing costs.
    off: bool,
}

impl Journal {
    /// Starts segment `segment` in `dir`; nothing of that number may exist.
    ///
    /// On a disk without room for another file it goes on with the segment before, which a replay left whole.
    pub fn start(dir: &Path, segment: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let sync = Arc::new(JournalSync::of(dir));
        let (segment, file, offset) = match create_segment(dir, segment) {
            Err(err) if err.kind() == io::ErrorKind::StorageFull => {
                let (file, offset) = last_segment(dir, segment).ok_or(err)?;
                (segment - 1, file, offset)
            }
            file => (segment, file?, HEADER_BYTES as u64),
        };
        for earlier in segments(dir)?.into_iter().filter(|number| *number < segment) {
            // Its daemon may have been killed before it was durable, and what follows counts on it.
            sync.add(earlier, Arc::new(File::open(segment_path(dir, earlier))?));
        }
        sync.add(segment, file.clone());
        Ok(Self { dir: dir.to_owned(), segment, file, offset, reserved: 0, sync, scratch: Vec::new(), off: false })
    }

    /// Takes the room that is kept for what frees space now, and not with the first record: the disk may be full by then.
    pub fn reserve_early(&mut self) {
        let _ = self.reserve(0); // On a full disk it fails again when something is to be written.
    }

    /// Takes the room for a record without data before what it tells of is done.
    pub fn expect_record(&mut self) -> io::Result<()> {
        if self.off { Ok(()) } else { self.reserve(PLAIN_RECORD_BYTES_MAX) }
    }

    /// Appends a record of `operation`. It survives the death of this process when this returns.
    ///
    /// On failure the segment is as it was before. What frees space may use room that is kept from the rest.
    pub fn append(&mut self, operation: &Operation) -> io::Result<()> {
        let needs = if operation.frees_space() { Room::Kept } else { Room::Free };
        self.append_record(needs, |writer| operation.encode(writer))
    }

    /// Appends a record of where the branch stands now. Only who has lost the database misses one that could not be written.
    pub fn append_standing(&mut self, standing: &Standing) {
        if let Err(err) = self.append_record(Room::Any, |writer| standing.encode(writer)) {
            tracing::debug!(%err, "the journal does not say where the branch stands");
        }
    }

    fn append_record(&mut self, room: Room, encode: impl FnOnce(&mut Writer)) -> io::Result<()> {
        if self.off {
            return Ok(());
        }
        let mut writer = Writer::reuse(std::mem::take(&mut self.scratch));
        writer.raw(&[0; FRAME_BYTES]);
        encode(&mut writer);
        let mut record = writer.finish();
        let payload_len = (record.len() - FRAME_BYTES) as u32;
        let checksum = crc32fast::hash(&record[FRAME_BYTES..]);
        record[..4].copy_from_slice(&payload_len.to_le_bytes());
        record[4..FRAME_BYTES].copy_from_slice(&checksum.to_le_bytes());
        // A branch that is only looked at takes no room.
        let reserved = if room == Room::Any { Ok(()) } else { self.reserve(record.len() as u64) };
        let written = match reserved {
            Err(err) if room == Room::Free => Err(err), // Nothing was written, and the room that is kept stays.
            _ => self.write_record(&record),
        };
        self.scratch = record;
        written
    }

    fn write_record(&mut self, record: &[u8]) -> io::Result<()> {
        if let Err(err) = self.file.write_all_at(record, self.offset) {
            // A part of the record may be there: the next one overwrites it, and a crash before that finds a torn tail.
            let _ = self.file.set_len(self.offset);
            if std::mem::take(&mut self.reserved) > 0 {
                let _ = self.reserve(0); // What was reserved behind the end went with it.
            }
            return Err(err);
        }
        self.offset += record.len() as u64;
        self.sync.count(record.len() as u64);
        Ok(())
    }

    /// Makes sure that `len` more bytes and the room kept free have their space.
    fn reserve(&mut self, len: u64) -> io::Result<()> {
        let needed = self.offset + len + RESERVE_BYTES;
        if needed > self.reserved {
            let upto = needed + RESERVE_STEP_BYTES;
            sys::reserve(&self.file, self.reserved, upto - self.reserved)?;
            self.reserved = upto;
        }
        Ok(())
    }

    /// Starts the next segment and returns its number: replaying from there skips all that was appended so far.
    pub fn rotate(&mut self) -> io::Result<u64> {
        let file = create_segment(&self.dir, self.segment + 1)?;
        self.segment += 1;
        self.sync.add(self.segment, file.clone());
        self.file = file;
        self.offset = HEADER_BYTES as u64;
        self.reserved = 0;
        Ok(self.segment)
    }

    /// Gives back the room that the segment before this one had taken and will not use: it stays, but nothing is appended to it.
    pub fn trim_previous(&self) {
        if self.segment > 1
            && let Ok(file) = OpenOptions::new().write(true).open(segment_path(&self.dir, self.segment - 1))
        {
            let _ = trim(&file); // It would be room on a full disk, nothing more.
        }
    }

    /// Writes nothing from now on.
    pub fn turn_off(&mut self) {
        self.off = true;
    }

    /// Returns the number of the segment being appended to.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Returns how many bytes the segment being appended to has.
    pub fn segment_bytes(&self) -> u64 {
        self.offset
    }

    /// Returns the handle that makes records durable.
    pub fn sync(&self) -> Arc<JournalSync> {
        self.sync.clone()
    }
}

/// Gives back what space a segment has behind its end.
pub fn trim(file: &File) -> io::Result<()> {
    file.set_len(file.metadata()?.len())
}

/// Returns the header of a segment.
pub fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header
}

fn create_segment(dir: &Path, number: u64) -> io::Result<Arc<File>> {
    let path = segment_path(dir, number);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    if let Err(err) = file.write_all_at(&header(), 0) {
        let _ = fs::remove_file(&path); // The number stays free for another try.
        return Err(err);
    }
    Ok(Arc::new(file))
}

/// Opens the segment before `segment` for going on with it, and says where it ends.
fn last_segment(dir: &Path, segment: u64) -> Option<(Arc<File>, u64)> {
    let path = segment_path(dir, segment.checked_sub(1)?);
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let len = file.metadata().ok()?.len();
    (len >= HEADER_BYTES as u64).then(|| (Arc::new(file), len))
}

/// Returns the path of the segment `number` in the directory of a journal.
pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

/// Returns the numbers of the segments that exist, in order.
pub fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}
