//! Looks at packs as files: is each record where it is said to be, and what lies in a pack whose index is lost.

use super::large::size_of_large;
use super::pack::{PACK_MAGIC, RECORD_HEADER_BYTES, RecordHeader, size_of_pack};
use super::{PackStore, StoreError};
use crate::object::{Container, Location, ObjectId, ObjectKind};
use crate::sys;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The next record behind a damaged one is looked for in steps of this many bytes.
const SEARCH_BYTES: usize = 1 << 20;

/// What a pass over a pack found.
#[derive(Debug, Default)]
pub struct ScannedPack {
    /// Its records, in order.
    pub records: Vec<(ObjectKind, ObjectId, Location)>,
    /// Where headers should be and are not, with a whole record somewhere behind.
    pub damaged: Vec<u64>,
}

impl PackStore {
    /// Says where an object lies, for people.
    pub fn describe(&self, at: &Location) -> String {
        match at.container {
            Container::Pack(number) => format!("in pack {number} at offset {}", at.offset),
            Container::Large(id) => format!("in objects/{id} at offset {}", at.offset),
        }
    }

    /// Checks that an object's record is where the index says: kind, lengths, id and encoding, not the bytes themselves.
    pub fn check_frame(&self, id: &ObjectId, kind: ObjectKind, at: &Location) -> Result<(), StoreError> {
        let file = self.open_container(at.container)?;
        let path = self.path_of(at.container);
        let len = file.metadata().map_err(StoreError::io("cannot look at", &path))?.len();
        if at.offset.checked_add(at.stored_bytes).is_none_or(|end| end > len) {
            return Err(StoreError::damaged(*id, "the file that holds it ends too early"));
        }
        if matches!(at.container, Container::Large(_)) {
            return Ok(());
        }
        let frame = at.offset.checked_sub(RECORD_HEADER_BYTES as u64).and_then(|start| header_at(&file, start));
        match frame {
            None => Err(StoreError::damaged(*id, "the header of its record is not readable")),
            Some(header) if header == header_of(id, kind, at) => Ok(()),
            Some(header) => Err(StoreError::damaged(*id, format!("the record there is that of {:?} {}", header.kind, header.id))),
        }
    }

    /// Checks that a pack begins, and a large object ends, as they do.
    pub fn check_header(&self, container: Container) -> Result<(), StoreError> {
        let number = match container {
            Container::Pack(number) => number,
            Container::Large(id) => return self.check_list(id),
        };
        let path = self.path_of(container);
        let mut magic = [0; PACK_MAGIC.len()];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut magic, 0));
        match read {
            Ok(()) if magic == PACK_MAGIC => Ok(()),
            Ok(()) => Err(StoreError::Pack { number, detail: "does not begin as packs do".into() }),
            Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(StoreError::Pack { number, detail: "is shorter than a pack's header".into() })
            }
            Err(err) => Err(StoreError::io("cannot read", path)(err)),
        }
    }

    /// Writes the first bytes of a pack anew: they are the same in every pack.
    pub fn mend_header(&self, number: u32) -> Result<(), StoreError> {
        self.mend(Container::Pack(number), 0, &PACK_MAGIC)
    }

    /// Writes the header of a record anew, for an object that was just read and verified at this place.
    pub fn mend_frame(&self, id: &ObjectId, kind: ObjectKind, at: &Location) -> Result<(), StoreError> {
        let header = header_of(id, kind, at).encode();
        let start = at.offset.checked_sub(RECORD_HEADER_BYTES as u64);
        let start = start.ok_or_else(|| StoreError::damaged(*id, "there is no room for its header"))?;
        self.mend(at.container, start, &header)
    }

    fn mend(&self, container: Container, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path_of(container);
        let file = File::options().write(true).open(&path).map_err(StoreError::io("cannot open", &path))?;
        file.write_all_at(bytes, offset).and_then(|()| file.sync_data()).map_err(StoreError::io("cannot mend", path))
    }

    /// Returns the length of a file that holds that many objects of `stored_bytes` bytes together, and nothing else.
    pub fn size_with(container: Container, objects: u64, stored_bytes: u64) -> u64 {
        match container {
            Container::Pack(_) => size_of_pack(objects, stored_bytes),
            Container::Large(_) => size_of_large(objects, stored_bytes),
        }
    }

    /// Gives back the room of the records of a pack that `is_live` says no to, where they lie; their headers stay, so that the
    /// others are still found. Of a file system that cannot, `EOPNOTSUPP`.
    ///
    /// Behind a damaged header what looks like a record may be a part of another: whoever asks must spare what overlaps with something.
    pub fn punch_dead(&self, number: u32, is_live: impl Fn(&ObjectId, &Location) -> bool) -> Result<(), StoreError> {
        let path = self.path_of(Container::Pack(number));
        let file = File::options().write(true).open(&path).map_err(StoreError::io("cannot open", &path))?;
        let scanned = self.scan_pack(number)?;
        for (_, _, at) in scanned.records.iter().filter(|(_, id, at)| at.stored_bytes > 0 && !is_live(id, at)) {
            let range = at.offset..at.offset + at.stored_bytes;
            sys::punch(&file, range).map_err(StoreError::io("cannot give back room in", &path))?;
        }
        Ok(())
    }

    /// Lists the records of a pack by their headers, for checks and for rebuilding an index. Behind a damaged header the
    /// next whole one is looked for; what is found there is only what it says it is once its bytes were read and verified.
    pub fn scan_pack(&self, number: u32) -> Result<ScannedPack, StoreError> {
        let path = self.path_of(Container::Pack(number));
        let file = File::open(&path).map_err(StoreError::io("cannot open", &path))?;
        let len = file.metadata().map_err(StoreError::io("cannot look at", &path))?.len();
        let mut scanned = ScannedPack::default();
        let mut at = PACK_MAGIC.len() as u64;
        while at + RECORD_HEADER_BYTES as u64 <= len {
            let offset = at + RECORD_HEADER_BYTES as u64;
            let header = header_at(&file, at);
            let end = header.as_ref().and_then(|header| offset.checked_add(header.stored_bytes)).filter(|end| *end <= len);
            let (Some(header), Some(end)) = (header, end) else {
                let Some(next) = next_header(&file, at + 1, len) else { break };
                scanned.damaged.push(at);
                at = next;
                continue;
            };
            let location = Location {
                container: Container::Pack(number),
                offset,
                stored_bytes: header.stored_bytes,
                size_bytes: header.size_bytes,
                encoding: header.encoding,
            };
            scanned.records.push((header.kind, header.id, location));
            at = end;
        }
        Ok(scanned)
    }
}

fn header_of(id: &ObjectId, kind: ObjectKind, at: &Location) -> RecordHeader {
    RecordHeader { kind, encoding: at.encoding, stored_bytes: at.stored_bytes, size_bytes: at.size_bytes, id: *id }
}

fn header_at(file: &File, at: u64) -> Option<RecordHeader> {
    let mut header = [0; RECORD_HEADER_BYTES];
    file.read_exact_at(&mut header, at).ok()?;
    RecordHeader::decode(&header)
}

/// Finds the next place from `at` on where a whole header stands, whose record ends within the file.
fn next_header(file: &File, mut at: u64, len: u64) -> Option<u64> {
    let mut window = vec![0; SEARCH_BYTES + RECORD_HEADER_BYTES];
    while at + RECORD_HEADER_BYTES as u64 <= len {
        let wanted = window.len().min((len - at) as usize);
        file.read_exact_at(&mut window[..wanted], at).ok()?;
        for (step, bytes) in window[..wanted].windows(RECORD_HEADER_BYTES).enumerate() {
            let start = at + step as u64;
            let header = bytes.try_into().ok().and_then(RecordHeader::decode);
            if header.is_some_and(|header| (start + RECORD_HEADER_BYTES as u64).saturating_add(header.stored_bytes) <= len) {
                return Some(start);
            }
        }
        at += SEARCH_BYTES as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreDir;
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn records_behind_a_damaged_one_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let packs = PackStore::open(Arc::new(StoreDir::create(&temp.path().join("store")).unwrap())).unwrap();
        let put = |bytes: &[u8]| {
            let id = ObjectId::of(bytes);
            (id, packs.append(ObjectKind::Blob, &id, bytes).unwrap())
        };
        let objects: Vec<_> = (0..4u8).map(|at| put(&[at; 300])).collect();
        packs.sync().unwrap();
        let path = packs.path_of(objects[1].1.container);
        let good = fs::read(&path).unwrap();
        let (id, at) = objects[1];
        for step in 1..=RECORD_HEADER_BYTES as u64 {
            let mut bad = good.clone();
            bad[(at.offset - step) as usize] ^= 1;
            fs::write(&path, &bad).unwrap();
            let scanned = packs.scan_pack(1).unwrap();
            let found: Vec<_> = scanned.records.iter().map(|(_, id, _)| *id).collect();
            assert_eq!(found, [objects[0].0, objects[2].0, objects[3].0], "header byte -{step}");
            assert_eq!(scanned.damaged, [at.offset - RECORD_HEADER_BYTES as u64]);
            assert!(packs.check_frame(&id, ObjectKind::Blob, &at).is_err());
            packs.mend_frame(&id, ObjectKind::Blob, &at).unwrap();
            assert_eq!(fs::read(&path).unwrap(), good);
        }
        assert!(packs.check_frame(&id, ObjectKind::Blob, &at).is_ok());
        assert!(packs.check_frame(&id, ObjectKind::Tree, &at).is_err());
    }

    /// Found by `scripts/campaigns/full`: on a full disk a pack that was half dead could not be copied, and nothing came back.
    #[test]
    fn what_is_dead_gives_its_room_back_where_it_lies() {
        let temp = tempfile::tempdir().unwrap();
        let packs = PackStore::open(Arc::new(StoreDir::create(&temp.path().join("store")).unwrap())).unwrap();
        let put = |seed: u32| {
            let bytes: Vec<u8> = (0..100_000u32).flat_map(|at| (at ^ seed).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
            let id = ObjectId::of(&bytes);
            (id, packs.append(ObjectKind::Blob, &id, &bytes).unwrap())
        };
        let objects: Vec<_> = (0..6).map(put).collect();
        packs.sync().unwrap();
        let allocated = || packs.containers().unwrap()[0].allocated_bytes;
        let (before, dead_bytes) = (allocated(), objects[2].1.stored_bytes + objects[5].1.stored_bytes);
        packs.punch_dead(1, |_, at| at.offset != objects[2].1.offset && at.offset != objects[5].1.offset).unwrap();
        assert!(before - allocated() > dead_bytes * 9 / 10, "{before} bytes became {}", allocated());
        for (number, (id, at)) in objects.iter().enumerate() {
            assert_eq!(packs.read(id, at).is_ok(), number != 2 && number != 5, "object {number}");
        }
        assert_eq!(packs.scan_pack(1).unwrap().records.len(), objects.len());
    }
}
