//! The operations since the last seal of a branch, in numbered segment files.
//!
//! Appending is one plain `write(2)`: the page cache survives the death of the daemon. [`JournalSync`] makes what was
//! appended survive a power cut; concurrent callers share one sync. A checkpoint's cut starts a new segment, and the
//! database says from which segment on a branch has to be replayed.

use super::journal_sync::JournalSync;
use super::operation::Operation;
use super::segment::{FRAME_BYTES, HEADER_BYTES, header};
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
/// With less than this on the disk a new segment takes its room when it begins.
const SHORT_BYTES: u64 = 64 << 20;
/// Room asked for at a time.
const RESERVE_STEP_BYTES: u64 = 512 << 10;

/// Zeros written ahead at a time when somebody syncs: a record that replaces zeros changes nothing but data, and its sync
/// waits for one write instead of a transaction of the file system too.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

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
    /// The length of the segment's file: from `offset` on there are zeros.
    zeroed: u64,
    /// Where the segment before this one ends.
    previous_end: u64,
    /// Makes records durable, also while others append.
    sync: Arc<JournalSync>,
    scratch: Vec<u8>,
    /// Nothing is written: for measuring what writing costs.
    off: bool,
}

impl Journal {
    /// Starts segment `segment` in `dir`; nothing of that number may exist.
    ///
    /// The segment before it ends at `previous_end` as a replay found it: zeros may follow, where it could not be cut off. On a disk
    /// without room for another file it is gone on with.
    pub fn start(dir: &Path, segment: u64, previous_end: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let sync = Arc::new(JournalSync::of(dir));
        let older: Vec<u64> = segments(dir)?.into_iter().filter(|number| *number < segment).collect();
        let (segment, file, offset, previous_end) = match create_segment(dir, segment, previous_end) {
            Err(err) if err.kind() == io::ErrorKind::StorageFull => {
                let file = last_segment(dir, segment).filter(|_| previous_end >= HEADER_BYTES as u64).ok_or(err)?;
                (segment - 1, file, previous_end, 0)
            }
            file => (segment, file?, HEADER_BYTES as u64, previous_end),
        };
        // Nobody knows whether the process that wrote them had synced them.
        for number in older.into_iter().filter(|number| *number < segment) {
            sync.add(number, Arc::new(File::open(segment_path(dir, number))?));
        }
        sync.add(segment, file.clone());
        let (dir, scratch) = (dir.to_owned(), Vec::new());
        Ok(Self { dir, segment, file, offset, reserved: 0, zeroed: offset, previous_end, sync, scratch, off: false })
    }

    /// Takes the room that is kept for what frees space now, as far as there is any: with the first record the disk may be full.
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
        let len = record.len() as u64;
        // A branch that is only looked at takes no room.
        let reserved = if room == Room::Any { Ok(()) } else { self.reserve(len) };
        let written = match reserved {
            Err(err) if room == Room::Free => Err(err), // Nothing was written, and the room that is kept stays.
            reserved => self.write_record(&record, reserved.is_ok()),
        };
        if written.is_ok() {
            self.offset += len;
            self.sync.count(len);
        }
        self.scratch = record;
        written
    }

    /// Writes a record, and zeros behind it where somebody syncs and there is `room`.
    fn write_record(&mut self, record: &[u8], room: bool) -> io::Result<()> {
        let end = self.offset + record.len() as u64;
        let written = self.file.write_all_at(record, self.offset);
        if written.is_ok() && end > self.zeroed {
            let ahead = room && self.sync.is_wanted() && self.file.write_all_at(&ZEROS, end).is_ok();
            self.zeroed = if ahead { end + ZEROS.len() as u64 } else { end };
        } else if written.is_err() {
            // A part of the record may be there: the next one overwrites it, and a crash before that finds a torn tail.
            let _ = self.file.set_len(self.offset);
            self.zeroed = self.offset;
            if std::mem::take(&mut self.reserved) > 0 {
                let _ = self.reserve(0); // What was reserved behind the end went with it.
            }
        }
        written
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

    /// Says whether the room that is kept may be gone by the first record. With plenty of it a branch that is only looked at takes none.
    fn is_room_short(&self) -> bool {
        sys::space_at(&self.file).is_ok_and(|space| space.bytes_available() < SHORT_BYTES)
    }

    /// Starts the next segment and returns its number: replaying from there skips all that was appended so far.
    pub fn rotate(&mut self) -> io::Result<u64> {
        let file = match create_segment(&self.dir, self.segment + 1, self.offset) {
            Err(err) if err.kind() == io::ErrorKind::StorageFull => {
                self.trim(self.segment, self.offset);
                (self.reserved, self.zeroed) = (0, self.offset);
                let file = create_segment(&self.dir, self.segment + 1, self.offset);
                file.inspect_err(|_| self.reserve_early())?
            }
            file => file?,
        };
        self.segment += 1;
        self.previous_end = self.offset;
        self.sync.add(self.segment, file.clone());
        self.file = file;
        self.offset = HEADER_BYTES as u64;
        (self.reserved, self.zeroed) = (0, self.offset);
        if self.is_room_short() && self.reserve(0).is_err() {
            self.trim_previous();
        }
        Ok(self.segment)
    }

    /// Gives back the room that the segment before this one had taken and will not use: it stays, but nothing is appended to it.
    /// This one takes its own there, if it found none before.
    pub fn trim_previous(&mut self) {
        if self.previous_end > 0 {
            self.trim(self.segment - 1, self.previous_end);
        }
        self.reserve_early();
    }

    fn trim(&self, segment: u64, end: u64) {
        if let Ok(file) = OpenOptions::new().write(true).open(segment_path(&self.dir, segment)) {
            let _ = file.set_len(end); // It would be room on a full disk, nothing more.
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

fn create_segment(dir: &Path, number: u64, previous_end: u64) -> io::Result<Arc<File>> {
    let path = segment_path(dir, number);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    if let Err(err) = file.write_all_at(&header(previous_end), 0) {
        let _ = fs::remove_file(&path); // The number stays free for another try.
        return Err(err);
    }
    Ok(Arc::new(file))
}

/// Opens the segment before `segment` for going on with it.
fn last_segment(dir: &Path, segment: u64) -> Option<Arc<File>> {
    let path = segment_path(dir, segment.checked_sub(1)?);
    OpenOptions::new().read(true).write(true).open(path).ok().map(Arc::new)
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
