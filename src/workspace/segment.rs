//! What the bytes of a journal segment say: records in order, and how they end.
//!
//! Pure: knows nothing of files. A record is its length, the CRC-32 of its payload and the payload.

use super::operation::Operation;
use super::standing::Standing;
use crate::object::{Reader, Writer};

/// First bytes of every segment; the last is the version.
pub const MAGIC: &[u8; 8] = b"mmtjrnl\x01";
/// Length of the header: the magic, and where the segment before ends.
pub const HEADER_BYTES: usize = 16;
/// Of these, the end of the segment before takes so many, and their checksum the others.
const PREVIOUS_END_BYTES: usize = 5;
/// Length of what stands before a payload.
pub const FRAME_BYTES: usize = 8;
/// Bounds what a damaged length can make a reader believe.
const RECORD_BYTES_MAX: usize = 4 << 20;
/// The disk writes no less at a time: what never reached it reads as this many zeros.
const SECTOR_BYTES: usize = 512;

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A change.
    Operation(Operation),
    /// Says on what the changes that follow stand; changes nothing.
    Standing(Standing),
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its last record.
    Whole,
    /// In a record that was being written when the machine or the daemon died; nothing whole follows.
    Torn,
    /// In bytes that were changed after they were written: whole records follow, or the record is all there and says something else.
    Damaged,
}

/// What a pass over a segment found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Length of the part that can be relied on.
    pub good: usize,
    /// How it ends.
    pub ending: Ending,
}

/// Returns the header of a segment. `previous_end` is the length of the segment before it, 0 when nothing is known of it.
pub fn header(previous_end: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let end = previous_end.to_le_bytes();
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    if end[PREVIOUS_END_BYTES..].iter().all(|byte| *byte == 0) {
        let (known, checksum) = header[MAGIC.len()..].split_at_mut(PREVIOUS_END_BYTES);
        known.copy_from_slice(&end[..PREVIOUS_END_BYTES]);
        checksum.copy_from_slice(&checksum_of(known)[..checksum.len()]);
    }
    header
}

/// Returns the length that the segment before had when this one was begun, if that is known.
pub fn previous_end(bytes: &[u8]) -> Option<u64> {
    let (known, checksum) = bytes.get(MAGIC.len()..HEADER_BYTES)?.split_at(PREVIOUS_END_BYTES);
    let mut end = [0; 8];
    end[..PREVIOUS_END_BYTES].copy_from_slice(known);
    let end = u64::from_le_bytes(end);
    (end > 0 && checksum_of(known)[..checksum.len()] == *checksum).then_some(end)
}

fn checksum_of(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// Says whether the header is one of ours.
pub fn has_header(bytes: &[u8]) -> bool {
    bytes.get(..MAGIC.len()) == Some(MAGIC) && bytes.len() >= HEADER_BYTES
}

/// Hands every record to `visit`, in order, up to the first that cannot be relied on.
pub(crate) fn scan<E>(bytes: &[u8], mut visit: impl FnMut(Record) -> Result<(), E>) -> Result<Scanned, E> {
    if bytes.len() < HEADER_BYTES {
        return Ok(Scanned { good: 0, ending: Ending::Torn });
    }
    // A damaged header says nothing about the records, which have checksums of their own.
    if !has_header(bytes) && record_at(bytes, HEADER_BYTES).is_none() {
        let ending = if bytes[..HEADER_BYTES].iter().all(|byte| *byte == 0) { Ending::Torn } else { Ending::Damaged };
        return Ok(Scanned { good: 0, ending });
    }
    let mut good = HEADER_BYTES;
    while let Some((record, end)) = record_at(bytes, good) {
        visit(record)?;
        good = end;
    }
    Ok(Scanned { good, ending: ending_at(bytes, good) })
}

/// Returns the last record of a segment that says on what it stands. Only such records are verified.
pub(crate) fn last_standing(bytes: &[u8]) -> Option<Standing> {
    let mut at = HEADER_BYTES;
    let mut last = None;
    while let Some(payload) = payload_at(bytes, at) {
        if payload.first() == Some(&Standing::TAG)
            && let Some((Record::Standing(standing), _)) = record_at(bytes, at)
        {
            last = Some(standing);
        }
        at += FRAME_BYTES + payload.len();
    }
    last
}

fn payload_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let len = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize;
    let start = at + FRAME_BYTES;
    if len == 0 || len > RECORD_BYTES_MAX { None } else { bytes.get(start..start + len) }
}

fn record_at(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let payload = payload_at(bytes, at)?;
    let checksum = u32::from_le_bytes(bytes.get(at + 4..at + FRAME_BYTES)?.try_into().ok()?);
    if crc32fast::hash(payload) != checksum {
        return None;
    }
    Some((decode(payload)?, at + FRAME_BYTES + payload.len()))
}

/// Reads records as they stand behind the header of a segment, and writes again what could be read. For fuzzing.
#[doc(hidden)]
pub fn rewritten_records(bytes: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    while let Some((record, end)) = record_at(bytes, written.len()) {
        let mut writer = Writer::new();
        match record {
            Record::Operation(operation) => operation.encode(&mut writer),
            Record::Standing(standing) => standing.encode(&mut writer),
        }
        let payload = writer.finish();
        written.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        written.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        written.extend_from_slice(&payload);
        assert_eq!(written.len(), end, "a record has one encoding");
    }
    written
}

fn decode(payload: &[u8]) -> Option<Record> {
    let mut reader = Reader::new(payload);
    let record = if payload.first() == Some(&Standing::TAG) {
        Record::Standing(Standing::decode(&mut reader).ok()?)
    } else {
        Record::Operation(Operation::decode(&mut reader).ok()?)
    };
    reader.finish().ok()?;
    Some(record)
}

fn ending_at(bytes: &[u8], good: usize) -> Ending {
    let rest = &bytes[good..];
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else {
        return Ending::Whole; // Room for records that were never written, or never reached the disk.
    };
    let written = good + last + 1;
    let in_sector = SECTOR_BYTES - good % SECTOR_BYTES;
    if rest.iter().take(in_sector.min(FRAME_BYTES)).all(|byte| *byte == 0) {
        return Ending::Torn; // It never reached the disk, and something behind it did.
    }
    let whole = payload_at(bytes, good).map(|payload| good + FRAME_BYTES + payload.len());
    match whole {
        // It was cut short, in room that had been filled with zeros.
        Some(end) if written < end && !has_record_behind(bytes, good) => Ending::Torn,
        Some(end) if !has_unwritten_sector(bytes, good, end) => Ending::Damaged,
        // A length that leads into the zeros behind the records, or nowhere.
        Some(end) if end <= written => Ending::Torn,
        _ if !has_unwritten_sector(bytes, good, written) && has_record_behind(bytes, good) => Ending::Damaged,
        _ => Ending::Torn,
    }
}

/// Says whether a sector, or what lies of one in the range, is all zeros, as what never reached the disk is.
fn has_unwritten_sector(bytes: &[u8], start: usize, end: usize) -> bool {
    let first = start.next_multiple_of(SECTOR_BYTES);
    (first..end).step_by(SECTOR_BYTES).any(|at| bytes[at..end.min(at + SECTOR_BYTES)].iter().all(|byte| *byte == 0))
}

/// Says whether a whole record begins anywhere behind `at`.
fn has_record_behind(bytes: &[u8], at: usize) -> bool {
    // Decoding fails within a few bytes nearly everywhere; the checksum is only made where it does not.
    let is_record = |at: usize| payload_at(bytes, at).and_then(decode).is_some() && record_at(bytes, at).is_some();
    (at + 1..bytes.len().saturating_sub(FRAME_BYTES)).any(is_record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Writer;

    fn segment(records: u64) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[0; HEADER_BYTES - MAGIC.len()]].concat();
        for staging in 1..=records {
            let mut writer = Writer::new();
            Operation::Layer { identity: 70_000, staging }.encode(&mut writer);
            let payload = writer.finish();
            bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
            bytes.extend_from_slice(&payload);
        }
        bytes
    }

    fn scanned(bytes: &[u8]) -> (u64, Ending) {
        let mut count = 0;
        let scanned = scan::<()>(bytes, |_| {
            count += 1;
            Ok(())
        });
        (count, scanned.unwrap().ending)
    }

    #[test]
    fn a_flipped_bit_before_the_last_record_is_damage_and_never_a_torn_end() {
        for room in [0, 2000] {
            assert_flips_are_damage(&[segment(4), vec![0; room]].concat());
        }
    }

    fn assert_flips_are_damage(bytes: &[u8]) {
        let last = segment(3).len();
        for at in HEADER_BYTES..last {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << bit;
                let (count, ending) = scanned(&flipped);
                assert!(count < 4 && ending == Ending::Damaged, "byte {at} bit {bit}: {count} {ending:?}");
            }
        }
        for at in 0..HEADER_BYTES {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 4;
            assert_eq!(scanned(&flipped), (4, Ending::Whole), "a header costs no records");
        }
    }

    #[test]
    fn a_header_says_where_the_segment_before_ends_and_no_other_place() {
        assert_eq!(previous_end(&header(0)), None);
        let good = header(0x12_3456_789a);
        assert_eq!(previous_end(&good), Some(0x12_3456_789a));
        assert_eq!(previous_end(&header(1 << 40)), None, "too far to be told");
        for bit in 64..128 {
            let mut flipped = good;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(previous_end(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn what_a_power_cut_leaves_is_a_torn_end() {
        let bytes = segment(4);
        for len in segment(3).len() + 1..bytes.len() {
            assert_eq!(scanned(&bytes[..len]), (3, Ending::Torn), "cut at {len}");
        }
        // Found by `scripts/campaigns/sweep`: half of a write over zeros that were written ahead was called damage.
        for len in segment(3).len() + 1..bytes.len() {
            let cut_short = [&bytes[..len], &vec![0; 3000]].concat();
            assert_eq!(scanned(&cut_short), (3, Ending::Torn), "cut at {len}, zeros behind");
        }
        let mut unwritten = segment(200);
        unwritten[512..1024].fill(0);
        assert_eq!(scanned(&unwritten).1, Ending::Torn);
        for late in [100, 3000] {
            let mut behind = [&bytes[..], &vec![0; late], &segment(2)[HEADER_BYTES..], &[0; 600]].concat();
            assert_eq!(scanned(&behind), (4, Ending::Torn), "the record in between never reached the disk");
            behind.truncate(bytes.len() + late);
            assert_eq!(scanned(&behind), (4, Ending::Whole), "room for {late} bytes more");
        }
        assert_eq!(scanned(b""), (0, Ending::Torn));
    }
}
