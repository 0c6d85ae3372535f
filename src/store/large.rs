//! Large objects: plain files that were taken over as they were, with a list at the end of what lies where in them.
//!
//! Nothing is copied: a large file that was written into a staging file gets a second name. Its pieces are objects of their own, each
//! read and verified by itself.

use super::check::ScannedPack;
use super::dir::sync_dir;
use super::{PackStore, StoreError};
use crate::object::{Container, Encoding, Location, ObjectId, ObjectKind};
use crate::sys;
use std::fs::{self, File, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Last bytes of every large object, behind the length of the list; the last is the version.
const LIST_MAGIC: [u8; 8] = *b"mmtlist\x01";
/// Length of the list's length and the magic bytes.
const FOOTER_BYTES: usize = 16;
/// Offset, length and id of a piece.
const ENTRY_BYTES: usize = 48;

/// A blob and the range of a file that holds its bytes.
pub type LargePiece = (ObjectId, Range<u64>);

/// Returns the length of a large object that holds `objects` objects of `stored_bytes` bytes together, and nothing else.
pub fn size_of_large(objects: u64, stored_bytes: u64) -> u64 {
    stored_bytes + objects * ENTRY_BYTES as u64 + FOOTER_BYTES as u64
}

impl PackStore {
    /// Writes the list of `pieces` behind the bytes of the file at `path`, and makes the file durable. Returns the name that
    /// [`Self::adopt`] gives it.
    pub fn write_list(&self, path: &Path, pieces: &[LargePiece]) -> Result<ObjectId, StoreError> {
        let list = encoded(pieces);
        let file = File::options().read(true).write(true).open(path).map_err(StoreError::io("cannot open", path))?;
        let end = file.metadata().map_err(StoreError::io("cannot look at", path))?.len();
        let mut tail = list.clone();
        tail.extend_from_slice(&(list.len() as u64).to_le_bytes());
        tail.extend_from_slice(&LIST_MAGIC);
        let written = file.write_all_at(&tail, end).and_then(|()| file.sync_all());
        if written.is_err() {
            let _ = file.set_len(end); // Room on a full disk; to whoever the file belongs it ends before.
        }
        written.map_err(StoreError::io("cannot write to", path))?;
        Ok(ObjectId::of(&list))
    }

    /// Gives a file with a list one more name, durably. Its bytes must not change from then on. Returns where each piece lies; nothing
    /// when there is a large object of that name.
    ///
    /// Such a one is what is left of the same file: nobody knows what it is worth. Its bytes may have been punched out or have rotted
    /// since nothing named them, and a run of gc may be about to remove it.
    pub fn adopt(&self, path: &Path, id: ObjectId, pieces: &[LargePiece]) -> Result<Option<Vec<Location>>, StoreError> {
        let container = Container::Large(id);
        let name = self.path_of(container);
        let objects = self.dir().path().join("objects");
        let shard = name.parent().unwrap_or(&objects);
        fs::create_dir_all(shard).map_err(StoreError::io("cannot make", shard))?;
        match fs::hard_link(path, &name) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            linked => linked.map_err(StoreError::io("cannot make", &name))?,
        }
        sync_dir(shard)?;
        sync_dir(&objects)?;
        Ok(Some(pieces.iter().map(|(_, range)| location(container, range)).collect()))
    }

    /// Lists the pieces of a large object, as [`Self::scan_pack`] does for a pack. Without a whole list, nothing is found.
    pub fn scan_large(&self, id: ObjectId) -> Result<ScannedPack, StoreError> {
        let container = Container::Large(id);
        let (file, len) = self.open_large(id)?;
        let mut scanned = ScannedPack::default();
        match read_list(&file, len, &id) {
            Some((_, pieces)) => {
                scanned.records.extend(pieces.iter().map(|(piece, range)| (ObjectKind::Blob, *piece, location(container, range))))
            }
            None => scanned.damaged.push(len),
        }
        Ok(scanned)
    }

    /// Checks that a large object ends with its list.
    pub(super) fn check_list(&self, id: ObjectId) -> Result<(), StoreError> {
        let (file, len) = self.open_large(id)?;
        let list = read_list(&file, len, &id);
        list.map(drop).ok_or_else(|| StoreError::Large { id, detail: "does not end with the list of what lies in it".into() })
    }

    /// Gives back the room of everything in a large object but `live`, which are in order, and the list. One that is also a staging
    /// file stays as it is: the bytes of a changed file lie there.
    pub fn punch_large(&self, id: ObjectId, live: &[Range<u64>]) -> Result<(), StoreError> {
        let path = self.path_of(Container::Large(id));
        let metadata = fs::metadata(&path).map_err(StoreError::io("cannot look at", &path))?;
        if metadata.nlink() > 1 {
            return Ok(());
        }
        let set_mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode));
        set_mode(0o600).map_err(StoreError::io("cannot open", &path))?;
        let file = File::options().read(true).write(true).open(&path).map_err(StoreError::io("cannot open", &path))?;
        set_mode(0o400).map_err(StoreError::io("cannot protect", &path))?;
        let Some((end, _)) = read_list(&file, metadata.len(), &id) else { return Ok(()) };
        let mut at = 0;
        for range in live.iter().chain([&(end..end)]) {
            if range.start > at {
                sys::punch(&file, at..range.start).map_err(StoreError::io("cannot give back room in", &path))?;
            }
            at = at.max(range.end);
        }
        Ok(())
    }

    fn open_large(&self, id: ObjectId) -> Result<(File, u64), StoreError> {
        let path = self.path_of(Container::Large(id));
        let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
        opened.map_err(StoreError::io("cannot open", path))
    }
}

fn location(container: Container, range: &Range<u64>) -> Location {
    let len = range.end - range.start;
    Location { container, offset: range.start, stored_bytes: len, size_bytes: len, encoding: Encoding::Raw }
}

fn encoded(pieces: &[LargePiece]) -> Vec<u8> {
    let mut list = Vec::with_capacity(pieces.len() * ENTRY_BYTES);
    for (id, range) in pieces {
        list.extend_from_slice(&range.start.to_le_bytes());
        list.extend_from_slice(&(range.end - range.start).to_le_bytes());
        list.extend_from_slice(id.as_bytes());
    }
    list
}

/// Reads the list at the end of a file, and says where it begins. `None` when it is not the one that names the file.
fn read_list(file: &File, len: u64, id: &ObjectId) -> Option<(u64, Vec<LargePiece>)> {
    let mut footer = [0; FOOTER_BYTES];
    let end = len.checked_sub(FOOTER_BYTES as u64)?;
    file.read_exact_at(&mut footer, end).ok()?;
    let (list_bytes, magic) = footer.split_first_chunk::<8>()?;
    let list_bytes =
        Some(u64::from_le_bytes(*list_bytes)).filter(|bytes| *bytes <= list_bytes_max(len) && *magic == LIST_MAGIC)?;
    let start = end.checked_sub(list_bytes)?;
    let mut list = vec![0; usize::try_from(end - start).ok()?];
    file.read_exact_at(&mut list, start).ok()?;
    if ObjectId::of(&list) != *id || list.len() % ENTRY_BYTES != 0 {
        return None;
    }
    list.chunks_exact(ENTRY_BYTES).map(|entry| decoded(entry, start)).collect::<Option<_>>().map(|pieces| (start, pieces))
}

/// Returns the length that the list of a file of `len` bytes has at most: a piece is no shorter than a sector, but for the last one.
/// It bounds what a damaged length can make us allocate.
fn list_bytes_max(len: u64) -> u64 {
    const PIECE_BYTES_MIN: u64 = 512;
    (len / PIECE_BYTES_MIN + 1).saturating_mul(ENTRY_BYTES as u64)
}

fn decoded(entry: &[u8], data_end: u64) -> Option<LargePiece> {
    let (offset, rest) = entry.split_first_chunk::<8>()?;
    let (len, id) = rest.split_first_chunk::<8>()?;
    let offset = u64::from_le_bytes(*offset);
    let end = offset.checked_add(u64::from_le_bytes(*len)).filter(|end| *end <= data_end)?;
    Some((ObjectId::from_bytes(id.try_into().ok()?), offset..end))
}

#[cfg(test)]
mod tests {
    use super::super::StoreDir;
    use super::*;
    use std::path::PathBuf;
    use std::sync::Arc;

    /// A store, and a file in it that is one of its large objects, with a stretch that belongs to none of its pieces.
    fn with_large() -> (tempfile::TempDir, PackStore, Vec<LargePiece>, Vec<Location>, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let store = PackStore::open(Arc::new(StoreDir::create(&temp.path().join("store")).unwrap())).unwrap();
        let path = temp.path().join("store/staging/1");
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&path, &bytes).unwrap();
        let piece = |range: Range<u64>| (ObjectId::of(&bytes[range.start as usize..range.end as usize]), range);
        let pieces = vec![piece(0..100_000), piece(100_000..200_001), piece(300_000..400_000)];
        let id = store.write_list(&path, &pieces).unwrap();
        let locations = store.adopt(&path, id, &pieces).unwrap().unwrap();
        (temp, store, pieces, locations, path)
    }

    fn id_of(at: &Location) -> ObjectId {
        let Container::Large(id) = at.container else { panic!("{at:?}") };
        id
    }

    #[test]
    fn a_file_becomes_an_object_with_pieces_of_its_own() {
        let (_temp, store, pieces, locations, path) = with_large();
        fs::remove_file(path).unwrap(); // Its other name.
        let id = id_of(&locations[0]);
        let found = store.scan_large(id).unwrap();
        assert!(found.damaged.is_empty());
        for (((piece, range), at), record) in pieces.iter().zip(&locations).zip(&found.records) {
            assert_eq!(store.read(piece, at).unwrap().len() as u64, range.end - range.start);
            assert_eq!(*record, (ObjectKind::Blob, *piece, *at));
            store.check_frame(piece, ObjectKind::Blob, at).unwrap();
        }
        store.check_header(Container::Large(id)).unwrap();
        assert_eq!(store.containers().unwrap().len(), 1);
        store.remove(Container::Large(id)).unwrap();
        assert_eq!(store.containers().unwrap().len(), 0);
    }

    #[test]
    fn every_flipped_byte_of_a_piece_or_the_list_is_noticed() {
        let (_temp, store, pieces, locations, path) = with_large();
        let id = id_of(&locations[0]);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len();
        let flip = |at: u64| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        };
        for at in [0, 99_999, 150_000, 399_999] {
            flip(at);
            let broken = pieces.iter().zip(&locations).filter(|((piece, _), at)| store.read(piece, at).is_err()).count();
            assert_eq!(broken, 1, "byte {at}");
            store.check_header(Container::Large(id)).unwrap();
            flip(at);
        }
        for at in 400_000..len {
            flip(at);
            let sentence = store.check_header(Container::Large(id)).unwrap_err().to_string();
            assert!(sentence.contains("does not end with the list"), "{sentence}");
            assert!(store.scan_large(id).unwrap().records.is_empty());
            flip(at);
        }
    }

    /// A footer may claim as much as the file is long, and a file with holes is as long as one likes.
    #[test]
    fn a_damaged_footer_does_not_make_us_allocate_what_it_claims() {
        const CLAIMED: u64 = 1 << 40;
        let (_temp, store, _, locations, path) = with_large();
        let file = File::options().write(true).open(path).unwrap();
        let footer = [CLAIMED.to_le_bytes(), LIST_MAGIC].concat();
        file.write_all_at(&footer, CLAIMED).unwrap();
        assert!(store.scan_large(id_of(&locations[0])).unwrap().records.is_empty());
    }

    #[test]
    fn room_of_what_is_dead_is_given_back() {
        let (_temp, store, pieces, locations, path) = with_large();
        let object = store.path_of(locations[0].container);
        let punch = || store.punch_large(id_of(&locations[0]), &[pieces[1].1.clone()]).unwrap();
        let before = fs::metadata(&object).unwrap().blocks();
        punch();
        assert_eq!(fs::metadata(&object).unwrap().blocks(), before, "its other name counts on all of it");
        fs::remove_file(path).unwrap();
        punch();
        assert!(fs::metadata(&object).unwrap().blocks() < before / 2);
        assert!(store.read(&pieces[1].0, &locations[1]).is_ok());
        assert_eq!(store.scan_large(id_of(&locations[0])).unwrap().records.len(), 3);
    }
}
