//! The operations since the last seal of a branch, in numbered segment files.
//!
//! Appending is one plain `write(2)`: the page cache survives the death of the daemon. [`JournalSync`] makes what was
//! appended survive a power cut; concurrent callers share one sync. A checkpoint's cut starts a new segment, and the
//! database says from which segment on a branch has to be replayed.

use super::journal_sync::JournalSync;
use super::operation::Operation;
use crate::object::{Reader, Writer};
use crate::sys;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"mmtjrnl\x01";
pub(super) const HEADER_BYTES: u64 = 16;
const FRAME_BYTES: usize = 8;
/// Room kept free in the segment, so that names can be removed and files shortened when the disk is full.
const RESERVE_BYTES: u64 = 512 << 10;
/// Room asked for at a time.
const RESERVE_STEP_BYTES: u64 = 512 << 10;
/// Bounds what a damaged length can make the reader allocate.
const RECORD_BYTES_MAX: usize = 4 << 20;

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
    pub fn start(dir: &Path, segment: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let sync = Arc::new(JournalSync::start(dir)?);
        let file = create_segment(dir, segment)?;
        sync.add(segment, file.clone());
        let mut journal =
            Self { dir: dir.to_owned(), segment, file, offset: HEADER_BYTES, reserved: 0, sync, scratch: Vec::new(), off: false };
        let _ = journal.reserve(0); // On a full disk it fails again when something is to be written.
        Ok(journal)
    }

    /// Appends a record of `operation`. It survives the death of this process when this returns.
    ///
    /// On failure the segment is as it was before. What frees space may use room that is kept from the rest.
    pub fn append(&mut self, operation: &Operation) -> io::Result<()> {
        if self.off {
            return Ok(());
        }
        let mut writer = Writer::reuse(std::mem::take(&mut self.scratch));
        writer.raw(&[0; FRAME_BYTES]);
        operation.encode(&mut writer);
        let mut record = writer.finish();
        let payload_len = (record.len() - FRAME_BYTES) as u32;
        let checksum = crc32fast::hash(&record[FRAME_BYTES..]);
        record[..4].copy_from_slice(&payload_len.to_le_bytes());
        record[4..FRAME_BYTES].copy_from_slice(&checksum.to_le_bytes());
        let room = self.reserve(record.len() as u64);
        let written = match room {
            Err(err) if !operation.frees_space() => Err(err),
            _ => self.file.write_all_at(&record, self.offset),
        };
        if written.is_err() {
            // A part of the record may be there: the next one overwrites it, and a crash before that finds a torn tail.
            let _ = self.file.set_len(self.offset);
        } else {
            self.offset += record.len() as u64;
            self.sync.count(record.len() as u64);
        }
        self.scratch = record;
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

    /// Starts the next segment and returns its number: replaying from there skips all that was appended so far.
    pub fn rotate(&mut self) -> io::Result<u64> {
        let file = create_segment(&self.dir, self.segment + 1)?;
        self.segment += 1;
        self.sync.add(self.segment, file.clone());
        self.file = file;
        self.offset = HEADER_BYTES;
        self.reserved = 0;
        Ok(self.segment)
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

/// Hands the operations of every segment from `first` on to `apply`, in order, and returns the number for the next segment.
///
/// The replay ends at the first record that is torn: what follows was never promised to survive. The torn part and
/// later segments are removed, so that a further replay ends there too.
pub fn replay<E: From<io::Error>>(dir: &Path, first: u64, mut apply: impl FnMut(Operation) -> Result<(), E>) -> Result<u64, E> {
    fs::create_dir_all(dir)?;
    let mut next = first;
    let mut torn = false;
    for number in segments(dir)? {
        if number < first || torn || number != next {
            fs::remove_file(segment_path(dir, number))?;
            continue;
        }
        torn = replay_segment(&segment_path(dir, number), &mut apply)?;
        next = number + 1;
    }
    Ok(next)
}

fn replay_segment<E: From<io::Error>>(path: &Path, apply: &mut impl FnMut(Operation) -> Result<(), E>) -> Result<bool, E> {
    let mut bytes = Vec::new();
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.read_to_end(&mut bytes)?;
    let mut good = 0;
    if bytes.get(..MAGIC.len()) == Some(MAGIC) && bytes.len() as u64 >= HEADER_BYTES {
        good = HEADER_BYTES as usize;
        while let Some((operation, end)) = record_at(&bytes, good) {
            apply(operation)?;
            good = end;
        }
    }
    let torn = good < bytes.len() || good == 0;
    if torn {
        tracing::warn!(path = %path.display(), good, len = bytes.len(), "journal ends in a torn record");
        let keep = if good == 0 { 0 } else { good as u64 };
        file.set_len(keep)?;
        if good == 0 {
            file.write_all_at(&header(), 0)?;
        }
        file.sync_all()?;
    }
    Ok(torn)
}

fn record_at(bytes: &[u8], at: usize) -> Option<(Operation, usize)> {
    let frame = bytes.get(at..at + FRAME_BYTES)?;
    let len = u32::from_le_bytes(frame[..4].try_into().ok()?) as usize;
    let checksum = u32::from_le_bytes(frame[4..].try_into().ok()?);
    if len > RECORD_BYTES_MAX {
        return None;
    }
    let end = at + FRAME_BYTES + len;
    let payload = bytes.get(at + FRAME_BYTES..end)?;
    if crc32fast::hash(payload) != checksum {
        return None;
    }
    let mut reader = Reader::new(payload);
    let operation = Operation::decode(&mut reader).ok()?;
    reader.finish().ok()?;
    Some((operation, end))
}

/// Reads records as they stand behind the header of a segment, and writes again what could be read. For fuzzing.
#[doc(hidden)]
pub fn rewritten_records(bytes: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    while let Some((operation, end)) = record_at(bytes, written.len()) {
        let mut writer = Writer::new();
        operation.encode(&mut writer);
        let payload = writer.finish();
        written.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        written.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        written.extend_from_slice(&payload);
        assert_eq!(written.len(), end, "an operation has one encoding");
    }
    written
}

fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
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

pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.log"))
}

/// Returns the numbers of the segments that exist, in order.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(staging: u64) -> Operation {
        Operation::Layer { identity: 1, staging }
    }

    fn replayed(dir: &Path, first: u64) -> (Vec<Operation>, u64) {
        let mut seen = Vec::new();
        let next = replay::<io::Error>(dir, first, |operation| {
            seen.push(operation);
            Ok(())
        });
        (seen, next.unwrap())
    }

    #[test]
    fn what_was_appended_is_replayed_in_order_across_segments() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1).unwrap();
        journal.append(&layer(1)).unwrap();
        assert_eq!(journal.rotate().unwrap(), 2);
        journal.append(&layer(2)).unwrap();
        journal.sync().wait().unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1), layer(2)], 3));
        assert_eq!(replayed(dir.path(), 2), (vec![layer(2)], 3));
    }

    #[test]
    fn a_torn_tail_ends_the_replay_and_stays_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1).unwrap();
        journal.append(&layer(1)).unwrap();
        journal.append(&layer(2)).unwrap();
        let path = segment_path(dir.path(), 1);
        let len = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len - 1).unwrap();
        journal.rotate().unwrap();
        journal.append(&layer(3)).unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1)], 2));
        let mut journal = Journal::start(dir.path(), 2).unwrap();
        journal.append(&layer(4)).unwrap();
        assert_eq!(replayed(dir.path(), 1), (vec![layer(1), layer(4)], 3));
    }

    #[test]
    fn a_flipped_byte_never_gives_another_operation() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::start(dir.path(), 1).unwrap();
        journal.append(&layer(1)).unwrap();
        journal.append(&layer(2)).unwrap();
        let bytes = fs::read(segment_path(dir.path(), 1)).unwrap();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            fs::write(segment_path(dir.path(), 1), &flipped).unwrap();
            let (seen, _) = replayed(dir.path(), 1);
            assert!([&[][..], &[layer(1)], &[layer(1), layer(2)]].contains(&&seen[..]), "byte {at}: {seen:?}");
        }
    }
}
