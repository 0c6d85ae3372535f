//! All packs and large objects of a store: appending, reading, listing, removing.

use super::dir::sync_dir;
use super::pack::{PACK_MAGIC, RECORD_HEADER_BYTES, RecordHeader, original_form, stored_form};
use super::{StoreDir, StoreError};
use crate::object::{Container, Location, ObjectId, ObjectKind};
use quick_cache::sync::Cache;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// A pack that is longer than this is closed, and the next begun.
const PACK_BYTES_MAX: u64 = 256 << 20;
/// Open files kept for reading.
const FILES_CACHED: usize = 64;
/// Bounds what a damaged location can make us allocate; larger content is cut into pieces.
const OBJECT_BYTES_MAX: u64 = 256 << 20;

/// The packs and large objects of a store.
#[derive(Debug)]
pub struct PackStore {
    dir: Arc<StoreDir>,
    append: Mutex<Append>,
    synced: Condvar,
    files: Cache<Container, Arc<File>>,
}

/// The pack being appended to.
#[derive(Debug, Default)]
struct Append {
    /// Number of the newest pack, open or not.
    number: u32,
    open: Option<Arc<File>>,
    offset: u64,
    /// Bytes appended since the store was opened, and how many of them are durable.
    appended: u64,
    durable: u64,
    /// Files with bytes that are not durable.
    dirty: Vec<Arc<File>>,
    directory_dirty: bool,
    syncing: bool,
    failed: bool,
}

/// A file that holds objects.
#[derive(Clone, Debug)]
pub struct ContainerInfo {
    /// Which.
    pub container: Container,
    /// Its length.
    pub size_bytes: u64,
    /// When it was written last.
    pub modified: SystemTime,
    /// Whether objects are being appended to it.
    pub appending: bool,
}

impl PackStore {
    /// Opens the packs. Appending starts a new pack: what a crash left at the end of the last one is never touched.
    pub fn open(dir: Arc<StoreDir>) -> Result<Self, StoreError> {
        let mut append = Append::default();
        for number in pack_numbers(&dir.path().join("packs"))? {
            append.number = append.number.max(number);
        }
        Ok(Self { dir, append: Mutex::new(append), synced: Condvar::new(), files: Cache::new(FILES_CACHED) })
    }

    fn append_state(&self) -> MutexGuard<'_, Append> {
        self.append.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an object. It survives the death of this process; [`Self::sync`] makes it survive a power cut.
    pub fn append(&self, kind: ObjectKind, id: &ObjectId, bytes: &[u8]) -> Result<Location, StoreError> {
        let (encoding, stored) = stored_form(bytes); // Before the lock: threads compress side by side.
        let stored_bytes = stored.len() as u64;
        let header = RecordHeader { kind, encoding, stored_bytes, size_bytes: bytes.len() as u64, id: *id };
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + stored.len());
        record.extend_from_slice(&header.encode());
        record.extend_from_slice(&stored);
        let mut append = self.append_state();
        let file = self.open_pack(&mut append)?;
        let at = append.offset;
        let path = self.pack_path(append.number);
        if let Err(err) = file.write_all_at(&record, at) {
            // What was written of it is overwritten by the next record; nothing names it.
            let _ = file.set_len(at);
            return Err(StoreError::io("cannot append to", path)(err));
        }
        append.offset += record.len() as u64;
        append.appended += record.len() as u64;
        Ok(Location {
            container: Container::Pack(append.number),
            offset: at + RECORD_HEADER_BYTES as u64,
            stored_bytes,
            size_bytes: header.size_bytes,
            encoding,
        })
    }

    fn open_pack(&self, append: &mut Append) -> Result<Arc<File>, StoreError> {
        if let Some(file) = append.open.as_ref().filter(|_| append.offset < PACK_BYTES_MAX) {
            return Ok(file.clone());
        }
        append.open = None;
        let number = append.number + 1;
        let path = self.pack_path(number);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = Arc::new(file.map_err(StoreError::io("cannot make", &path))?);
        if let Err(err) = file.write_all_at(&PACK_MAGIC, 0) {
            let _ = fs::remove_file(&path);
            return Err(StoreError::io("cannot make", &path)(err));
        }
        append.number = number;
        append.open = Some(file.clone());
        append.offset = PACK_MAGIC.len() as u64;
        append.appended += append.offset;
        append.dirty.push(file.clone());
        append.directory_dirty = true;
        Ok(file)
    }

    /// Makes everything appended before the call durable. Concurrent callers share one sync.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut append = self.append_state();
        let target = append.appended;
        loop {
            if append.failed {
                let failed = std::io::Error::from_raw_os_error(libc::EIO);
                return Err(StoreError::io("an earlier sync failed in", self.dir.path())(failed));
            }
            if append.durable >= target {
                return Ok(());
            }
            if !append.syncing {
                break;
            }
            append = self.synced.wait(append).unwrap_or_else(PoisonError::into_inner);
        }
        append.syncing = true;
        let upto = append.appended;
        let files = append.dirty.clone();
        let directory = std::mem::take(&mut append.directory_dirty);
        drop(append);
        let outcome = self.sync_files(&files, directory);
        let mut append = self.append_state();
        append.syncing = false;
        match &outcome {
            Ok(()) => {
                append.durable = append.durable.max(upto);
                let open = append.open.clone();
                append.dirty.retain(|file| {
                    open.as_ref().is_some_and(|open| Arc::ptr_eq(open, file)) || !files.iter().any(|done| Arc::ptr_eq(done, file))
                });
            }
            Err(_) => append.failed = true, // What the kernel dropped nobody knows (fsync(2)).
        }
        self.synced.notify_all();
        outcome
    }

    fn sync_files(&self, files: &[Arc<File>], directory: bool) -> Result<(), StoreError> {
        let packs = self.dir.path().join("packs");
        for file in files {
            file.sync_data().map_err(StoreError::io("cannot sync a pack in", &packs))?;
        }
        if directory { sync_dir(&packs) } else { Ok(()) }
    }

    /// Reads an object and verifies it.
    pub fn read(&self, id: &ObjectId, at: &Location) -> Result<Vec<u8>, StoreError> {
        if at.stored_bytes > OBJECT_BYTES_MAX || at.size_bytes > OBJECT_BYTES_MAX {
            return Err(StoreError::damaged(*id, "its recorded size is out of range"));
        }
        let file = self.open_container(at.container)?;
        let mut stored = vec![0; at.stored_bytes as usize];
        file.read_exact_at(&mut stored, at.offset).map_err(|err| match err.kind() {
            std::io::ErrorKind::UnexpectedEof => StoreError::damaged(*id, "the file that holds it ends too early"),
            _ => StoreError::io("cannot read", self.path_of(at.container))(err),
        })?;
        original_form(id, at.encoding, stored, at.size_bytes)
    }

    fn open_container(&self, container: Container) -> Result<Arc<File>, StoreError> {
        if let Some(file) = self.files.get(&container) {
            return Ok(file);
        }
        let path = self.path_of(container);
        let file = Arc::new(File::open(&path).map_err(StoreError::io("cannot open", path))?);
        self.files.insert(container, file.clone());
        Ok(file)
    }

    /// Makes the staging file at `staging` the large object `id`, which is the SHA-256 of its bytes. Durable when this returns.
    pub fn adopt_large(&self, id: &ObjectId, staging: &Path) -> Result<Container, StoreError> {
        let container = Container::Large(*id);
        let path = self.path_of(container);
        let shard = path.parent().unwrap_or(self.dir.path());
        fs::create_dir_all(shard).map_err(StoreError::io("cannot make", shard))?;
        let file = File::open(staging).map_err(StoreError::io("cannot open", staging))?;
        file.sync_all().map_err(StoreError::io("cannot sync", staging))?;
        fs::set_permissions(staging, Permissions::from_mode(0o400)).map_err(StoreError::io("cannot protect", staging))?;
        fs::rename(staging, &path).map_err(StoreError::io("cannot place", &path))?;
        sync_dir(shard)?;
        sync_dir(&self.dir.path().join("objects"))?;
        Ok(container)
    }

    /// Lists every file that holds objects.
    pub fn containers(&self) -> Result<Vec<ContainerInfo>, StoreError> {
        let (number, open) = {
            let append = self.append_state();
            (append.number, append.open.is_some())
        };
        let mut found = Vec::new();
        for pack in pack_numbers(&self.dir.path().join("packs"))? {
            let appending = open && pack == number;
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
                Ok(Some(ContainerInfo { container, size_bytes: file.len(), modified, appending }))
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(StoreError::io("cannot look at", path)(err)),
        }
    }

    /// Closes the pack being appended to: the next object starts another.
    pub fn rotate(&self) {
        self.append_state().open = None;
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

    /// Lists the records of a pack by their headers, up to the first that is torn. For checks and for rebuilding an index.
    pub fn scan_pack(&self, number: u32) -> Result<Vec<(ObjectKind, ObjectId, Location)>, StoreError> {
        let path = self.pack_path(number);
        let file = File::open(&path).map_err(StoreError::io("cannot open", &path))?;
        let len = file.metadata().map_err(StoreError::io("cannot look at", &path))?.len();
        let mut records = Vec::new();
        let mut at = PACK_MAGIC.len() as u64;
        let mut header = [0; RECORD_HEADER_BYTES];
        while at + RECORD_HEADER_BYTES as u64 <= len {
            file.read_exact_at(&mut header, at).map_err(StoreError::io("cannot read", &path))?;
            let Some(record) = RecordHeader::decode(&header) else { break };
            let offset = at + RECORD_HEADER_BYTES as u64;
            let Some(end) = offset.checked_add(record.stored_bytes).filter(|end| *end <= len) else { break };
            let location = Location {
                container: Container::Pack(number),
                offset,
                stored_bytes: record.stored_bytes,
                size_bytes: record.size_bytes,
                encoding: record.encoding,
            };
            records.push((record.kind, record.id, location));
            at = end;
        }
        Ok(records)
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
        self.dir.path().join("packs").join(format!("{number:08}.pack"))
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
        assert_eq!(packs.scan_pack(1).unwrap().len(), 4);
    }

    #[test]
    fn every_flipped_bit_of_a_stored_object_is_noticed() {
        let (_temp, packs) = store();
        let (id, location) = put(&packs, &[b"some bytes ".as_slice(); 40].concat());
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
        let path = packs.path_of(location.container);
        drop(packs);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(b"Ob torn");
        fs::write(&path, torn).unwrap();
        let packs = PackStore::open(Arc::new(StoreDir::open(&temp.path().join("store")).unwrap())).unwrap();
        let (_, later) = put(&packs, b"later");
        assert_eq!(later.container, Container::Pack(2));
        assert_eq!(packs.read(&id, &location).unwrap(), b"whole");
        assert_eq!(packs.scan_pack(1).unwrap().len(), 1);
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
        assert_eq!(packs.scan_pack(1).unwrap().len(), 800);
    }

    #[test]
    fn a_staging_file_becomes_a_large_object_named_by_its_hash() {
        let (temp, packs) = store();
        let bytes = vec![3; 10_000];
        let staging = temp.path().join("store/staging/1");
        fs::write(&staging, &bytes).unwrap();
        let id = ObjectId::of(&bytes);
        let container = packs.adopt_large(&id, &staging).unwrap();
        let whole =
            Location { container, offset: 0, stored_bytes: 10_000, size_bytes: 10_000, encoding: crate::object::Encoding::Raw };
        assert_eq!(packs.read(&id, &whole).unwrap(), bytes);
        assert_eq!(packs.containers().unwrap().len(), 1);
        packs.remove(container).unwrap();
        assert_eq!(packs.containers().unwrap().len(), 0);
    }
}
