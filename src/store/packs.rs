//! All packs and large objects of a store: appending, reading, listing, removing.

use super::compression;
use super::pack::{RECORD_HEADER_BYTES, RecordHeader, original_form, stored_form};
use super::writer::{PackWriter, pack_path};
use super::{StoreDir, StoreError};
use crate::object::{Container, Location, ObjectId, ObjectKind};
use quick_cache::sync::Cache;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Open files kept for reading.
const FILES_CACHED: usize = 64;
/// What stat(2) counts blocks in.
const STAT_BLOCK_BYTES: u64 = 512;
/// Bounds what a damaged location can make us allocate; larger content is cut into pieces.
const OBJECT_BYTES_MAX: u64 = 256 << 20;

/// The packs and large objects of a store.
#[derive(Debug)]
pub struct PackStore {
    dir: Arc<StoreDir>,
    writer: PackWriter,
    files: Cache<Container, Arc<File>>,
}

/// A file that holds objects.
#[derive(Clone, Debug)]
pub struct ContainerInfo {
    /// Which.
    pub container: Container,
    /// Its length.
    pub size_bytes: u64,
    /// The room it takes on the disk.
    pub allocated_bytes: u64,
    /// When it was written last.
    pub modified: SystemTime,
    /// Whether objects are being appended to it.
    pub appending: bool,
}

impl PackStore {
    /// Opens the packs. Appending starts a new pack: what a crash left at the end of the last one is never touched.
    pub fn open(dir: Arc<StoreDir>) -> Result<Self, StoreError> {
        let packs = dir.path().join("packs");
        let newest = pack_numbers(&packs)?.into_iter().max().unwrap_or(0);
        Ok(Self { dir, writer: PackWriter::new(packs, newest), files: Cache::new(FILES_CACHED) })
    }

    pub(super) fn dir(&self) -> &StoreDir {
        &self.dir
    }

    /// Appends an object; [`Self::sync`] makes it survive. It can be read at once.
    pub fn append(&self, kind: ObjectKind, id: &ObjectId, bytes: &[u8]) -> Result<Location, StoreError> {
        let (encoding, stored) = stored_form(bytes); // Before any lock: threads compress side by side.
        let stored_bytes = stored.len() as u64;
        let size_bytes = bytes.len() as u64;
        let header = RecordHeader { kind, encoding, stored_bytes, size_bytes, id: *id };
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + stored.len());
        record.extend_from_slice(&header.encode());
        record.extend_from_slice(&stored);
        let (number, at) = self.writer.append(&record)?;
        let offset = at + RECORD_HEADER_BYTES as u64;
        Ok(Location { container: Container::Pack(number), offset, stored_bytes, size_bytes, encoding })
    }

    /// Makes everything appended before the call durable. Concurrent callers share one sync.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.writer.sync()
    }

    /// Reads an object and verifies it.
    pub fn read(&self, id: &ObjectId, at: &Location) -> Result<Vec<u8>, StoreError> {
        if at.stored_bytes > OBJECT_BYTES_MAX || at.size_bytes > OBJECT_BYTES_MAX {
            return Err(StoreError::damaged(*id, "its recorded size is out of range"));
        }
        if let Container::Pack(number) = at.container {
            self.writer.write_before(number, at.offset + at.stored_bytes)?;
        }
        let file = self.open_container(at.container)?;
        let mut stored = vec![0; at.stored_bytes as usize];
        file.read_exact_at(&mut stored, at.offset).map_err(|err| match err.kind() {
            std::io::ErrorKind::UnexpectedEof => StoreError::damaged(*id, "the file that holds it ends too early"),
            _ => StoreError::io("cannot read", self.path_of(at.container))(err),
        })?;
        original_form(id, at.encoding, stored, at.size_bytes)
    }

    pub(super) fn open_container(&self, container: Container) -> Result<Arc<File>, StoreError> {
        if let Some(file) = self.files.get(&container) {
            return Ok(file);
        }
        let path = self.path_of(container);
        let file = Arc::new(File::open(&path).map_err(StoreError::io("cannot open", path))?);
        self.files.insert(container, file.clone());
        Ok(file)
    }

    /// Closes the files that are open only because they may be read again, and lets go of what appending has kept in memory.
    pub fn rest(&self) {
        self.files.clear();
        self.writer.rest();
        compression::rest();
    }

    /// Lists every file that holds objects.
    pub fn containers(&self) -> Result<Vec<ContainerInfo>, StoreError> {
        let newest = self.writer.appending();
        let mut found = Vec::new();
        for pack in pack_numbers(&self.dir.path().join("packs"))? {
            let appending = newest == Some(pack);
            found.extend(self.info(Container::Pack(pack), appending)?);
        }
        for id in large_ids(&self.dir.path().join("objects"))? {
            found.extend(self.info(Container::Large(id), false)?);
        }
        Ok(found)
    }

    fn info(&self, container: Container, appending: bool) -> Result<Option<ContainerInfo>, StoreError> {
        let path = self.path_of(container);
        match fs::metadata(&path) {
            Ok(file) => {
                let modified = file.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                let allocated_bytes = file.blocks() * STAT_BLOCK_BYTES;
                Ok(Some(ContainerInfo { container, size_bytes: file.len(), allocated_bytes, modified, appending }))
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(StoreError::io("cannot look at", path)(err)),
        }
    }

    /// Closes the pack being appended to: the next object starts another.
    pub fn rotate(&self) -> Result<(), StoreError> {
        self.writer.rotate()
    }

    /// Removes a file that holds objects. Readers that have it open go on reading.
    pub fn remove(&self, container: Container) -> Result<(), StoreError> {
        let path = self.path_of(container);
        self.files.remove(&container);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(StoreError::io("cannot remove", path)(err)),
        }
    }

    /// Returns the path of a file that holds objects.
    pub fn path_of(&self, container: Container) -> PathBuf {
        match container {
            Container::Pack(number) => self.pack_path(number),
            Container::Large(id) => {
                let hex = id.to_hex();
                self.dir.path().join("objects").join(&hex[..2]).join(&hex[2..])
            }
        }
    }

    fn pack_path(&self, number: u32) -> PathBuf {
        pack_path(&self.dir.path().join("packs"), number)
    }
}

fn pack_numbers(dir: &Path) -> Result<Vec<u32>, StoreError> {
    let mut numbers = Vec::new();
    for name in names_in(dir)? {
        numbers.extend(name.strip_suffix(".pack").and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn large_ids(dir: &Path) -> Result<Vec<ObjectId>, StoreError> {
    let mut ids = Vec::new();
    for shard in names_in(dir)? {
        for rest in names_in(&dir.join(&shard))? {
            ids.extend(format!("{shard}{rest}").parse::<ObjectId>().ok());
        }
    }
    Ok(ids)
}

fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("cannot read", dir))? {
        let entry = entry.map_err(StoreError::io("cannot read", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, PackStore) {
        let temp = tempfile::tempdir().unwrap();
        let dir = Arc::new(StoreDir::create(&temp.path().join("store")).unwrap());
        let packs = PackStore::open(dir).unwrap();
        (temp, packs)
    }

    fn put(packs: &PackStore, bytes: &[u8]) -> (ObjectId, Location) {
        let id = ObjectId::of(bytes);
        (id, packs.append(ObjectKind::Blob, &id, bytes).unwrap())
    }

    #[test]
    fn objects_come_back_as_they_were_stored_compressed_or_not() {
        let (_temp, packs) = store();
        for bytes in [&b""[..], b"short", &[7; 100_000], &(0..=255).cycle().take(1000).collect::<Vec<u8>>()] {
            let (id, location) = put(&packs, bytes);
            packs.sync().unwrap();
            assert_eq!(packs.read(&id, &location).unwrap(), bytes);
        }
        assert_eq!(packs.scan_pack(1).unwrap().records.len(), 4);
    }

    #[test]
    fn every_flipped_bit_of_a_stored_object_is_noticed() {
        let (_temp, packs) = store();
        let (id, location) = put(&packs, &[b"some bytes ".as_slice(); 40].concat());
        packs.sync().unwrap();
        let path = packs.path_of(location.container);
        let good = fs::read(&path).unwrap();
        for at in location.offset..location.offset + location.stored_bytes {
            let mut bad = good.clone();
            bad[at as usize] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(packs.read(&id, &location), Err(StoreError::Damaged { .. })), "byte {at}");
        }
    }

    #[test]
    fn a_new_process_never_appends_behind_a_torn_tail() {
        let (temp, packs) = store();
        let (id, location) = put(&packs, b"whole");
        packs.sync().unwrap();
        let path = packs.path_of(location.container);
        drop(packs);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"Ob torn");
        fs::write(&path, torn).unwrap();
        let packs = PackStore::open(Arc::new(StoreDir::open(&temp.path().join("store")).unwrap())).unwrap();
        let (_, later) = put(&packs, b"later");
        assert_eq!(later.container, Container::Pack(2));
        assert_eq!(packs.read(&id, &location).unwrap(), b"whole");
        assert_eq!(packs.scan_pack(1).unwrap().records.len(), 1);
    }

    #[test]
    fn what_was_appended_can_be_read_before_it_is_synced() {
        let (_temp, packs) = store();
        for at in 0..50u8 {
            let bytes = vec![at; 30_000];
            let (id, location) = put(&packs, &bytes);
            assert_eq!(packs.read(&id, &location).unwrap(), bytes);
        }
    }

    #[test]
    fn threads_append_side_by_side() {
        let (_temp, packs) = store();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let packs = &packs;
                scope.spawn(move || {
                    for at in 0..200 {
                        let bytes = format!("{thread} {at}").repeat(50);
                        let (id, location) = put(packs, bytes.as_bytes());
                        if at % 50 == 0 {
                            packs.sync().unwrap();
                        }
                        assert_eq!(packs.read(&id, &location).unwrap(), bytes.as_bytes());
                    }
                });
            }
        });
        assert_eq!(packs.scan_pack(1).unwrap().records.len(), 800);
    }
}
