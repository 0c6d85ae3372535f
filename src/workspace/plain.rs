//! Files whose bytes are all in one staging file, which the kernel may have been given to read and write by itself.

use super::cut::SealedFile;
use super::error::WorkspaceError;
use super::extents::{ExtentMap, Fill};
use super::file::{Base, FileBody, Layered};
use super::inode::{Attributes, Body, Ino};
use super::live::LiveTree;
use super::operation::Resting;
use super::share::Shared;
use super::staging::StagingFile;
use crate::object::Timestamp;
use crate::sys;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// What the file system says of a plain file. Two stamps of one state are alike; any change between them shows.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Length of the file.
    pub size_bytes: u64,
    /// Space that it takes.
    pub data_bytes: u64,
    /// Last change of content, or what utimes(2) said.
    pub mtime: Timestamp,
    /// Last change of anything.
    pub ctime: Timestamp,
}

impl Stamp {
    /// Looks at an open file.
    pub fn of(file: &File) -> io::Result<Self> {
        const SECTOR_BYTES: u64 = 512;
        let found = file.metadata()?;
        Ok(Self {
            size_bytes: found.size(),
            data_bytes: found.blocks() * SECTOR_BYTES,
            mtime: Timestamp { secs: found.mtime(), nanos: found.mtime_nsec() as u32 },
            ctime: Timestamp { secs: found.ctime(), nanos: found.ctime_nsec() as u32 },
        })
    }

    /// Returns a stamp that no file has had since: of what is not there any more.
    pub fn of_the_past(self) -> Self {
        Self { ctime: Timestamp { secs: i64::MIN, nanos: 0 }, ..self }
    }

    /// Says whether nothing changed between the two. Space alone may come and go as the file system writes out.
    pub fn is_as(&self, other: &Self) -> bool {
        (self.ctime, self.size_bytes) == (other.ctime, other.size_bytes)
    }
}

/// A file that is all of a staging file. The journal says so, as long as it is one.
#[derive(Clone, Debug)]
pub struct Plain {
    /// The bytes; nobody here has it open for writing.
    pub file: Arc<StagingFile>,
    /// How it looked last.
    pub seen: Stamp,
    /// What is sealed of it, as long as it looks as it did then.
    pub sealed: Option<SealedFile>,
    /// The kernel may be writing it for somebody other than root: then the privileges of a program end, of which the kernel says nothing.
    pub ends_privileges: bool,
}

impl Plain {
    /// Reads the whole file when it is not large and there is `room` for it, as it is at one instant, and takes that room. What is written
    /// without pause has no such instant. How the file looked at the last try is noted in any case.
    pub fn copy(&mut self, room: &mut u64) -> Option<FileBody> {
        const COPY_BYTES_MAX: u64 = 4 << 20; // Everybody waits meanwhile: 15 MiB take 10 ms.
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            let stamp = self.file.stamp().ok()?;
            self.seen = stamp;
            if stamp.size_bytes > COPY_BYTES_MAX {
                return None;
            }
            *room = room.checked_sub(stamp.size_bytes)?;
            let mut bytes = vec![0; stamp.size_bytes as usize];
            self.file.read_at(0, &mut bytes).ok()?;
            let sparse = stamp.data_bytes < stamp.size_bytes;
            let data = if sparse { Some(self.file.data_ranges(stamp.size_bytes).ok()?) } else { None };
            if self.file.stamp().ok()?.is_as(&stamp) {
                let whole = FileBody::Small(Arc::new(bytes));
                return Some(match data {
                    Some(data) => with_holes(&whole, &data),
                    None => whole,
                });
            }
        }
        None
    }

    /// Says whether the file holds these bytes and no others.
    pub fn holds(&self, bytes: &[u8]) -> io::Result<bool> {
        let mut now = vec![0; bytes.len()];
        self.file.read_at(0, &mut now)?;
        Ok(self.file.stamp()?.size_bytes == bytes.len() as u64 && now == bytes)
    }

    /// Returns the same file as a layer that does not change any more.
    pub fn to_layer(&self) -> Layered {
        let size_bytes = self.seen.size_bytes;
        let mut extents = ExtentMap::default();
        extents.set(0..size_bytes, Fill::Data);
        if let Ok(data) = self.file.data_ranges(size_bytes) {
            set_holes(&mut extents, &data, size_bytes);
        }
        Layered {
            size_bytes,
            base: Base::Nothing,
            base_bytes: 0,
            staging: Some(self.file.clone()),
            extents,
            frozen: true,
            edits: 0,
            named: None,
        }
    }
}

/// Makes holes of what lies between ranges of data.
fn set_holes(extents: &mut ExtentMap, data: &[Range<u64>], size_bytes: u64) {
    let mut at = 0;
    for data in data {
        extents.set(at..data.start, Fill::Hole);
        at = data.end;
    }
    extents.set(at..size_bytes, Fill::Hole);
}

/// Returns bytes with holes where there is no data.
fn with_holes(whole: &FileBody, data: &[Range<u64>]) -> FileBody {
    let mut layered = Layered::over(whole);
    set_holes(&mut layered.extents, data, whole.size_bytes());
    FileBody::Layered(Box::new(layered))
}

impl LiveTree {
    /// Takes over what the kernel changed in a file that it may have in hand, and what ended thereby.
    pub fn look(&mut self, ino: Ino) {
        if self.note(ino) && self.plain(ino).is_some_and(|plain| plain.ends_privileges) {
            self.end_privileges(ino);
        }
    }

    /// Reads a file in the kernel's hand as [`Plain::copy`] does, and takes over how it looked then.
    pub(super) fn copy(&mut self, ino: Ino, room: &mut u64) -> Option<FileBody> {
        let inode = self.inodes.get_mut(ino)?;
        let Body::File(FileBody::Plain(plain)) = &mut inode.body else { return None };
        let before = plain.seen;
        let copy = plain.copy(room);
        inode.mtime = plain.seen.mtime;
        inode.ctime = inode.ctime.max(plain.seen.ctime);
        if plain.ends_privileges && !plain.seen.is_as(&before) {
            self.end_privileges(ino);
        }
        copy
    }

    /// Takes over how a file in the kernel's hand looks now; says whether it changed.
    pub fn note(&mut self, ino: Ino) -> bool {
        let generation = self.generation;
        let Some(inode) = self.inodes.get_mut(ino) else { return false };
        let Body::File(FileBody::Plain(plain)) = &mut inode.body else { return false };
        let Ok(now) = plain.file.stamp() else { return false }; // fstat(2) does not fail on a file that is open.
        let changed = !now.is_as(&plain.seen);
        plain.seen = now;
        if changed {
            plain.sealed = None;
            inode.mtime = now.mtime;
            // The kernel's clock for files may be a tick behind ours.
            inode.ctime = now.ctime.max(Timestamp::from_nanos(inode.ctime.nanos_since_epoch().saturating_add(1)));
            inode.content_changed_in = generation;
            self.mark(ino);
        }
        changed
    }

    /// Takes over what the kernel changed in all files that it may have in hand.
    pub fn look_at_all(&mut self) {
        for ino in self.held.to_vec() {
            self.look(ino);
        }
    }

    /// Returns what `stat` shows now.
    pub fn attributes(&mut self, ino: Ino) -> Result<Attributes, WorkspaceError> {
        let held = self.held.contains(ino);
        if held {
            self.look(ino);
        }
        let mut attributes = self.inode(ino)?.attributes(ino);
        attributes.held = held;
        Ok(attributes)
    }

    /// Returns the plain file that an inode is.
    pub fn plain(&self, ino: Ino) -> Option<&Plain> {
        match self.inodes.get(ino)?.file() {
            Some(FileBody::Plain(plain)) => Some(plain),
            _ => None,
        }
    }

    /// Returns it to be changed.
    pub fn plain_mut(&mut self, ino: Ino) -> Option<&mut Plain> {
        match &mut self.inodes.get_mut(ino)?.body {
            Body::File(FileBody::Plain(plain)) => Some(plain),
            _ => None,
        }
    }

    /// Makes a file all of the staging file `file`, which changed last at `changed` when the two were alike.
    pub(super) fn apply_hand(&mut self, ino: Ino, file: Arc<StagingFile>, changed: Timestamp) -> Result<(), WorkspaceError> {
        let seen = Stamp { ctime: changed, ..file.stamp()? };
        self.set_body(ino, FileBody::Plain(Box::new(Plain { file, seen, sealed: None, ends_privileges: false })))?;
        self.held.insert(ino);
        self.mark(ino);
        Ok(())
    }

    /// Gives a file that was plain the content and the times that it then had.
    pub(super) fn apply_rest(
        &mut self,
        ino: Ino,
        content: &Resting,
        (mtime, ctime): (Timestamp, Timestamp),
    ) -> Result<(), WorkspaceError> {
        let (body, changed) = match content {
            Resting::Bytes(bytes) if bytes.is_empty() => (FileBody::empty(), true),
            Resting::Bytes(bytes) => (FileBody::Small(Arc::new(bytes.to_vec())), true),
            Resting::Sealed(Shared { content, size_bytes, data_bytes }) => {
                (FileBody::Clean { content: *content, size_bytes: *size_bytes, data_bytes: *data_bytes }, false)
            }
        };
        self.held.remove(ino);
        let generation = self.generation;
        let inode = self.inode_mut(ino)?;
        (inode.body, inode.mtime, inode.ctime) = (Body::File(body), mtime, ctime);
        if changed {
            inode.content_changed_in = generation;
            self.mark(ino);
        }
        Ok(())
    }

    /// Takes over what the process before this one handed over. Who had it open there may go on writing.
    pub fn take_over(&mut self) {
        self.look_at_all();
        for ino in self.held.to_vec() {
            if !self.plain(ino).is_some_and(|plain| plain.file.has_others()) {
                self.held.remove(ino);
            }
        }
    }
}

/// Says why files on the file system of the directory `dir` cannot be handed to the kernel: their times do not tell what changed.
pub fn why_not_plain(dir: &Path) -> io::Result<Option<&'static str>> {
    let path = dir.join(format!(".mementofs-probe-{}", std::process::id()));
    let tried = File::options().read(true).write(true).create_new(true).open(&path).and_then(|file| {
        let tried = why_not(&path, file);
        let _ = std::fs::remove_file(&path);
        tried
    });
    match tried {
        // A full disk is no reason to come back another way than before.
        Err(err) if err.kind() == io::ErrorKind::StorageFull && sys::is_on_known_file_system(&File::open(dir)?) => Ok(None),
        tried => tried,
    }
}

fn why_not(path: &Path, mut file: File) -> io::Result<Option<&'static str>> {
    const CHANGES: usize = 4;
    let look = File::open(path)?;
    let mut last = Stamp::of(&file)?.ctime;
    let mut moved = |file: &File| Stamp::of(file).map(|now| std::mem::replace(&mut last, now.ctime) < now.ctime);
    for _ in 0..CHANGES {
        file.write_all(b"x")?;
        if !moved(&file)? {
            return Ok(Some(
                "the file system under the store does not keep times precisely enough (ext4, XFS and btrfs of Linux 6.13 do)",
            ));
        }
    }
    let mut first = false;
    sys::store_through_mapping(&file, || {
        first = moved(&file)?;
        file.sync_data()
    })?;
    if !first || !moved(&file)? {
        return Ok(Some("the file system under the store does not show in its times what is stored through mappings"));
    }
    let others = sys::has_others(&look);
    drop(file);
    if !others || sys::has_others(&look) {
        return Ok(Some("the file system under the store, or /proc/sys/fs/leases-enable, allows no leases"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::file::Source;
    use super::super::staging_dir::StagingDir;
    use super::*;
    use std::os::unix::fs::FileExt;

    /// Found by `scripts/campaigns/kill` with passthrough: it was read after the cut, and was newer in a checkpoint than the rest.
    #[test]
    fn a_sparse_file_is_copied_as_it_is_at_one_instant_with_its_holes() {
        let temp = tempfile::tempdir().unwrap();
        let staging = StagingDir::open(temp.path()).unwrap();
        let file = staging.create_plain().unwrap();
        let kernel = file.to_change().unwrap();
        kernel.set_len(1 << 20).unwrap();
        kernel.write_all_at(&[7; 4096], 8192).unwrap();
        let mut plain = Plain { seen: file.stamp().unwrap(), file, sealed: None, ends_privileges: false };
        let mut room = 2 << 20;
        let copy = plain.copy(&mut room).unwrap();
        kernel.write_all_at(&[8; 4096], 8192).unwrap();
        let mut data = Vec::new();
        for piece in copy.pieces(0..copy.size_bytes()) {
            match piece.source {
                Source::Bytes(bytes, at) => data.push((piece.range, bytes[at as usize])),
                other => assert!(matches!(other, Source::Hole), "{other:?}"),
            }
        }
        assert_eq!((copy.size_bytes(), data), (1 << 20, vec![(8192..12_288, 7)]));
        assert_eq!(room, 1 << 20, "its room is taken");
        assert!(plain.copy(&mut 1000).is_none(), "there is no room");
    }
}
